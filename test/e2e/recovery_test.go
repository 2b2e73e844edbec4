package e2e_test

import (
	"fmt"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"sublet.dev/test/machine"
	"sublet.dev/test/registry"
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

// sleepsOn waits until the host says that a tenant sleeps. It says so only when the
// tenant's cell does: one that is woken stays awake for longer than a test takes.
func sleepsOn(t *testing.T, tenant string) {
	t.Helper()
	machine.Eventually(t, tenant+" sleeps on", func() error {
		r := machine.Try(t, "list")
		for line := range strings.Lines(r.Stdout) {
			if fields := strings.Fields(line); len(fields) > 1 && fields[0] == tenant && fields[1] == "Asleep" {
				return nil
			}
		}
		return fmt.Errorf("%v", r)
	})
}

// TestMachine does what the other tests would notice, or what would notice them, so
// none runs at the same time. It kills every process of Sublet in turn: a tenant that
// runs goes on as it was, and one that sleeps sleeps on. In the end all is fenced as
// ever.
func TestMachine(t *testing.T) {
	tenants(t, "survivor", "dormant")
	t.Run("a deleted tenant leaves nothing", deleteLeavesNothing)
	wantContainers, wantObjects := containers(t, "survivor"), objects(t, "survivor")
	lull(t, "dormant")
	// The image of all that follows was imported. Somebody has pulled the same one since.
	tell(t, publicHost, registry.Serve(t, filepath.Join(machine.Root, "bin/images/quickstart.tar")))
	apply(t, "survivor", runsOnce(t, "copy", "", use{publicHost + "/quickstart:1", corev1.PullAlways}))
	succeed(t, "survivor", "copy")
	machine.Kubectl(t, "survivor", "delete", "pod", "copy", "--timeout=5m")

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
		machine.Kubectl(t, "survivor", "wait", "--for=jsonpath={.status.phase}=Succeeded", "pod/after", "--timeout=5m")
		machine.Kubectl(t, "survivor", "delete", "pod", "after", "--timeout=5m")
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
			if process != machine.AgentPID { // a new one tells news of its pods, which wake
				sleepsOn(t, "dormant")
			}
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

	t.Run("audit", func(t *testing.T) {
		machine.Sublet(t, "wake", "dormant")
		r := machine.Try(t, "audit", "-o", "json", "--timeout", "5m")
		var report struct {
			Subjects []struct {
				Name    string
				Results []struct{ ID, Result, Reason string }
			}
		}
		decode(t, r.Stdout, &report)
		if len(report.Subjects) < 3 { // both tenants and the host
			t.Errorf("audit: %+v", report)
		}
		if r.Code == 0 {
			return
		}
		t.Errorf("audit: exit code %d, %s", r.Code, r.Stderr)
		for _, subject := range report.Subjects {
			for _, result := range subject.Results {
				if result.Result != "pass" {
					t.Errorf("%s: %+v", subject.Name, result)
				}
			}
		}
	})
}
