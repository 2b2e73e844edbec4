package backup

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"sublet.dev/tenant-apiserver/store"
)

const (
	childTarget = "SUBLET_RESTORE_TEST_PATH"
	childBackup = "SUBLET_RESTORE_TEST_BACKUP"
	childStep   = "SUBLET_RESTORE_TEST_STEP"
)

func TestMain(m *testing.M) {
	if path := os.Getenv(childTarget); path != "" {
		os.Exit(dieAt(path, os.Getenv(childBackup), step(os.Getenv(childStep))))
	}
	if dir := os.Getenv(childFull); dir != "" {
		if err := onFullDisk(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// dieAt restores and kills itself at a step.
func dieAt(path, backup string, at step) int {
	f, err := os.Open(backup)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	_, err = Restore(context.Background(), f, Target{Path: path, Tenant: "acme", at: func(s step) {
		if s == at {
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {}
		}
	}})
	fmt.Fprintln(os.Stderr, "it was not killed:", err)
	return 1
}

func TestRestore(t *testing.T) {
	s := filled(t)
	want, data := state(t, s, 0), taken(t, s)
	path := filepath.Join(t.TempDir(), "store.db")
	old, err := store.Open(path, store.Options{ID: "acme"})
	if err != nil {
		t.Fatal(err)
	}
	var seen int64
	for i := range 1000 {
		seen = put(t, old, fmt.Sprint("other", i%10), "x", 0)
	}
	if _, err := Restore(t.Context(), bytes.NewReader(data), Target{Path: path, Tenant: "acme"}); !errors.Is(err, store.ErrInUse) {
		t.Fatalf("a store in use was replaced: %v", err)
	}
	if err := old.Close(); err != nil {
		t.Fatal(err)
	}
	res, err := Restore(t.Context(), bytes.NewReader(data), Target{Path: path, Tenant: "acme", Now: time.Unix(0, 0)})
	if err != nil {
		t.Fatal(err)
	}
	if res.Before != seen || res.Revision <= seen || res.Keys != int64(len(want)) || !strings.HasSuffix(res.Kept, "store.db.before-restore-19700101T000000Z") {
		t.Errorf("%+v", res)
	}
	if r, err := store.CheckFile(t.Context(), res.Kept); err != nil || !r.OK() || r.Revision != seen {
		t.Errorf("the old one: %+v, %v", r, err)
	}
	back := open(t, path, store.Options{ID: "acme"})
	if got := state(t, back, 0); !equal(got, want) {
		t.Errorf("%d keys, want %d", len(got), len(want))
	}
	all, err := back.Read(t.Context(), store.Read{Range: store.Everything()})
	if err != nil {
		t.Fatal(err)
	}
	for _, kv := range all.KVs {
		if kv.ModRevision <= seen {
			t.Errorf("%s went back to revision %d; %d was seen", kv.Key, kv.ModRevision, seen)
		}
	}
	for _, from := range []int64{1, seen, seen + 1, res.Revision} {
		c, err := back.Watch(store.Everything(), from)
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := c.Poll(t.Context()); !errors.Is(err, store.ErrCompacted) {
			t.Errorf("a watch from revision %d: %v", from, err)
		}
		c.Close()
	}
	for id := int64(1); id <= 2; id++ {
		l, err := back.Lease(t.Context(), id)
		if err != nil || l.Left > 1000*id || l.Left < 1000*id-100 || len(l.Keys) != 1 {
			t.Errorf("lease %d: %+v, %v", id, l, err)
		}
	}
	if rev := put(t, back, "new", "x", 0); rev != res.Revision+1 {
		t.Errorf("the next revision is %d, the last was %d", rev, res.Revision)
	}
}

// A store that is missing, damaged or another's is what one restores; what is
// there is kept, and revisions jump far.
func TestRestoreOver(t *testing.T) {
	s := filled(t)
	want, data := state(t, s, 0), taken(t, s)
	for name, content := range map[string][]byte{"missing": nil, "damaged": bytes.Repeat([]byte("x"), 10000), "empty": {}} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "store.db")
			if content != nil {
				for _, name := range []string{path, path + ".wal0"} {
					if err := os.WriteFile(name, content, 0o600); err != nil {
						t.Fatal(err)
					}
				}
			}
			res, err := Restore(t.Context(), bytes.NewReader(data), Target{Path: path, Tenant: "acme"})
			if err != nil || res.Revision < res.Header.Revision+jumpUnknown || (res.Kept == "") != (content == nil) {
				t.Fatalf("%+v, %v", res, err)
			}
			if logs, err := store.LogFiles(path); err != nil || len(logs) > 0 {
				t.Errorf("the old log is beside the new store: %v, %v", logs, err)
			}
			if logs, err := store.LogFiles(res.Kept); content != nil && (err != nil || len(logs) != 1) {
				t.Errorf("the old log was not kept: %v, %v", logs, err)
			}
			if kept, err := os.ReadFile(res.Kept); content != nil && (err != nil || !bytes.Equal(kept, content)) {
				t.Errorf("kept %d bytes of %d, %v", len(kept), len(content), err)
			}
			if got := state(t, open(t, path, store.Options{ID: "acme"}), 0); !equal(got, want) {
				t.Errorf("%d keys, want %d", len(got), len(want))
			}
		})
	}
}

// What is refused leaves the old store as it was, and nothing beside it.
func TestRestoreRefuses(t *testing.T) {
	data := taken(t, filled(t))
	flipped := bytes.Clone(data)
	flipped[len(flipped)-20] ^= 1
	for name, c := range map[string]struct {
		data   []byte
		tenant string
		want   error
	}{
		"another tenant's": {data, "globex", ErrOtherTenant},
		"flipped":          {flipped, "acme", ErrDamaged},
		"cut short":        {data[:len(data)-1], "acme", ErrDamaged},
		"foreign":          {[]byte("no backup"), "acme", ErrNotBackup},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, "store.db")
			old := open(t, path, store.Options{ID: c.tenant})
			put(t, old, "a", "b", 0)
			if err := old.Close(); err != nil {
				t.Fatal(err)
			}
			before, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := Restore(t.Context(), bytes.NewReader(c.data), Target{Path: path, Tenant: c.tenant}); !errors.Is(err, c.want) {
				t.Errorf("%v", err)
			}
			after, err := os.ReadFile(path)
			if err != nil || !bytes.Equal(before, after) {
				t.Errorf("the old store was changed (%v)", err)
			}
			if left, err := os.ReadDir(dir); err != nil || len(left) != 1 {
				t.Errorf("left: %v, %v", left, err)
			}
		})
	}
}

// A lease that had all but ended keeps its keys until they were restored.
func TestRestoreEndedLease(t *testing.T) {
	var b bytes.Buffer
	w, err := NewWriter(&b, Header{Tenant: "acme", Revision: 10})
	if err != nil {
		t.Fatal(err)
	}
	err = errors.Join(w.Lease(Lease{ID: 3, TTL: 60}), w.Entry(Entry{Key: []byte("a"), ModRevision: 5, CreateRevision: 5, Version: 1, Lease: 3}))
	if _, closeErr := w.Close(); err != nil || closeErr != nil {
		t.Fatal(err, closeErr)
	}
	path := filepath.Join(t.TempDir(), "store.db")
	if res, err := Restore(t.Context(), &b, Target{Path: path, Tenant: "acme"}); err != nil || res.Keys != 1 {
		t.Fatalf("%+v, %v", res, err)
	}
	s := open(t, path, store.Options{})
	c, err := s.Watch(store.Everything(), 0)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for {
		b, wake, err := c.Poll(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if len(b.Events) > 0 {
			if !b.Events[0].Deleted {
				t.Errorf("%+v", b.Events[0])
			}
			return
		}
		<-wake
	}
}

// TestKilledRestore kills a restore at every step: the old store or the new one
// is there, whole, and restoring again works.
func TestKilledRestore(t *testing.T) {
	data := taken(t, filled(t))
	backup := filepath.Join(t.TempDir(), "backup")
	if err := os.WriteFile(backup, data, 0o600); err != nil {
		t.Fatal(err)
	}
	_, restored := read(t, data)
	previous := map[string]string{"old": "x"}
	for _, at := range steps {
		t.Run(strings.ReplaceAll(string(at), " ", "_"), func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "store.db")
			old := open(t, path, store.Options{ID: "acme"})
			put(t, old, "old", "x", 0)
			if err := old.Close(); err != nil {
				t.Fatal(err)
			}
			cmd := exec.CommandContext(t.Context(), os.Args[0])
			cmd.Env = append(os.Environ(), childTarget+"="+path, childBackup+"="+backup, childStep+"="+string(at))
			out, err := cmd.CombinedOutput()
			if state, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || !state.Signaled() {
				t.Fatalf("%v: %s", err, out)
			}
			if r, err := store.CheckFile(t.Context(), path); err != nil || !r.OK() {
				t.Fatalf("%+v, %v", r, err)
			}
			s, err := store.Open(path, store.Options{ID: "acme"})
			if err != nil {
				t.Fatal(err)
			}
			got, want := state(t, s, 0), previous
			if at == stepSwap {
				want = restored
			}
			if err := s.Close(); err != nil || !equal(got, want) {
				t.Errorf("it has %d keys, want %d (%v)", len(got), len(want), err)
			}
			if _, err := Restore(t.Context(), bytes.NewReader(data), Target{Path: path, Tenant: "acme"}); err != nil {
				t.Fatalf("again: %v", err)
			}
			if got := state(t, open(t, path, store.Options{ID: "acme"}), 0); !equal(got, restored) {
				t.Errorf("after the second try: %d keys", len(got))
			}
			if left, err := filepath.Glob(path + ".restoring*"); err != nil || len(left) > 0 {
				t.Errorf("left: %v, %v", left, err)
			}
		})
	}
}

// A restore can be prepared while the store goes on, up to a bound.
func TestPrepareWhileRunning(t *testing.T) {
	data := taken(t, filled(t))
	for name, overrun := range map[string]bool{"in time": false, "overrun": true} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "store.db")
			old, err := store.Open(path, store.Options{ID: "acme"})
			if err != nil {
				t.Fatal(err)
			}
			p, err := Prepare(t.Context(), bytes.NewReader(data), Target{Path: path, Tenant: "acme", Running: put(t, old, "old", "x", 0)})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := Prepare(t.Context(), bytes.NewReader(data), Target{Path: path, Tenant: "acme", Running: 1}); !errors.Is(err, store.ErrInUse) {
				t.Errorf("two at a time: %v", err)
			}
			seen := put(t, old, "old", "y", 0)
			if err := old.Close(); err != nil {
				t.Fatal(err)
			}
			if overrun {
				p.from = seen - 1
			}
			res, err := p.Commit(t.Context())
			if overrun {
				if !errors.Is(err, ErrTryAgain) {
					t.Errorf("%v", err)
				}
			} else if err != nil || res.Before != seen || res.Revision <= seen {
				t.Errorf("%+v, %v", res, err)
			}
			if left, err := filepath.Glob(path + ".restoring*"); err != nil || len(left) > 0 {
				t.Errorf("left: %v, %v", left, err)
			}
		})
	}
}

// Two restores, or a restore and somebody who has the store open, exclude each other.
func TestHold(t *testing.T) {
	data := taken(t, filled(t))
	path := filepath.Join(t.TempDir(), "store.db")
	s := open(t, path, store.Options{ID: "acme"})
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	for _, held := range []string{path, filepath.Dir(path)} {
		h, err := store.Hold(held)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := store.Hold(held); !errors.Is(err, store.ErrInUse) {
			t.Errorf("%s is held twice: %v", held, err)
		}
		if _, err := Restore(t.Context(), bytes.NewReader(data), Target{Path: path, Tenant: "acme"}); !errors.Is(err, store.ErrInUse) {
			t.Errorf("restored while %s was held: %v", held, err)
		}
		if err := h.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := Restore(t.Context(), bytes.NewReader(data), Target{Path: path, Tenant: "acme"}); err != nil {
		t.Errorf("held by nobody: %v", err)
	}
}
