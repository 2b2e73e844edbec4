package e2e_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"sublet.dev/test/machine"
	"sublet.dev/test/wire"
)

const openPlan = `
apiVersion: sublet.dev/v1alpha1
kind: Plan
metadata: {name: open}
spec: {nodePorts: 2}
`

// openService chooses a port, of those that are never given to Services without a choice.
const openService = `
apiVersion: v1
kind: Service
metadata: {name: open}
spec:
  type: NodePort
  selector: {app: web}
  ports: [{port: 80, targetPort: 8080, nodePort: 30080}]
`

const allowWorld = `
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: world}
spec:
  podSelector: {matchLabels: {app: web}}
  ingress: [{from: [{ipBlock: {cidr: %s/32}}]}]
`

// fromWorld waits until somebody outside can open a connection to a port of the node,
// or until nobody can.
func fromWorld(t *testing.T, port int, open bool) {
	t.Helper()
	machine.Eventually(t, fmt.Sprintf("port %d is open=%v to the world", port, open), func() error {
		err := wire.FromWorld(t.Context(), "timeout", "3", "bash", "-c", fmt.Sprintf("exec 3<>/dev/tcp/%s/%d", wire.Node, port)).Run()
		if (err == nil) != open {
			return fmt.Errorf("it is not: %v", err)
		}
		return nil
	})
}

// TestNodePorts opens a tenant's application to the world by a port of the node, as far
// as the tenant's policies allow it.
func TestNodePorts(t *testing.T) {
	t.Parallel()
	machine.Running(t)
	path := filepath.Join(t.TempDir(), "plan.yaml")
	if err := os.WriteFile(path, []byte(openPlan), 0o600); err != nil {
		t.Fatal(err)
	}
	machine.Host(t, "apply", "-f", path)
	t.Cleanup(func() { machine.Host(t, "delete", "plan", "open", "--ignore-not-found") })
	bare(t, "harbour", "--plan", "open")
	machine.Kubectl(t, "harbour", "apply", "-f", quickstart)
	machine.Kubectl(t, "harbour", "rollout", "status", "deployment/web", "--timeout=5m")

	fromWorld(t, 30080, false)
	apply(t, "harbour", openService)
	fromWorld(t, 30080, true)
	fromWorld(t, 30081, false)
	reaches(t, "harbour", wire.Node+":30080")

	apply(t, "harbour", denyAll)
	fromWorld(t, 30080, false)
	apply(t, "harbour", fmt.Sprintf(allowWorld, wire.World))
	fromWorld(t, 30080, true)
	apply(t, "harbour", fmt.Sprintf(allowWorld, wire.Internet))
	fromWorld(t, 30080, false)
	machine.Kubectl(t, "harbour", "delete", "networkpolicy", "--all")
	fromWorld(t, 30080, true)
	machine.Kubectl(t, "harbour", "delete", "service", "open")
	fromWorld(t, 30080, false)
}
