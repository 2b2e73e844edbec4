package e2e_test

import (
	"fmt"
	"strconv"
	"strings"
	"testing"

	"sublet.dev/test/machine"
)

// scaleByMemory asks for as many pods as there may be: none of them uses so little.
const scaleByMemory = `
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {name: web}
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: web}
  minReplicas: 1
  maxReplicas: 3
  metrics:
  - type: Resource
    resource: {name: memory, target: {type: AverageValue, averageValue: 1Ki}}
`

// TestMetrics shows a tenant what its pods use, and no other's, and scales by it.
func TestMetrics(t *testing.T) {
	t.Parallel()
	tenants(t, "metered", "unmetered")
	machine.Eventually(t, "kubectl top pods", func() error {
		for _, pod := range pods(t, "metered", "app=web") {
			if memory, err := memoryOf(t, "metered", pod.Name); err != nil || memory <= 0 {
				return fmt.Errorf("pod %s uses %d Mi: %w", pod.Name, memory, err)
			}
		}
		return nil
	})
	own, other := podNames(t, "metered"), podNames(t, "unmetered")
	for _, line := range strings.Split(strings.TrimSpace(machine.Kubectl(t, "metered", "top", "pods", "-A", "--no-headers")), "\n") {
		name := strings.Fields(line)[1]
		if !own[name] || other[name] {
			t.Errorf("the tenant is shown a pod that is not its own: %s", line)
		}
	}
	node := machine.Kubectl(t, "metered", "get", "nodes", "-o", "jsonpath={.items[0].metadata.name}")
	machine.Eventually(t, "kubectl top nodes", func() error {
		if r := machine.TryKubectl(t, "metered", "top", "nodes", "--no-headers"); r.Code != 0 || !strings.HasPrefix(r.Stdout, node+" ") {
			return fmt.Errorf("%v", r)
		}
		return nil
	})

	apply(t, "metered", scaleByMemory)
	machine.Eventually(t, "the autoscaler adds pods", func() error {
		replicas := machine.Kubectl(t, "metered", "get", "deployment", "web", "-o", "jsonpath={.spec.replicas}")
		if replicas != "3" {
			return fmt.Errorf("%s replicas; %s", replicas, machine.Kubectl(t, "metered", "describe", "hpa", "web"))
		}
		return nil
	})
}

// memoryOf returns what `kubectl top` says of a pod, in MiB.
func memoryOf(t *testing.T, tenant, pod string) (int, error) {
	t.Helper()
	r := machine.TryKubectl(t, tenant, "top", "pod", pod, "--no-headers")
	fields := strings.Fields(r.Stdout)
	if r.Code != 0 || len(fields) != 3 {
		return 0, fmt.Errorf("%v", r)
	}
	return strconv.Atoi(strings.TrimSuffix(fields[2], "Mi"))
}

func podNames(t *testing.T, tenant string) map[string]bool {
	t.Helper()
	names := map[string]bool{}
	for _, pod := range pods(t, tenant, "") {
		names[pod.Name] = true
	}
	return names
}
