package store

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// small has checkpoints at once, and files rewritten when a MiB is free.
var small = Options{NoSync: true, pace: pace{
	layerBytes: 256 << 10, backlogBytes: 4 << 20, reserveBytes: 1 << 20,
	layerAge: time.Millisecond, retry: 5 * time.Millisecond, shrinkBytes: 1 << 20,
}}

func fileBytes(t *testing.T, s *Store) int64 {
	t.Helper()
	st, err := s.Stats(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return st.FileBytes
}

// fill makes a file of some MiB, and returns how many bytes.
func fill(t *testing.T, s *Store) int64 {
	t.Helper()
	for i := range 128 {
		mustPut(t, s, fmt.Sprintf("bulk/%d", i), strings.Repeat("x", 64<<10))
	}
	if err := s.flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	return fileBytes(t, s)
}

// empty deletes what fill wrote, and has a sweep begun that frees its pages.
func empty(t *testing.T, s *Store) {
	t.Helper()
	for i := range 128 {
		mustDelete(t, s, fmt.Sprintf("bulk/%d", i))
	}
	st, err := s.Stats(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Compact(t.Context(), st.Revision); err != nil {
		t.Fatal(err)
	}
}

// shrunk waits until the file is less than half of what it was, while keys are
// written, and returns how many were.
func shrunk(t *testing.T, s *Store, full int64) (written int) {
	t.Helper()
	for fileBytes(t, s) >= full/2 {
		if written == 200_000 {
			t.Fatalf("the file has %d of %d bytes after %d writes", fileBytes(t, s), full, written)
		}
		mustPut(t, s, fmt.Sprintf("kept/%d", written), "value")
		written++
	}
	return written
}

// After mass deletion the file shrinks while writers, readers and a watch go on, and
// all is there afterwards, also for the next process.
func TestShrinksOnline(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store.db")
	s := openAt(t, path, small)
	mustPut(t, s, "before", "it")
	full := fill(t, s)
	empty(t, s)
	cursor, err := s.Watch(everything(), 0)
	if err != nil {
		t.Fatal(err)
	}
	defer cursor.Close()
	written := shrunk(t, s, full)
	if info, err := os.Stat(path); err != nil || info.Size() >= full/2 {
		t.Errorf("on disk it is %v, %v; it was %d", info.Size(), err, full)
	}
	verify(t, s)
	seen := 0
	for seen < written {
		batch, wake, err := cursor.Poll(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if len(batch.Events) == 0 {
			<-wake
		}
		for _, e := range batch.Events {
			if strings.HasPrefix(string(e.KV.Key), "kept/") {
				seen++
			}
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = openAt(t, path, small)
	verify(t, s)
	res, err := s.Read(t.Context(), Read{Range: everything()})
	if err != nil || len(res.KVs) != written+1 {
		t.Errorf("%d keys are there, want %d (%v)", len(res.KVs), written+1, err)
	}
}

// Who has begun to read the file before it was replaced reads on in it.
func TestShrinkLetsReadersFinish(t *testing.T) {
	s := openAt(t, filepath.Join(t.TempDir(), "store.db"), small)
	full := fill(t, s)
	copied := &slowWriter{began: make(chan struct{}), goOn: make(chan struct{})}
	done := make(chan error, 1)
	go func() {
		_, err := s.WriteTo(copied)
		done <- err
	}()
	<-copied.began
	empty(t, s)
	shrunk(t, s, full)
	close(copied.goOn)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if n := copied.n.Load(); n < full/2 {
		t.Errorf("%d bytes were copied of a file of %d", n, full)
	}
}

// slowWriter waits at its first byte.
type slowWriter struct {
	began, goOn chan struct{}
	n           atomic.Int64
}

func (w *slowWriter) Write(b []byte) (int, error) {
	if w.n.Add(int64(len(b))) == int64(len(b)) {
		close(w.began)
		<-w.goOn
	}
	return len(b), nil
}

// A file that cannot be rewritten stays as it is, and works.
func TestShrinkThatFails(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store.db")
	s := openAt(t, path, small)
	if err := os.MkdirAll(filepath.Join(shrunkPath(path), "in the way"), 0o700); err != nil {
		t.Fatal(err)
	}
	full := fill(t, s)
	empty(t, s)
	for s.keepSweeping() {
	}
	mustPut(t, s, "after", "it")
	if err := s.flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	if now := fileBytes(t, s); now < full {
		t.Errorf("the file shrank from %d to %d with something in its way", full, now)
	}
	verify(t, s)
	if err := os.RemoveAll(shrunkPath(path)); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	shrunk(t, openAt(t, path, small), full)
}
