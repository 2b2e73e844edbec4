package store

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
)

// pages reads everything at a revision page by page; between is called after each.
func pages(t *testing.T, s *Store, between func()) ([]*KeyValue, int, error) {
	t.Helper()
	var all []*KeyValue
	r, rev := Everything(), int64(0)
	for n := 1; ; n++ {
		p, err := s.ReadPage(t.Context(), r, rev)
		if err != nil {
			return all, n, err
		}
		all = append(all, p.KVs...)
		if p.Next == nil {
			return all, n, nil
		}
		r.Key, rev = p.Next, p.Revision
		between()
	}
}

func TestReadPage(t *testing.T) {
	s := openTemp(t, Options{})
	for i := range 3 * pageKeys {
		mustPut(t, s, fmt.Sprintf("k%05d", i), "v")
	}
	for i := range pageKeys {
		mustDelete(t, s, fmt.Sprintf("k%05d", i+10))
	}
	mustPut(t, s, "large", strings.Repeat("x", pageBytes))
	mustPut(t, s, "small", "")
	want := mustRead(t, s, Read{Range: everything()})
	n := 0
	got, count, err := pages(t, s, func() {
		mustPut(t, s, fmt.Sprint("zlater", n), "not seen")
		mustPut(t, s, "k02000", "not seen")
		mustDelete(t, s, "large")
		n++
	})
	if err != nil || count < 4 {
		t.Fatalf("%d pages, %v", count, err)
	}
	if !slices.EqualFunc(got, want.KVs, func(a, b *KeyValue) bool {
		return bytes.Equal(a.Key, b.Key) && bytes.Equal(a.Value, b.Value) && a.ModRevision == b.ModRevision && a.Version == b.Version
	}) {
		t.Errorf("%d keys, want %d as of revision %d", len(got), len(want.KVs), want.Revision)
	}
	_, _, err = pages(t, s, func() {
		if _, err := s.Compact(t.Context(), mustPut(t, s, "z", "")); err != nil {
			t.Fatal(err)
		}
	})
	if !errors.Is(err, ErrCompacted) {
		t.Errorf("after a compaction: %v", err)
	}
}

// A seeded store goes on from its revision, and nobody can ask for what was before.
func TestSeed(t *testing.T) {
	path := t.TempDir() + "/store.db"
	if err := Seed(path, Options{ID: "acme"}, 1_000_000); err != nil {
		t.Fatal(err)
	}
	if err := Seed(path, Options{}, 5); err == nil {
		t.Error("seeded what exists")
	}
	s := openAt(t, path, Options{ID: "acme"})
	if rev := mustPut(t, s, "a", "b"); rev != 1_000_001 {
		t.Errorf("first revision %d", rev)
	}
	c, err := s.Watch(everything(), 1_000_000)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, _, err := c.Poll(t.Context()); !errors.Is(err, ErrCompacted) {
		t.Errorf("watch of what was before: %v", err)
	}
	if _, err := s.Read(t.Context(), Read{Range: everything(), Revision: 999_999}); !errors.Is(err, ErrCompacted) {
		t.Errorf("read of what was before: %v", err)
	}
}
