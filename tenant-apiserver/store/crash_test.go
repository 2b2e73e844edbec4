package store

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// childRole tells a copy of the test binary what to be instead of a test.
const childRole = "SUBLET_STORE_TEST_ROLE"

const childPath = "SUBLET_STORE_TEST_PATH"

func runChild(role string) int {
	roles := map[string]func(path string) error{"writer": childWriter, "full": childFullDisk, "limited": childLimited}
	if err := roles[role](os.Getenv(childPath)); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

func child(t *testing.T, role, path string) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), childRole+"="+role, childPath+"="+path)
	cmd.Stderr = os.Stderr
	return cmd
}

// childWriter writes until it is killed: eight goroutines, each with keys of its
// own, put, overwrite and delete; one compacts. Each line says what is on disk.
func childWriter(path string) error {
	s, err := Open(path, Options{SweepSlice: 16})
	if err != nil {
		return err
	}
	ctx := context.Background()
	var out sync.Mutex
	var group sync.WaitGroup
	for w := range 8 {
		group.Go(func() {
			for i := 0; ; i++ {
				key := fmt.Sprintf("%d/%d/%d", os.Getpid(), w, i%40)
				op := Op{Put: &Put{Key: []byte(key), Value: fmt.Appendf(nil, "value %d", i)}}
				if i%7 == 6 {
					op = Op{Delete: &Range{Key: []byte(key)}}
				}
				r, err := s.Txn(ctx, Txn{Then: []Op{op}})
				if err != nil {
					panic(err)
				}
				out.Lock()
				fmt.Printf("%s %d %v\n", key, r.Revision, op.Delete != nil)
				out.Unlock()
				if w == 0 && i%20 == 19 {
					if _, err := s.Compact(ctx, r.Revision-10); err != nil && !errors.Is(err, ErrCompacted) {
						panic(err)
					}
				}
			}
		})
	}
	group.Wait()
	return nil
}

// TestKill kills a writing process again and again, and wants every write back
// that it was told was done, and revisions without a gap.
func TestKill(t *testing.T) {
	cycles := 8
	if testing.Short() {
		cycles = 2
	}
	path := filepath.Join(t.TempDir(), "store.db")
	type written struct {
		rev     int64
		deleted bool
	}
	acked, total := map[string]written{}, 0
	for range cycles {
		cmd := child(t, "writer", path)
		pipe, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines, killAt := bufio.NewScanner(pipe), 300+rand.IntN(700)
		for n := 0; lines.Scan(); n++ {
			var key string
			var w written
			if _, err := fmt.Sscan(lines.Text(), &key, &w.rev, &w.deleted); err != nil {
				continue // the last line, cut by the kill
			}
			acked[key], total = w, total+1
			if n == killAt {
				cmd.Process.Signal(syscall.SIGKILL)
			}
		}
		cmd.Wait()

		s := openAt(t, path, Options{})
		for key, w := range acked {
			got := mustRead(t, s, Read{Range: Range{Key: []byte(key)}})
			// A write that was not acknowledged may be there on top.
			newer := len(got.KVs) == 1 && got.KVs[0].ModRevision > w.rev
			switch {
			case got.Revision < w.rev:
				t.Fatalf("store is at %d, %s was written at %d", got.Revision, key, w.rev)
			case w.deleted && len(got.KVs) == 1 && !newer, !w.deleted && len(got.KVs) == 1 && got.KVs[0].ModRevision < w.rev:
				t.Errorf("%s: got %s, acknowledged %+v", key, show(got.KVs), w)
			case !w.deleted && len(got.KVs) == 0 && !deletedAfter(t, s, key, w.rev):
				t.Errorf("%s: lost, acknowledged at %d", key, w.rev)
			}
		}
		verify(t, s)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%d acknowledged writes in %d lives", total, cycles)
}

// deletedAfter says whether the log has a deletion of key after rev.
func deletedAfter(t *testing.T, s *Store, key string, rev int64) (yes bool) {
	err := s.view(t.Context(), func(snap snapshot) error {
		e, err := snap.entry([]byte(key))
		yes = !e.live() && (e.at.rev > rev || e.at == pos{} && snap.head.compacted > rev)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return yes
}

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
	if !errors.Is(err, ErrNoSpace) {
		return fmt.Errorf("full disk: %w", err)
	}
	return countAfterReopen(s, path, n-1)
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
	return countAfterReopen(s, path, n-1)
}

// countAfterReopen wants the acknowledged keys, and no others but the one that
// was refused.
func countAfterReopen(s *Store, path string, acked int) error {
	if err := s.Close(); err != nil {
		return err
	}
	s, err := Open(path, Options{})
	if err != nil {
		return err
	}
	defer s.Close()
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
