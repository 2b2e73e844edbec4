package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestNoMounts: a data directory may be a disk of its own; what is mounted below it is
// somebody's, whatever the names.
func TestNoMounts(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("it mounts: only root may")
	}
	dir := filepath.Join(t.TempDir(), "a name with\tblanks")
	volume := filepath.Join(dir, "a volume")
	mount := func(at string) {
		if err := os.MkdirAll(at, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := unix.Mount("tmpfs", at, "tmpfs", 0, "size=4k"); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := unix.Unmount(at, unix.MNT_DETACH); err != nil {
				t.Error(err)
			}
		})
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := noMounts(dir); err != nil {
		t.Errorf("nothing is mounted: %v", err)
	}
	mount(dir)
	if err := noMounts(dir); err != nil {
		t.Errorf("only the directory itself is mounted: %v", err)
	}
	mount(volume)
	if err := noMounts(dir); err == nil || !strings.Contains(err.Error(), volume) {
		t.Errorf("%s is mounted: %v", volume, err)
	}
	linked := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(dir, linked); err != nil {
		t.Fatal(err)
	}
	if err := noMounts(linked); err == nil {
		t.Error("it was not found through a link")
	}
}
