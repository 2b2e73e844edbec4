package e2e_test

import (
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
	"testing"
)

// Files of the run directory that hold the processes' ids.
const (
	serverPID = "server.pid"
	cellPID   = "cell-0.pid"
	agentPID  = "agent.pid"
)

func readPID(file string) (int, error) {
	b, err := os.ReadFile(filepath.Join(machine.dataDir, "run", file))
	if err != nil {
		return 0, err
	}
	first, _, _ := strings.Cut(strings.TrimSpace(string(b)), " ")
	return strconv.Atoi(first)
}

func pidOf(t *testing.T, file string) int {
	t.Helper()
	pid, err := readPID(file)
	if err != nil {
		t.Fatal(err)
	}
	return pid
}

// containers returns the tenant's containers with the time each began: a pod that
// was touched has others.
func containers(t *testing.T, tenant string) string {
	t.Helper()
	out := kubectl(t, tenant, "get", "pods", "-l", "app in (web,counter)", "-o",
		`jsonpath={range .items[*]}{.metadata.uid} {.status.podIP} {.status.containerStatuses[0].containerID} {.status.containerStatuses[0].state.running.startedAt} {.status.containerStatuses[0].restartCount}{"\n"}{end}`)
	lines := strings.Split(strings.TrimSpace(out), "\n")
	sort.Strings(lines)
	return strings.Join(lines, "\n")
}

// objects returns the names and UIDs of what a tenant has.
func objects(t *testing.T, tenant string) string {
	t.Helper()
	return kubectl(t, tenant, "get", "deployments,replicasets,replicationcontrollers,jobs,services,configmaps,secrets,pods", "-A", "-o",
		`jsonpath={range .items[*]}{.kind} {.metadata.namespace}/{.metadata.name} {.metadata.uid}{"\n"}{end}`)
}

func TestRecovery(t *testing.T) {
	tenants(t, "survivor")
	wantContainers, wantObjects := containers(t, "survivor"), objects(t, "survivor")

	// recovered waits until everything works again and holds it against before.
	recovered := func(t *testing.T) {
		t.Helper()
		eventually(t, "the tenant's application answers", func() error {
			if r := app(t, "survivor", "visit", "http://web/"); r.code != 0 {
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
		kubectl(t, "survivor", "run", "after", "--image=sublet.dev/quickstart:1", "--restart=Never", "--", "uname")
		kubectl(t, "survivor", "wait", "--for=jsonpath={.status.phase}=Succeeded", "pod/after", "--timeout=180s")
		kubectl(t, "survivor", "delete", "pod", "after", "--timeout=120s")
	}

	for _, process := range []string{cellPID, serverPID, agentPID} {
		t.Run("kill -9 "+strings.TrimSuffix(process, ".pid"), func(t *testing.T) {
			before := pidOf(t, process)
			kill(t, process)
			eventually(t, "it is started again", func() error {
				if now, err := readPID(process); err != nil || now == before {
					return fmt.Errorf("pid %d, %w", now, err)
				}
				return nil
			})
			recovered(t)
		})
	}

	t.Run("kill -9 of sublet up itself", func(t *testing.T) {
		machine.Lock()
		defer machine.Unlock()
		before := map[string]int{serverPID: pidOf(t, serverPID), cellPID: pidOf(t, cellPID), agentPID: pidOf(t, agentPID)}
		if err := machine.up.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = machine.up.Wait() // killed: always an error
		startUp(t)
		for file, pid := range before {
			if now := pidOf(t, file); now != pid {
				t.Errorf("%s: process %d was not taken over, %d is there now", file, pid, now)
			}
		}
		recovered(t)
	})

	t.Run("a second sublet up says who holds the machine", func(t *testing.T) {
		r := try(t, "up")
		if r.code == 0 || !strings.Contains(r.stderr, strconv.Itoa(machine.up.Process.Pid)) {
			t.Errorf("want a refusal that names process %d: %v", machine.up.Process.Pid, r)
		}
	})
}
