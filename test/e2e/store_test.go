package e2e_test

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"sublet.dev/test/machine"
)

// A tenant that runs is backed up, loses its application, and gets it back from the
// backup; what it did not lose goes on untouched.
func TestBackupAndRestore(t *testing.T) {
	tenants(t, "archived")
	backup := filepath.Join(t.TempDir(), "archived.backup")
	machine.Sublet(t, "store", "backup", "archived", backup)
	if out := machine.Sublet(t, "store", "check", "--file", backup); !strings.Contains(out, "is in order") {
		t.Errorf("check of the backup: %s", out)
	}
	counter := running(t, "archived", "app=counter")
	if counter == "" {
		t.Fatal("the tenant has no counter")
	}

	machine.Kubectl(t, "archived", "delete", "deployment", "web", "--cascade=foreground", "--timeout=120s")
	machine.Kubectl(t, "archived", "create", "configmap", "later")
	machine.Eventually(t, "the application is gone", func() error {
		if left := running(t, "archived", "app=web"); left != "" {
			return fmt.Errorf("running: %s", left)
		}
		return nil
	})

	var done struct {
		Keys, Before, Revision int64
	}
	out := machine.Sublet(t, "store", "restore", "archived", backup, "-o", "json")
	if err := json.Unmarshal([]byte(out), &done); err != nil || done.Revision <= done.Before || done.Before == 0 {
		t.Fatalf("%v in %s", err, out)
	}
	machine.Kubectl(t, "archived", "rollout", "status", "deployment/web", "--timeout=180s")
	machine.Eventually(t, "the application answers", func() error {
		if r := app(t, "archived", "visit", "http://web/"); r.Code != 0 {
			return fmt.Errorf("%v", r)
		}
		return nil
	})
	if r := machine.TryKubectl(t, "archived", "get", "configmap", "later"); r.Code == 0 || !strings.Contains(r.Stderr, "NotFound") {
		t.Errorf("what came after the backup is still there: %v", r)
	}
	if now := running(t, "archived", "app=counter"); now != counter {
		t.Errorf("the counter was not left alone: %q was %q", now, counter)
	}
	if out := machine.Sublet(t, "store", "check", "archived"); !strings.Contains(out, "is in order") {
		t.Errorf("check: %s", out)
	}
	if out := machine.Sublet(t, "store", "stat", "archived"); !strings.Contains(out, "/registry/pods") {
		t.Errorf("stat: %s", out)
	}
	// and new work is done
	machine.Kubectl(t, "archived", "run", "after", "--image=sublet.dev/quickstart:1", "--restart=Never", "--", "uname")
	machine.Kubectl(t, "archived", "wait", "--for=jsonpath={.status.phase}=Succeeded", "pod/after", "--timeout=180s")
}

// running returns the containers of a tenant's pods that run, with the time each began.
func running(t *testing.T, tenant, selector string) string {
	t.Helper()
	out := machine.Kubectl(t, tenant, "get", "pods", "-l", selector, "--field-selector=status.phase=Running", "-o",
		`jsonpath={range .items[*]}{.metadata.uid} {.status.containerStatuses[0].containerID} {.status.containerStatuses[0].state.running.startedAt}{"\n"}{end}`)
	return strings.TrimSpace(out)
}
