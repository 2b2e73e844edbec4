package e2e_test

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"sublet.dev/test/machine"
	"sublet.dev/test/wire"
)

// A tenant that runs is backed up, loses its application, and gets it back from the
// backup; what it did not lose goes on untouched.
func TestBackupAndRestore(t *testing.T) {
	t.Parallel()
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

	machine.Kubectl(t, "archived", "delete", "deployment", "web", "--cascade=foreground", "--timeout=5m")
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
	machine.Kubectl(t, "archived", "rollout", "status", "deployment/web", "--timeout=5m")
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
	machine.Kubectl(t, "archived", "wait", "--for=jsonpath={.status.phase}=Succeeded", "pod/after", "--timeout=5m")
}

// running returns the containers of a tenant's pods that run, with the time each began.
func running(t *testing.T, tenant, selector string) string {
	t.Helper()
	out := machine.Kubectl(t, tenant, "get", "pods", "-l", selector, "--field-selector=status.phase=Running", "-o",
		`jsonpath={range .items[*]}{.metadata.uid} {.status.containerStatuses[0].containerID} {.status.containerStatuses[0].state.running.startedAt}{"\n"}{end}`)
	return strings.TrimSpace(out)
}

// A tenant with a running application is moved to an etcd and back.
func TestMigrate(t *testing.T) {
	t.Parallel()
	program := filepath.Join(machine.Root, "bin/peers/etcd")
	if _, err := os.Stat(program); err != nil {
		t.Skip("there is no etcd to move to: run `make peers`")
	}
	tenants(t, "mover")
	const url, peer = "http://" + wire.Node + ":12379", "http://127.0.0.1:12380"
	etcd := exec.Command(program, "--name", "m", "--data-dir", t.TempDir(), "--log-level", "error",
		"--listen-client-urls", url, "--advertise-client-urls", url,
		"--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", "m="+peer)
	etcd.Stdout, etcd.Stderr = os.Stderr, os.Stderr
	if err := etcd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = etcd.Process.Kill(); _ = etcd.Wait() })
	before, counter := objects(t, "mover"), running(t, "mover", "app=counter")

	moved := func(where string, args ...string) {
		t.Helper()
		out := machine.Sublet(t, append([]string{"store", "migrate", "mover"}, args...)...)
		if !strings.Contains(out, "tenant mover is kept in "+where) {
			t.Errorf("migrate: %s", out)
		}
		machine.Eventually(t, "the application answers", func() error {
			if r := app(t, "mover", "visit", "http://web/"); r.Code != 0 {
				return fmt.Errorf("%v", r)
			}
			return nil
		})
		if now := objects(t, "mover"); now != before {
			t.Errorf("in %s it has\n%s\nbefore:\n%s", where, now, before)
		}
		if now := running(t, "mover", "app=counter"); now != counter {
			t.Errorf("in %s the counter is %q, was %q", where, now, counter)
		}
	}
	moved("etcd "+url, "--store-etcd", url)
	if out := machine.Sublet(t, "store", "migrate", "mover", "--store-etcd", url); !strings.Contains(out, "already") {
		t.Errorf("a second time: %s", out)
	}
	if r := machine.Try(t, "store", "stat", "mover"); r.Code != 5 || !strings.Contains(r.Stderr, "kept in an etcd") {
		t.Errorf("stat: %v", r)
	}
	moved("a file", "--to-file")
	machine.Kubectl(t, "mover", "run", "after", "--image=sublet.dev/quickstart:1", "--restart=Never", "--", "uname")
	machine.Kubectl(t, "mover", "wait", "--for=jsonpath={.status.phase}=Succeeded", "pod/after", "--timeout=5m")
}
