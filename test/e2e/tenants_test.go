package e2e_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
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
	machine.Explain(t, name)
}

func TestRuncInUserNamespaces(t *testing.T) {
	t.Parallel()
	bare(t, "spaces", "--sandbox", "runc-userns")
	machine.Kubectl(t, "spaces", "apply", "-f", quickstart)
	machine.Kubectl(t, "spaces", "rollout", "status", "deployment/web", "--timeout=5m")
	r := app(t, "spaces", "idmap")
	fields := strings.Fields(r.Stdout)
	if len(fields) != 3 || fields[0] != "0" || fields[1] == "0" {
		t.Errorf("user ids are not mapped: %v", r)
	}
	// restricted holds here: who asks for more is refused, who does not ask gets that
	const asks = `{"spec":{"containers":[{"name":"p","image":"sublet.dev/quickstart:1","securityContext":{"allowPrivilegeEscalation":true}}]}}`
	r = machine.TryKubectl(t, "spaces", "run", "p", "--image=sublet.dev/quickstart:1", "--overrides="+asks)
	if r.Code == 0 || !strings.Contains(r.Stderr, "restricted") {
		t.Errorf("want a refusal by level restricted: %v", r)
	}
	machine.Kubectl(t, "spaces", "run", "p", "--image=sublet.dev/quickstart:1")
	machine.Kubectl(t, "spaces", "wait", "pod/p", "--for=condition=Ready", "--timeout=5m")
}

func TestKubeconfig(t *testing.T) {
	t.Parallel()
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

// TestMissingHandler takes the sandbox away from the only node: a pod waits and says
// why, and runs in nothing else; it runs when the agent says that the sandbox is
// there.
func TestMissingHandler(t *testing.T) {
	bare(t, "patient")
	node := strings.TrimSpace(machine.Host(t, "get", "nodes", "-o", "jsonpath={.items[0].metadata.name}"))
	class := machine.Host(t, "get", "runtimeclass", "sublet-gvisor", "-o", "jsonpath={.scheduling.nodeSelector}")
	if !strings.Contains(class, "sublet.dev/sandbox-gvisor") {
		t.Fatalf("the RuntimeClass asks for no sandbox: %s", class)
	}
	agent := machine.PidOf(t, machine.AgentPID) // it would say at once that the sandbox is there
	if err := syscall.Kill(agent, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	goOn := sync.OnceFunc(func() {
		if err := syscall.Kill(agent, syscall.SIGCONT); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(goOn)
	machine.Host(t, "label", "node", node, "sublet.dev/sandbox-gvisor-")
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
	goOn()
	machine.Kubectl(t, "patient", "wait", "--for=condition=Ready", "pod/p", "--timeout=5m")
}
