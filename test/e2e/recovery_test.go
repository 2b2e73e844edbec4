package e2e_test

import (
	"fmt"
	"sort"
	"strconv"
	"strings"
	"testing"

	"sublet.dev/test/machine"
)

// containers returns the tenant's containers with the time each began: a pod that
// was touched has others.
func containers(t *testing.T, tenant string) string {
	t.Helper()
	out := machine.Kubectl(t, tenant, "get", "pods", "-l", "app in (web,counter)", "-o",
		`jsonpath={range .items[*]}{.metadata.uid} {.status.podIP} {.status.containerStatuses[0].containerID} {.status.containerStatuses[0].state.running.startedAt} {.status.containerStatuses[0].restartCount}{"\n"}{end}`)
	lines := strings.Split(strings.TrimSpace(out), "\n")
	sort.Strings(lines)
	return strings.Join(lines, "\n")
}

// objects returns the names and UIDs of what a tenant has.
func objects(t *testing.T, tenant string) string {
	t.Helper()
	return machine.Kubectl(t, tenant, "get", "deployments,replicasets,replicationcontrollers,jobs,services,configmaps,secrets,pods", "-A", "-o",
		`jsonpath={range .items[*]}{.kind} {.metadata.namespace}/{.metadata.name} {.metadata.uid}{"\n"}{end}`)
}

func TestRecovery(t *testing.T) {
	tenants(t, "survivor")
	wantContainers, wantObjects := containers(t, "survivor"), objects(t, "survivor")

	// recovered waits until everything works again and holds it against before.
	recovered := func(t *testing.T) {
		t.Helper()
		machine.Eventually(t, "the tenant's application answers", func() error {
			if r := app(t, "survivor", "visit", "http://web/"); r.Code != 0 {
				return fmt.Errorf("%v", r)
			}
			return nil
		})
		if got := objects(t, "survivor"); got != wantObjects {
			t.Errorf("objects before:\n%s\nafter:\n%s", wantObjects, got)
		}
		if got := containers(t, "survivor"); got != wantContainers {
			t.Errorf("containers before:\n%s\nafter:\n%s", wantContainers, got)
		}
		// and new work is still done, down to the kubelet
		machine.Kubectl(t, "survivor", "run", "after", "--image=sublet.dev/quickstart:1", "--restart=Never", "--", "uname")
		machine.Kubectl(t, "survivor", "wait", "--for=jsonpath={.status.phase}=Succeeded", "pod/after", "--timeout=180s")
		machine.Kubectl(t, "survivor", "delete", "pod", "after", "--timeout=120s")
	}

	for _, process := range []string{machine.CellPID, machine.ServerPID, machine.AgentPID} {
		t.Run("kill -9 "+strings.TrimSuffix(process, ".pid"), func(t *testing.T) {
			before := machine.PidOf(t, process)
			machine.Kill(t, process)
			machine.Eventually(t, "it is started again", func() error {
				if now, err := machine.ReadPID(process); err != nil || now == before {
					return fmt.Errorf("pid %d, %w", now, err)
				}
				return nil
			})
			recovered(t)
		})
	}

	t.Run("kill -9 of sublet up itself", func(t *testing.T) {
		before := map[string]int{machine.ServerPID: machine.PidOf(t, machine.ServerPID), machine.CellPID: machine.PidOf(t, machine.CellPID), machine.AgentPID: machine.PidOf(t, machine.AgentPID)}
		machine.KillUp(t)
		for file, pid := range before {
			if now := machine.PidOf(t, file); now != pid {
				t.Errorf("%s: process %d was not taken over, %d is there now", file, pid, now)
			}
		}
		recovered(t)
	})

	t.Run("a second sublet up says who holds the machine", func(t *testing.T) {
		r := machine.Try(t, "up")
		if r.Code == 0 || !strings.Contains(r.Stderr, strconv.Itoa(machine.UpPID())) {
			t.Errorf("want a refusal that names process %d: %v", machine.UpPID(), r)
		}
	})
}
