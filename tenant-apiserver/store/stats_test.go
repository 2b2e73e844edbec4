package store

import (
	"fmt"
	"path/filepath"
	"testing"
)

// What is deleted counts as long as its history can be read, and no longer; the
// file keeps its size.
func TestUsedBytes(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store.db")
	s := openAt(t, path, Options{NoSync: true})
	// stats are those of a file that has everything: the log is taken over when the
	// store is opened.
	stats := func() Stats {
		t.Helper()
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		s = openAt(t, path, Options{NoSync: true})
		st, err := s.Stats(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return st
	}
	empty := stats()
	const size, n = 64 << 10, 32
	value := string(make([]byte, size))
	for i := range n {
		mustPut(t, s, fmt.Sprint("k", i), value)
	}
	full := stats()
	if grown := full.UsedBytes - empty.UsedBytes; grown < n*size || grown > 2*n*size {
		t.Errorf("%d bytes of values take %d", n*size, grown)
	}
	for i := range n {
		mustDelete(t, s, fmt.Sprint("k", i))
	}
	deleted := stats()
	if deleted.UsedBytes < n*size {
		t.Errorf("the history of %d bytes takes %d", n*size, deleted.UsedBytes)
	}
	if _, err := s.Compact(t.Context(), deleted.Revision); err != nil {
		t.Fatal(err)
	}
	for s.keepSweeping() {
	}
	if now := stats(); now.UsedBytes > empty.UsedBytes+n*size/4 || now.FileBytes < full.FileBytes {
		t.Errorf("after compaction %d bytes of %d are used; there were %d when it was empty", now.UsedBytes, now.FileBytes, empty.UsedBytes)
	}
}
