package node

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// limit ends a test that would wait for ever.
func limit(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// hierarchies are those of this machine, as found, and the unified one alone,
// which most machines have as their only one.
func hierarchies(t *testing.T) map[string]cgroups {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("making cgroups needs root")
	}
	found, err := findCgroups()
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]cgroups{"as found": found}
	for _, m := range found.mounts {
		if strings.HasSuffix(m, "/unified") {
			all["unified alone"] = cgroups{mounts: []string{m}, v2: true}
		}
	}
	return all
}

func TestCgroupHoldsAndLosesProcesses(t *testing.T) {
	for name, g := range hierarchies(t) {
		t.Run(name, func(t *testing.T) {
			path := fmt.Sprintf("/sublet-test-%d", os.Getpid())
			t.Cleanup(func() {
				if err := g.remove(context.WithoutCancel(t.Context()), path); err != nil {
					t.Error(err)
				}
			})
			for range 2 { // making what is there is success
				if err := g.make(path + "/runtime"); err != nil {
					t.Fatal(err)
				}
			}
			sleeper := exec.Command("sleep", "infinity")
			if err := sleeper.Start(); err != nil {
				t.Fatal(err)
			}
			ended := make(chan error, 1)
			go func() { ended <- sleeper.Wait() }()
			if err := g.enter(path+"/runtime", sleeper.Process.Pid); err != nil {
				t.Fatal(err)
			}
			pids, err := g.processes(path)
			if err != nil || !slices.Equal(pids, []int{sleeper.Process.Pid}) {
				t.Errorf("the cgroup holds %v (%v), not %d", pids, err, sleeper.Process.Pid)
			}
			if err := g.kill(limit(t), path); err != nil {
				t.Fatal(err)
			}
			<-ended
			if err := g.remove(limit(t), path); err != nil {
				t.Fatal(err)
			}
			for _, m := range g.mounts {
				if _, err := os.Stat(filepath.Join(m, path)); !errors.Is(err, os.ErrNotExist) {
					t.Errorf("%s%s is still there: %v", m, path, err)
				}
			}
			if err := g.kill(limit(t), path); err != nil {
				t.Errorf("what is gone cannot be ended again: %v", err)
			}
		})
	}
}
