package backup

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"sublet.dev/tenant-apiserver/store"
)

// childFull is the folder on which a copy of the test binary mounts a small disk.
const childFull = "SUBLET_BACKUP_TEST_DISK"

// A full disk leaves no file under the final name, and no store restored in half.
func TestFullDisk(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("mounting a small disk needs root")
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), childFull+"="+t.TempDir())
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
}

// onFullDisk runs in a mount namespace of its own, with 2 MiB of disk.
func onFullDisk(dir string) error {
	if err := syscall.Mount("none", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
		return err
	}
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=2m"); err != nil {
		return err
	}
	old := filepath.Join(dir, "store.db")
	s, err := store.Open(old, store.Options{ID: "acme"})
	if err != nil {
		return err
	}
	if err := s.Close(); err != nil {
		return err
	}
	var large bytes.Buffer
	b, err := NewWriter(&large, Header{Tenant: "acme", Revision: 1000})
	for i := 0; err == nil && i < 40; i++ {
		err = b.Entry(Entry{Key: fmt.Appendf(nil, "k%03d", i), Value: make([]byte, 100<<10), CreateRevision: 1, ModRevision: 1, Version: 1})
	}
	if _, closeErr := b.Close(); err != nil || closeErr != nil {
		return errors.Join(err, closeErr)
	}
	_, _, err = WriteFile(filepath.Join(dir, "backup"), false, func(w io.Writer) error {
		_, err := w.Write(large.Bytes())
		return err
	})
	if !errors.Is(err, syscall.ENOSPC) {
		return fmt.Errorf("backup on a full disk: %w", err)
	}
	_, err = Restore(context.Background(), &large, Target{Path: old, Tenant: "acme"})
	if !errors.Is(err, syscall.ENOSPC) && !errors.Is(err, store.ErrNoSpace) {
		return fmt.Errorf("restore on a full disk: %w", err)
	}
	left, err := os.ReadDir(dir)
	if err != nil || len(left) != 1 {
		return fmt.Errorf("left: %v, %w", left, err)
	}
	if r, err := store.CheckFile(context.Background(), old); err != nil || !r.OK() {
		return fmt.Errorf("the old store: %+v, %w", r, err)
	}
	return nil
}
