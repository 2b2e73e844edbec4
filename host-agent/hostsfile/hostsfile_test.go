package hostsfile

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	runtimev1 "k8s.io/cri-api/pkg/apis/runtime/v1"

	"sublet.dev/isolation/tenant"
)

// head and aliases are what the kubelet writes above and below a pod's own lines.
const (
	head    = "# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::0\tip6-localnet\n"
	aliases = "\n# Entries added by HostAliases.\n10.0.0.9\tdb-0\n"
)

// sandbox is a pod db-0 with that subdomain and hostname in the namespace "prod".
func sandbox(hostname, subdomain string) *runtimev1.PodSandboxConfig {
	return &runtimev1.PodSandboxConfig{
		Hostname: hostname, Metadata: &runtimev1.PodSandboxMetadata{Name: "db-0", Uid: "u-1"},
		Annotations: map[string]string{tenant.AnnotationSubdomain: subdomain, tenant.AnnotationNamespace: "prod"},
	}
}

// managed makes the kubelet's file of the pod and returns the directory of pods and a
// container that mounts the file.
func managed(t *testing.T, content string) (podsDir, path string, container *runtimev1.ContainerConfig) {
	t.Helper()
	podsDir = t.TempDir()
	path = filepath.Join(podsDir, "u-1", "etc-hosts")
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
	return podsDir, path, &runtimev1.ContainerConfig{Mounts: []*runtimev1.Mount{
		{ContainerPath: "/data", HostPath: "/elsewhere"}, {ContainerPath: mountPoint, HostPath: path},
	}}
}

func read(t *testing.T, path string) string {
	t.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

func TestComplete(t *testing.T) {
	const full = "db-0.db.prod.svc.cluster.local"
	for _, tc := range []struct {
		name, hostname, subdomain, own, want string
	}{
		{"a subdomain", "db-0", "db", "10.1.2.3\tdb-0\n", "10.1.2.3\t" + full + "\tdb-0\n"},
		{"two addresses", "db-0", "db", "10.1.2.3\tdb-0\nfd00::3\tdb-0\n", "10.1.2.3\t" + full + "\tdb-0\nfd00::3\t" + full + "\tdb-0\n"},
		{"the full name is the hostname", full, "db", "10.1.2.3\t" + full + "\n", "10.1.2.3\t" + full + "\tdb-0\n"},
		{"a name with dots", "a.b", "db", "10.1.2.3\ta.b\n", "10.1.2.3\ta.b.db.prod.svc.cluster.local\ta.b\n"},
		{"the name of the loopback", "localhost", "db", "10.1.2.3\tlocalhost\n", "10.1.2.3\tlocalhost.db.prod.svc.cluster.local\tlocalhost\n"},
		{"no subdomain", "db-0", "", "10.1.2.3\tdb-0\n", "10.1.2.3\tdb-0\n"},
		// What no API lets through, from a syncer that is not what it should be.
		{"a subdomain of two lines", "db-0", "db\n8.8.8.8\tapi", "10.1.2.3\tdb-0\n", "10.1.2.3\tdb-0\n"},
		{"a subdomain with a tab", "db-0", "db\tbank", "10.1.2.3\tdb-0\n", "10.1.2.3\tdb-0\n"},
		{"a subdomain with dots", "db-0", "a.b", "10.1.2.3\tdb-0\n", "10.1.2.3\tdb-0\n"},
		{"a hostname of two lines", "db-0\n1.1.1.1\tx", "db", "10.1.2.3\tdb-0\n", "10.1.2.3\tdb-0\n"},
		{"a subdomain that is too long", "db-0", strings.Repeat("x", 64), "10.1.2.3\tdb-0\n", "10.1.2.3\tdb-0\n"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			for _, tail := range []string{"", aliases} {
				podsDir, path, container := managed(t, head+tc.own+tail)
				if err := Complete(podsDir, sandbox(tc.hostname, tc.subdomain), container); err != nil {
					t.Fatal(err)
				}
				if got, want := read(t, path), head+tc.want+tail; got != want {
					t.Errorf("the file is\n%s\nwant\n%s", got, want)
				}
				// The kubelet writes anew before the next container; twice does no harm.
				if err := Complete(podsDir, sandbox(tc.hostname, tc.subdomain), container); err != nil || read(t, path) != head+tc.want+tail {
					t.Errorf("a second time, %v:\n%s", err, read(t, path))
				}
			}
		})
	}
}

// A namespace that is no label comes from no API either.
func TestForgedNamespace(t *testing.T) {
	podsDir, path, container := managed(t, head+"10.1.2.3\tdb-0\n")
	pod := sandbox("db-0", "db")
	pod.Annotations[tenant.AnnotationNamespace] = "prod\n1.1.1.1\tapi"
	if err := Complete(podsDir, pod, container); err != nil || read(t, path) != head+"10.1.2.3\tdb-0\n" {
		t.Errorf("%v:\n%s", err, read(t, path))
	}
}

// What a tenant mounts at /etc/hosts is not touched, not even by way of a link in the
// place of the kubelet's file.
func TestOtherFiles(t *testing.T) {
	const content = head + "10.1.2.3\tdb-0\n"
	podsDir, path, container := managed(t, content)
	own := filepath.Join(t.TempDir(), "hosts")
	if err := os.WriteFile(own, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	container.Mounts[1].HostPath = own
	if err := Complete(podsDir, sandbox("db-0", "db"), container); err != nil {
		t.Error(err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(own, path); err != nil {
		t.Fatal(err)
	}
	container.Mounts[1].HostPath = path
	if err := Complete(podsDir, sandbox("db-0", "db"), container); err == nil {
		t.Error("a link was followed")
	}
	if read(t, own) != content || read(t, path) != content {
		t.Error("a file of the tenant's was changed")
	}
	// A file that a container of the pod has filled is not read whole.
	podsDir, path, container = managed(t, content)
	if err := os.Truncate(path, maxSize+1); err != nil {
		t.Fatal(err)
	}
	if err := Complete(podsDir, sandbox("db-0", "db"), container); err == nil {
		t.Error("a file of any size was read")
	}
}
