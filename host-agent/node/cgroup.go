package node

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
)

// cgroups are the machine's cgroup hierarchies: mount points.
type cgroups struct {
	mounts []string
	// v2 is true when the unified hierarchy is the only one.
	v2 bool
}

// findCgroups lists the hierarchies that are mounted.
func findCgroups() (cgroups, error) {
	var v1, v2 []string
	mounts, err := mountinfo.GetMounts(mountinfo.PrefixFilter("/sys/fs/cgroup"))
	if err != nil {
		return cgroups{}, fmt.Errorf("find the cgroup hierarchies: %w", err)
	}
	for _, m := range mounts {
		switch m.FSType {
		case "cgroup":
			v1 = append(v1, m.Mountpoint)
		case "cgroup2":
			v2 = append(v2, m.Mountpoint)
		}
	}
	switch {
	case len(v1) > 0:
		return cgroups{mounts: append(v1, v2...)}, nil
	case len(v2) > 0:
		return cgroups{mounts: v2[:1], v2: true}, nil
	}
	return cgroups{}, errors.New("no cgroup hierarchy is mounted at /sys/fs/cgroup: mount one (on most machines systemd does)")
}

// make creates a cgroup, and those above it, in all hierarchies.
func (g cgroups) make(path string) error {
	for _, m := range g.mounts {
		dir := m
		for part := range strings.SplitSeq(strings.Trim(path, "/"), "/") {
			if g.v2 {
				if err := delegate(dir); err != nil {
					return err
				}
			}
			dir = filepath.Join(dir, part)
			if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
				return fmt.Errorf("make the node's cgroup: %w", err)
			}
			if g.v2 {
				continue // CPUs are inherited
			}
			if err := inheritCPUs(dir); err != nil {
				return err
			}
		}
	}
	return nil
}

// delegate lets the children of a cgroup v2 use its controllers.
func delegate(dir string) error {
	have, err := os.ReadFile(filepath.Join(dir, "cgroup.controllers"))
	if err != nil {
		return fmt.Errorf("read the controllers of %s: %w", dir, err)
	}
	for _, c := range strings.Fields(string(have)) {
		if err := os.WriteFile(filepath.Join(dir, "cgroup.subtree_control"), []byte("+"+c), 0); err != nil {
			return fmt.Errorf("give the controller %s to the cgroups below %s (processes in that cgroup itself forbid it): %w", c, dir, err)
		}
	}
	return nil
}

// inheritCPUs fills the two files of a cpuset cgroup v1 without which no process
// may enter it, from the cgroup above.
func inheritCPUs(dir string) error {
	for _, name := range []string{"cpuset.cpus", "cpuset.mems"} {
		now, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil || strings.TrimSpace(string(now)) != "" {
			continue // no cpuset, or filled
		}
		above, err := os.ReadFile(filepath.Join(filepath.Dir(dir), name))
		if err != nil {
			return fmt.Errorf("read the CPUs above %s: %w", dir, err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), above, 0); err != nil {
			return fmt.Errorf("give CPUs to %s: %w", dir, err)
		}
	}
	return nil
}

// enter moves a process into a cgroup in all hierarchies.
func (g cgroups) enter(path string, pid int) error {
	for _, m := range g.mounts {
		if err := os.WriteFile(filepath.Join(m, path, "cgroup.procs"), []byte(strconv.Itoa(pid)), 0); err != nil {
			return fmt.Errorf("move process %d into %s%s: %w", pid, m, path, err)
		}
	}
	return nil
}

// walk calls f for the directories of a cgroup in all hierarchies, children first.
func (g cgroups) walk(path string, f func(dir string) error) error {
	var errs []error
	for _, m := range g.mounts {
		var dirs []string
		err := filepath.WalkDir(filepath.Join(m, path), func(p string, d fs.DirEntry, err error) error {
			if err == nil && d.IsDir() {
				dirs = append(dirs, p)
			}
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			return err
		})
		errs = append(errs, err)
		for _, d := range slices.Backward(dirs) {
			errs = append(errs, f(d))
		}
	}
	return errors.Join(errs...)
}

// processes lists the processes below a cgroup, each once.
func (g cgroups) processes(path string) ([]int, error) {
	found := map[int]bool{}
	err := g.walk(path, func(dir string) error {
		raw, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
		if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.ENODEV) {
			return err
		}
		for _, field := range strings.Fields(string(raw)) {
			if pid, err := strconv.Atoi(field); err == nil && pid > 0 {
				found[pid] = true
			}
		}
		return nil
	})
	pids := make([]int, 0, len(found))
	for pid := range found {
		pids = append(pids, pid)
	}
	return pids, err
}

// kill ends every process below a cgroup and returns when none is left. What is in
// the node's cgroup is the node's, so nothing else is ever hit.
func (g cgroups) kill(ctx context.Context, path string) error {
	return poll(ctx, func() (bool, error) {
		pids, err := g.processes(path)
		if err != nil {
			return false, fmt.Errorf("list the node's processes: %w", err)
		}
		for _, pid := range pids {
			if err := unix.Kill(pid, unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
				return false, fmt.Errorf("end process %d: %w", pid, err)
			}
		}
		return len(pids) == 0, nil
	})
}

// remove removes a cgroup that holds no processes.
func (g cgroups) remove(ctx context.Context, path string) error {
	return poll(ctx, func() (bool, error) {
		busy := false
		err := g.walk(path, func(dir string) error {
			err := unix.Rmdir(dir)
			if errors.Is(err, unix.EBUSY) {
				busy = true // a process is still leaving
				return nil
			}
			if errors.Is(err, unix.ENOENT) {
				return nil
			}
			return err
		})
		if err != nil {
			return false, fmt.Errorf("remove the node's cgroup: %w", err)
		}
		return !busy, nil
	})
}

// pollEvery is how often something is looked at that tells nobody when it changes.
const pollEvery = 20 * time.Millisecond

// poll calls done until it returns true or an error, or ctx ends.
func poll(ctx context.Context, done func() (bool, error)) error {
	t := time.NewTicker(pollEvery)
	defer t.Stop()
	for {
		if ok, err := done(); ok || err != nil {
			return err
		}
		select {
		case <-t.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}
