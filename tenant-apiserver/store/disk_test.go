package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// childFullDisk fills a small file system of its own, and goes on with what a
// full store must still do.
func childFullDisk(dir string) error {
	if err := syscall.Mount("none", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
		return err
	}
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=4m"); err != nil {
		return err
	}
	path := filepath.Join(dir, "store.db")
	s, err := Open(path, Options{})
	if err != nil {
		return err
	}
	n := 0
	for ; err == nil; n++ {
		err = s.put(fmt.Sprintf("key %d", n), strings.Repeat("x", 10_000))
	}
	if !errors.Is(err, ErrNoSpace) || s.Err() != nil {
		return fmt.Errorf("full disk: %w, %w", err, s.Err())
	}
	// The next process finds the disk as full, and all that was acknowledged.
	if err := s.Close(); err != nil && !errors.Is(err, ErrNoSpace) {
		return err
	}
	return countAfterOpen(path, n-1)
}

// childLimited has a file that may not grow, which bbolt cannot tell from a
// failing disk.
func childLimited(path string) error {
	signal.Ignore(syscall.SIGXFSZ)
	s, err := Open(path, Options{})
	if err != nil {
		return err
	}
	limit := syscall.Rlimit{Cur: 2 << 20, Max: 2 << 20}
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &limit); err != nil {
		return err
	}
	n := 0
	for ; err == nil; n++ {
		err = s.put(fmt.Sprintf("key %d", n), strings.Repeat("x", 10_000))
	}
	if !errors.Is(err, ErrFailed) || !errors.Is(s.Err(), ErrFailed) {
		return fmt.Errorf("failed disk: %w", err)
	}
	c, err := s.Watch(everything(), 0)
	if err != nil {
		return err
	}
	if _, _, err := c.Poll(context.Background()); !errors.Is(err, ErrFailed) {
		return fmt.Errorf("cursor of a failed store: %w", err)
	}
	if err := s.Close(); err != nil {
		return err
	}
	return countAfterOpen(path, n-1)
}

// countAfterOpen wants the acknowledged keys, and not the one that was refused.
func countAfterOpen(path string, acked int) error {
	s, err := Open(path, Options{})
	if err != nil {
		return err
	}
	defer s.Close() // what it cannot do on a full disk was seen before
	res, err := s.Read(context.Background(), Read{Range: everything(), CountOnly: true})
	if err != nil {
		return err
	}
	if acked == 0 || res.Count != int64(acked) {
		return fmt.Errorf("%d keys are there, %d were acknowledged", res.Count, acked)
	}
	return nil
}

// TestFullDisk lets a disk run full below a store.
func TestFullDisk(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root for a small file system in a mount namespace of its own")
	}
	cmd := child(t, "full", t.TempDir())
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	if out, err := cmd.Output(); err != nil {
		t.Fatalf("%v %s", err, out)
	}
}

// TestFailedDisk makes writes fail in a way that says nothing about the file.
func TestFailedDisk(t *testing.T) {
	if out, err := child(t, "limited", filepath.Join(t.TempDir(), "store.db")).Output(); err != nil {
		t.Fatalf("%v %s", err, out)
	}
}
