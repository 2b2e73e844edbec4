package e2e_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/tools/clientcmd"

	"sublet.dev/test/machine"
)

// bare makes a tenant with nothing in it.
func bare(t *testing.T, name string, flags ...string) {
	t.Helper()
	machine.Running(t)
	machine.Sublet(t, append([]string{"create", name, "--wait"}, flags...)...)
	t.Cleanup(func() { machine.Sublet(t, "delete", name, "--wait", "--ignore-not-found") })
}

func TestRuncInUserNamespaces(t *testing.T) {
	bare(t, "spaces", "--sandbox", "runc-userns")
	machine.Kubectl(t, "spaces", "apply", "-f", quickstart)
	machine.Kubectl(t, "spaces", "rollout", "status", "deployment/web", "--timeout=180s")
	r := app(t, "spaces", "idmap")
	fields := strings.Fields(r.Stdout)
	if len(fields) != 3 || fields[0] != "0" || fields[1] == "0" {
		t.Errorf("user ids are not mapped: %v", r)
	}
	// restricted holds here: the same pod without its hardening is refused
	r = machine.TryKubectl(t, "spaces", "run", "p", "--image=sublet.dev/quickstart:1")
	if r.Code == 0 || !strings.Contains(r.Stderr, "restricted") {
		t.Errorf("want a refusal by level restricted: %v", r)
	}
}

func TestKubeconfig(t *testing.T) {
	bare(t, "north")
	bare(t, "south")
	dir := t.TempDir()
	file := func(tenant string, flags ...string) string {
		path := filepath.Join(dir, tenant+strings.Join(flags, ""))
		content := machine.Sublet(t, append([]string{"kubeconfig", tenant}, flags...)...)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	with := func(kubeconfig string, args ...string) machine.Result {
		return machine.Try(t, append([]string{"connect", "north", "--", "kubectl", "--kubeconfig", kubeconfig}, args...)...)
	}
	north, south := file("north"), file("south")
	if r := with(north, "get", "namespaces"); r.Code != 0 {
		t.Fatalf("north's own: %v", r)
	}
	config, err := clientcmd.LoadFromFile(south)
	if err != nil {
		t.Fatal(err)
	}
	for _, cluster := range config.Clusters {
		// North's certificate at south's server: TLS itself is made to work, so it
		// is the certificate that is refused.
		r := with(north, "--tls-server-name", cluster.TLSServerName, "--insecure-skip-tls-verify", "--certificate-authority=", "get", "namespaces")
		if r.Code == 0 || !strings.Contains(r.Stderr, "Unauthorized") && !strings.Contains(r.Stderr, "must be logged in") && !strings.Contains(r.Stderr, "certificate") {
			t.Errorf("north's certificate at south: %v", r)
		}
	}
	short := file("north", "--ttl=5s")
	machine.Eventually(t, "a certificate ends", func() error {
		if r := with(short, "get", "namespaces"); r.Code == 0 {
			return fmt.Errorf("it is still taken: %v", r)
		}
		return nil
	})
}

func TestImagePullPolicy(t *testing.T) {
	bare(t, "puller")
	cases := []struct{ name, image, policy, reason string }{
		{"never", "sublet.dev/nothing:1", "Never", "ErrImageNeverPull"},
		{"always", "sublet.dev/quickstart:1", "Always", "ErrImagePull"}, // there is no registry to ask
	}
	for _, c := range cases {
		machine.Kubectl(t, "puller", "run", c.name, "--image="+c.image, "--image-pull-policy="+c.policy, "--labels=case="+c.name)
	}
	machine.Kubectl(t, "puller", "run", "there", "--image=sublet.dev/quickstart:1", "--image-pull-policy=IfNotPresent", "--restart=Never", "--", "uname")
	machine.Kubectl(t, "puller", "wait", "--for=jsonpath={.status.phase}=Succeeded", "pod/there", "--timeout=180s")
	for _, c := range cases {
		machine.Eventually(t, c.name+" says why it waits", func() error {
			p := pods(t, "puller", "case="+c.name)[0]
			if len(p.Status.ContainerStatuses) == 0 || p.Status.ContainerStatuses[0].State.Waiting == nil {
				return fmt.Errorf("%+v", p.Status)
			}
			why := p.Status.ContainerStatuses[0].State.Waiting.Reason
			if why != c.reason && !(c.reason == "ErrImagePull" && why == "ImagePullBackOff") {
				return fmt.Errorf("it waits because of %s", why)
			}
			return nil
		})
	}
}

// TestMissingHandler takes the sandbox away from the only node: pods wait and say
// why, and run in nothing else.
func TestMissingHandler(t *testing.T) {
	bare(t, "patient")
	node := strings.TrimSpace(machine.Host(t, "get", "nodes", "-o", "jsonpath={.items[0].metadata.name}"))
	class := machine.Host(t, "get", "runtimeclass", "sublet-gvisor", "-o", "jsonpath={.scheduling.nodeSelector}")
	if !strings.Contains(class, "sublet.dev/sandbox-gvisor") {
		t.Fatalf("the RuntimeClass asks for no sandbox: %s", class)
	}
	machine.Host(t, "label", "node", node, "sublet.dev/sandbox-gvisor-")
	t.Cleanup(func() { machine.Host(t, "label", "--overwrite", "node", node, "sublet.dev/sandbox-gvisor=true") })
	machine.Kubectl(t, "patient", "run", "p", "--image=sublet.dev/quickstart:1", "--labels=case=p", "--", "counter")
	machine.Eventually(t, "the pod says why it waits", func() error {
		p := pods(t, "patient", "case=p")[0]
		for _, c := range p.Status.Conditions {
			if c.Type == corev1.PodScheduled && c.Reason == corev1.PodReasonUnschedulable && p.Status.Phase == corev1.PodPending {
				return nil
			}
		}
		return fmt.Errorf("%+v", p.Status)
	})
	machine.Host(t, "label", "--overwrite", "node", node, "sublet.dev/sandbox-gvisor=true")
	machine.Kubectl(t, "patient", "wait", "--for=condition=Ready", "pod/p", "--timeout=180s")
}
