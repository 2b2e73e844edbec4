package volumes_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sublet.dev/host-agent/volumes"
)

// TestMountedElsewhere: a mount namespace that another process has made keeps what was
// mounted then. A volume that is mounted again meanwhile is the same file system, not a
// second one in the same bytes.
func TestMountedElsewhere(t *testing.T) {
	s, dir := open(t)
	path := create(t, s, "pvc-a", 16<<20)
	if err := os.WriteFile(filepath.Join(path, "file"), []byte("kept"), 0o600); err != nil {
		t.Fatal(err)
	}
	other := exec.Command("sleep", "infinity")
	other.SysProcAttr = &unix.SysProcAttr{Unshareflags: unix.CLONE_NEWNS}
	if err := other.Start(); err != nil {
		t.Fatal(err)
	}
	end := func() {
		_ = other.Process.Kill() // it may have ended
		_ = other.Wait()
	}
	t.Cleanup(end)
	if err := unix.Unmount(filepath.Dir(path), 0); err != nil {
		t.Fatal(err)
	}
	if err := s.Mount(t.Context(), "pvc-a"); err != nil {
		t.Fatal(err)
	}
	if got := read(t, filepath.Join(path, "file")); got != "kept" {
		t.Errorf("mounted again the file reads %q", got)
	}
	if of := loops(t, dir); len(of) != 1 {
		t.Errorf("the volume is mounted over %v", of)
	}
	if err := os.WriteFile(filepath.Join(path, "more"), []byte("too"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := read(t, filepath.Join(fmt.Sprintf("/proc/%d/root", other.Process.Pid), path, "more")); got != "too" {
		t.Errorf("the other reads %q", got)
	}
	if err := s.Remove("pvc-a"); !errors.Is(err, volumes.ErrInUse) {
		t.Errorf("a volume that another has mounted was removed: %v", err)
	}
	end()
	if err := whenFree(t, func() error { return s.Remove("pvc-a") }); err != nil {
		t.Error(err)
	}
	if left := append(mounts(t, dir), loops(t, dir)...); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

// whenFree does what needs a volume that nobody has mounted, again while it is in use: a
// process elsewhere on the machine that made a mount namespace may hold it for a moment.
func whenFree(t *testing.T, do func() error) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	for {
		err := do()
		if !errors.Is(err, volumes.ErrInUse) {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(10 * time.Millisecond):
		}
	}
}
