package e2e_test

import (
	"fmt"
	"strings"
	"testing"

	"sublet.dev/test/machine"
)

// phase returns what the host says of a tenant.
func phase(t *testing.T, tenant string) string {
	t.Helper()
	return strings.TrimSpace(machine.Host(t, "get", "virtualcluster", tenant, "-o", "jsonpath={.status.phase}"))
}

func awaitPhase(t *testing.T, tenant, want string) {
	t.Helper()
	machine.Eventually(t, tenant+" is "+want, func() error {
		if now := phase(t, tenant); now != want {
			return fmt.Errorf("it is %s", now)
		}
		return nil
	})
}

// lull puts a tenant to sleep.
func lull(t *testing.T, tenant string) {
	t.Helper()
	machine.Sublet(t, "sleep", tenant, "--timeout=5m")
	awaitPhase(t, tenant, "Asleep")
}

// hostPod returns the tenant's namespace on the host and the name of its web
// application's pod there: what is done to that the tenant's API does not hear of.
func hostPod(t *testing.T, tenant string) (namespace, name string) {
	t.Helper()
	namespace = strings.TrimSpace(machine.Host(t, "get", "virtualcluster", tenant, "-o", "jsonpath={.status.namespace}"))
	for _, line := range strings.Fields(machine.Host(t, "get", "pods", "-n", namespace, "--field-selector=status.phase=Running", "-o", "name")) {
		if name, ok := strings.CutPrefix(line, "pod/default-web-"); ok {
			return namespace, "default-web-" + name
		}
	}
	t.Fatalf("no pod of the web application runs in %s", namespace)
	return "", ""
}

// TestSleep: a tenant that sleeps goes on serving; it wakes when somebody connects and
// when one of its pods is gone. (TestMachine: it sleeps on when the processes around
// it are killed.)
func TestSleep(t *testing.T) {
	t.Parallel()
	tenants(t, "sleepy")
	lull(t, "sleepy")
	if out := machine.Sublet(t, "list"); !strings.Contains(out, "Asleep") {
		t.Errorf("list: %s", out)
	}

	t.Run("services and DNS go on", func(t *testing.T) {
		machine.Eventually(t, "a visit that does not wake it", func() error { // a probe that is late wakes it
			lull(t, "sleepy")
			namespace, pod := hostPod(t, "sleepy")
			out := machine.Host(t, "exec", "-n", namespace, pod, "--", "/app", "visit", "http://web.default.svc.cluster.local/")
			if !strings.HasPrefix(out, "Hello from a cluster of my own") {
				t.Errorf("visit: %s", out)
			}
			if now := phase(t, "sleepy"); now != "Asleep" {
				return fmt.Errorf("the tenant is %s", now)
			}
			return nil
		})
	})

	t.Run("it wakes when its pod is taken away, and replaces it", func(t *testing.T) {
		namespace, pod := hostPod(t, "sleepy")
		before := strings.TrimSpace(machine.Host(t, "get", "pod", "-n", namespace, pod, "-o", "jsonpath={.metadata.uid}"))
		machine.Host(t, "delete", "pod", "-n", namespace, pod)
		awaitPhase(t, "sleepy", "Ready")
		machine.Eventually(t, "another pod serves", func() error {
			list := machine.Host(t, "get", "pods", "-n", namespace, "-o", `jsonpath={range .items[*]}{.metadata.name} {.metadata.uid} {.status.phase}{"\n"}{end}`)
			for line := range strings.Lines(list) {
				if strings.HasPrefix(line, "default-web-") && strings.HasSuffix(line, " Running\n") && !strings.Contains(line, before) {
					return nil
				}
			}
			return fmt.Errorf("%s", list)
		})
		machine.Kubectl(t, "sleepy", "rollout", "status", "deployment/web", "--timeout=5m")
		lull(t, "sleepy")
	})

	t.Run("kubectl wakes it and does not notice", func(t *testing.T) {
		if out := machine.Kubectl(t, "sleepy", "get", "deployment", "web", "-o", "jsonpath={.status.availableReplicas}"); strings.TrimSpace(out) == "" {
			t.Error("the deployment has no available replicas")
		}
		awaitPhase(t, "sleepy", "Ready")
		if out := machine.Kubectl(t, "sleepy", "get", "events"); !strings.Contains(out, "Started") {
			t.Errorf("events: %s", out)
		}
	})

	t.Run("sublet wake wakes it, again and again", func(t *testing.T) {
		lull(t, "sleepy")
		for range 2 {
			machine.Sublet(t, "wake", "sleepy")
		}
		awaitPhase(t, "sleepy", "Ready")
	})
}
