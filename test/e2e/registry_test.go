package e2e_test

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sublet.dev/test/images/ociimage"
	"sublet.dev/test/machine"
	"sublet.dev/test/registry"
)

// mirrored is the host of a registry that is nowhere but where hosts.toml says.
const mirrored = "registry.example.org"

// silent is the host of a registry that takes connections and never answers.
const silent = "silent.example.org"

// pulling is a pod whose image comes from a registry.
const pulling = `
apiVersion: v1
kind: Pod
metadata: {name: %s}
spec:
  terminationGracePeriodSeconds: 1
  securityContext: {runAsNonRoot: true, runAsUser: 65534}
  containers:
  - name: app
    image: %s/mirrored:1
    imagePullPolicy: Always
    args: [counter]
    readinessProbe: {httpGet: {path: /healthz, port: 9090}, periodSeconds: 1}
`

// mirroredImage writes an archive with an image that no node has. It is none of the
// imported ones: of an image that it has pulled a kubelet asks a registry whether others
// may have it, under whatever name they have it.
func mirroredImage(t *testing.T) string {
	t.Helper()
	app, err := os.ReadFile(filepath.Join(machine.Root, "bin/images/app"))
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(filepath.Join(t.TempDir(), "mirrored.tar"))
	if err != nil {
		t.Fatal(err)
	}
	err = ociimage.Write(f, ociimage.Image{
		Name: mirrored + "/mirrored:1", User: "65534:65534", Entrypoint: []string{"/app"},
		Files: []ociimage.File{{Path: "/app", Mode: 0o755, Data: app}},
	})
	if err = errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
	return f.Name()
}

// TestRegistryByHostsFile: a node pulls a tenant's image from where a file in the data
// directory says, and not without it, also while another pull gets no answer.
func TestRegistryByHostsFile(t *testing.T) {
	t.Parallel()
	bare(t, "puller")
	address := registry.Serve(t, mirroredImage(t))
	start := func(name, host string) {
		t.Helper()
		file := filepath.Join(t.TempDir(), name+".yaml")
		if err := os.WriteFile(file, fmt.Appendf(nil, pulling, name, host), 0o600); err != nil {
			t.Fatal(err)
		}
		machine.Kubectl(t, "puller", "apply", "-f", file)
	}
	start("without", mirrored)
	machine.Eventually(t, "the pull fails without the file", func() error {
		why := machine.Kubectl(t, "puller", "get", "pod", "without", "-o", "jsonpath={.status.containerStatuses[0].state.waiting.reason}")
		if why = strings.TrimSpace(why); why != "ErrImagePull" && why != "ImagePullBackOff" {
			return fmt.Errorf("the container waits: %q", why)
		}
		return nil
	})
	tell := func(host, address string) {
		t.Helper()
		file := registry.Tell(t, filepath.Join(machine.DataDir(), "registries"), host, address)
		t.Cleanup(func() {
			if err := os.RemoveAll(filepath.Dir(file)); err != nil {
				t.Error(err)
			}
		})
	}
	// One that never answers keeps nobody else waiting.
	never, asked := silence(t)
	tell(silent, never)
	start("silent", silent)
	select {
	case <-asked:
	case <-t.Context().Done():
		t.Fatal("nobody has asked the registry that never answers")
	}
	tell(mirrored, address)
	start("with", mirrored)
	machine.Kubectl(t, "puller", "wait", "pod/with", "--for=condition=Ready", "--timeout=4m")
	if why := machine.Kubectl(t, "puller", "get", "pod", "silent", "-o", "jsonpath={.status.containerStatuses[0].state.waiting.reason}"); strings.TrimSpace(why) != "ContainerCreating" {
		t.Errorf("the pod whose registry never answers is not waited for: %q", why)
	}
}

// silence listens and never answers, until the test ends. asked is closed when somebody
// has connected.
func silence(t *testing.T) (address string, asked <-chan struct{}) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	first, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		var open []net.Conn
		for {
			c, err := l.Accept()
			if err != nil {
				break // the test has ended
			}
			if open = append(open, c); len(open) == 1 {
				close(first)
			}
		}
		for _, c := range open {
			_ = c.Close()
		}
	}()
	t.Cleanup(func() {
		_ = l.Close()
		<-done
	})
	return l.Addr().String(), first
}
