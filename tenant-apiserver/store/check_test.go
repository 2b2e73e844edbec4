package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	bolt "go.etcd.io/bbolt"
)

// closedStore writes a store with history, a deletion, a compaction and a lease,
// and returns its path.
func closedStore(t testing.TB) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "store.db")
	s, err := Open(path, Options{NoSync: true, ID: "acme"})
	if err != nil {
		t.Fatal(err)
	}
	var rev int64
	for i := range 400 {
		rev = mustPut(t, s, fmt.Sprintf("/registry/pods/ns/%d", i%150), strings.Repeat("v", i))
	}
	mustDelete(t, s, "/registry/pods/ns/7")
	if _, err := s.Compact(t.Context(), rev-100); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Grant(t.Context(), 1, 3600); err != nil {
		t.Fatal(err)
	}
	mustTxn(t, s, Op{Put: &Put{Key: []byte("leased"), Value: []byte("x"), Lease: 1}})
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestCheckFindsNothing(t *testing.T) {
	path := closedStore(t)
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	r, err := CheckFile(t.Context(), path)
	if err != nil || !r.OK() || r.Keys != 150 || r.Tombstones != 1 || r.Leases != 1 || r.ID != "acme" {
		t.Errorf("%+v, %v", r, err)
	}
	after, err := os.ReadFile(path)
	if err != nil || string(after) != string(before) {
		t.Errorf("the check changed the file (%v)", err)
	}
	s := openAt(t, path, Options{})
	if open, err := s.CheckNow(t.Context()); err != nil || open.Keys != r.Keys || open.Records == 0 {
		t.Errorf("while open: %+v, %v", open, err)
	}
	if _, err := CheckFile(t.Context(), path); !errors.Is(err, ErrInUse) {
		t.Errorf("a file that is open: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	// stores that are new, or seeded, have gaps that are none
	for name, make := range map[string]func(string) error{
		"new":    func(p string) error { s, err := Open(p, Options{}); return errors.Join(err, s.Close()) },
		"seeded": func(p string) error { return Seed(p, Options{}, 1_000) },
	} {
		p := filepath.Join(t.TempDir(), name)
		if err := make(p); err != nil {
			t.Fatal(err)
		}
		if r, err := CheckFile(t.Context(), p); err != nil || !r.OK() {
			t.Errorf("%s: %+v, %v", name, r, err)
		}
	}
}

// TestCheckFindsDamage changes a file in ways that no checksum of a value shows.
func TestCheckFindsDamage(t *testing.T) {
	drop := func(b bucketID, nth int) func(*bolt.Tx) error {
		return func(tx *bolt.Tx) error {
			c := tx.Bucket(b.name()).Cursor()
			k, _ := c.First()
			for range nth {
				k, _ = c.Next()
			}
			return tx.Bucket(b.name()).Delete(k)
		}
	}
	last := func(tx *bolt.Tx) error {
		k, _ := tx.Bucket(bucketLog.name()).Cursor().Last()
		return tx.Bucket(bucketLog.name()).Delete(k)
	}
	for name, damage := range map[string]func(*bolt.Tx) error{
		"a lost key":            drop(bucketCur, 20),
		"a lost record":         drop(bucketLog, 30),
		"a lost middle record":  drop(bucketLog, 170),
		"the last record lost":  last,
		"a lost lease":          drop(bucketLease, 0),
		"a lost end of a lease": drop(bucketDue, 0),
		"a lost lease's key":    drop(bucketHeld, 0),
		"a flipped bit": func(tx *bolt.Tx) error {
			k, v := tx.Bucket(bucketLog.name()).Cursor().First()
			v = append([]byte{}, v...)
			v[len(v)/2] ^= 4
			return tx.Bucket(bucketLog.name()).Put(k, v)
		},
	} {
		t.Run(name, func(t *testing.T) {
			path := closedStore(t)
			db, err := bolt.Open(path, 0o600, nil)
			if err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(db.Update(damage), db.Close()); err != nil {
				t.Fatal(err)
			}
			r, err := CheckFile(t.Context(), path)
			if err != nil || r.OK() {
				t.Errorf("%+v, %v", r, err)
			}
			if _, err := ShrinkFile(path); !errors.Is(err, ErrCorrupt) {
				t.Errorf("it was shrunk: %v", err)
			}
		})
	}
}

// Damage that comes while the store is open is found by its values and by what
// they say of each other, and puts the store out of service.
func TestCheckWhileOpen(t *testing.T) {
	for name, damage := range map[string]func(*bolt.Tx) error{
		"lost": func(tx *bolt.Tx) error {
			k, _ := tx.Bucket(bucketCur.name()).Cursor().First()
			return tx.Bucket(bucketCur.name()).Delete(k)
		},
		"flipped": func(tx *bolt.Tx) error {
			k, v := tx.Bucket(bucketCur.name()).Cursor().First()
			v = append([]byte{}, v...)
			v[0] ^= 1
			return tx.Bucket(bucketCur.name()).Put(k, v)
		},
	} {
		t.Run(name, func(t *testing.T) {
			s, err := Open(closedStore(t), Options{})
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			c := s.NewCheck()
			if done, err := c.Step(t.Context(), 10); done || err != nil {
				t.Fatalf("%v, %v", done, err)
			}
			if err := s.update(damage); err != nil {
				t.Fatal(err)
			}
			if _, err := s.CheckNow(t.Context()); !errors.Is(err, ErrCorrupt) || !errors.Is(err, ErrFailed) {
				t.Errorf("check: %v", err)
			}
			select {
			case <-s.Failed():
			default:
				t.Error("the store is still in service")
			}
		})
	}
}

// A check in steps goes on right while others write and compact.
func TestCheckAmongWrites(t *testing.T) {
	s := openTemp(t, Options{SweepSlice: 7})
	c, rounds := s.NewCheck(), 0
	for i := 0; rounds < 5; i++ {
		rev := mustPut(t, s, fmt.Sprintf("k%d", i%60), "v")
		if i%5 == 0 {
			mustDelete(t, s, fmt.Sprintf("k%d", (i+30)%60))
		}
		if i%20 == 19 {
			if _, err := s.Compact(t.Context(), rev-3); err != nil && !errors.Is(err, ErrCompacted) {
				t.Fatal(err)
			}
		}
		done, err := c.Step(t.Context(), 4)
		if err != nil {
			t.Fatal(err)
		}
		if done {
			c, rounds = s.NewCheck(), rounds+1
		}
	}
}

func TestShrinkFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store.db")
	s := openAt(t, path, Options{NoSync: true})
	for i := range 2000 {
		mustPut(t, s, fmt.Sprint("k", i), strings.Repeat("x", 1000))
	}
	for i := range 1990 {
		mustDelete(t, s, fmt.Sprint("k", i))
	}
	if _, err := s.Compact(t.Context(), mustPut(t, s, "z", "")); err != nil {
		t.Fatal(err)
	}
	for s.keepSweeping() {
		mustPut(t, s, "z", "")
	}
	want := mustRead(t, s, Read{Range: everything()})
	if _, err := ShrinkFile(path); !errors.Is(err, ErrInUse) {
		t.Errorf("a store in use was shrunk: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	shrunk, err := ShrinkFile(path)
	if err != nil || shrunk.After >= shrunk.Before/2 {
		t.Fatalf("%+v, %v", shrunk, err)
	}
	if r, err := CheckFile(t.Context(), path); err != nil || !r.OK() {
		t.Errorf("%+v, %v", r, err)
	}
	s = openAt(t, path, Options{NoSync: true})
	if got := mustRead(t, s, Read{Range: everything()}); got.Count != want.Count || got.Revision != want.Revision {
		t.Errorf("%d keys at %d, were %d at %d", got.Count, got.Revision, want.Count, want.Revision)
	}
}

// keepSweeping says whether compaction has records left to look at, asking where
// the writer answers.
func (s *Store) keepSweeping() (more bool) {
	_ = s.submit(context.Background(), 0, func(g *group) error { more = g.keep.sweeping; return nil })
	return more
}
