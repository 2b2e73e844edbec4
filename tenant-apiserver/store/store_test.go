package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestRefusals lists what is refused, and that nothing of it was kept.
func TestRefusals(t *testing.T) {
	s := openTemp(t, Options{MaxRequestBytes: 1 << 20})
	put := func(key string, n int, lease int64) []Op {
		return []Op{{Put: &Put{Key: []byte(key), Value: bytes.Repeat([]byte("x"), n), Lease: lease}}}
	}
	for _, test := range []struct {
		name string
		ops  []Op
		want error
	}{
		{"no key", put("", 1, 0), ErrEmptyKey},
		{"long key", put(strings.Repeat("k", MaxKeyBytes+1), 1, 0), ErrTooLarge},
		{"large value", put("k", 1<<20+1, 0), ErrTooLarge},
		{"large together", append(put("k", 1<<19, 0), put("l", 1<<19, 0)...), ErrTooLarge},
		{"unknown lease", append(put("k", 1, 0), put("l", 1, 9)...), ErrLeaseNotFound},
		{"twice", append(put("k", 1, 0), put("k", 2, 0)...), ErrDuplicateKey},
		{"put and delete", append(put("k", 1, 0), Op{Delete: &Range{Key: []byte("a"), End: []byte("z")}}), ErrDuplicateKey},
		{"read in the future", append(put("k", 1, 0), Op{Read: &Read{Range: everything(), Revision: 99}}), ErrFutureRevision},
	} {
		if _, err := s.Txn(t.Context(), Txn{Then: test.ops}); !errors.Is(err, test.want) {
			t.Errorf("%s: %v, want %v", test.name, err, test.want)
		}
	}
	if res := mustRead(t, s, Read{Range: everything()}); res.Revision != 1 || res.Count != 0 {
		t.Errorf("something was kept: %s", show(res))
	}
	mustPut(t, s, strings.Repeat("k", MaxKeyBytes), "the longest key")
}

// TestGroup holds the writer back until many requests are queued, so that they
// become one group: bad ones among them must not harm the good.
func TestGroup(t *testing.T) {
	s := openTemp(t, Options{})
	hold, held := make(chan struct{}), make(chan struct{})
	var all sync.WaitGroup
	all.Go(func() { s.submit(context.Background(), 0, func(*group) error { close(held); <-hold; return nil }) })
	<-held
	gone, cancel := context.WithCancel(t.Context())
	results := make([]error, 90)
	for i := range results {
		all.Go(func() {
			key := fmt.Appendf(nil, "%d", i)
			switch i % 3 {
			case 0:
				_, results[i] = s.Txn(context.Background(), Txn{Then: []Op{{Put: &Put{Key: key}}}})
			case 1:
				_, results[i] = s.Txn(context.Background(), Txn{Then: []Op{{Put: &Put{Key: key, Lease: 77}}}})
			case 2:
				_, results[i] = s.Txn(gone, Txn{Then: []Op{{Put: &Put{Key: key}}}})
			}
		})
	}
	for len(s.queue) < len(results) {
		<-time.After(time.Millisecond)
	}
	cancel()
	close(hold)
	all.Wait()
	for i, err := range results {
		want := []error{nil, ErrLeaseNotFound, context.Canceled}[i%3]
		if !errors.Is(err, want) {
			t.Errorf("%d: %v, want %v", i, err, want)
		}
	}
	if res := mustRead(t, s, Read{Range: everything()}); res.Count != 30 || res.Revision != 31 {
		t.Errorf("%d keys at revision %d, want 30 at 31", res.Count, res.Revision)
	}
}

// TestSameKey has many writers compare and swap one key: exactly one wins each
// round, in one group or in many.
func TestSameKey(t *testing.T) {
	s := openTemp(t, Options{})
	const writers, rounds = 16, 50
	var all sync.WaitGroup
	for range writers {
		all.Go(func() {
			for n := 0; n < rounds; {
				read := mustRead(t, s, Read{Range: Range{Key: []byte("n")}})
				var mod int64
				var value []byte
				if len(read.KVs) == 1 {
					mod, value = read.KVs[0].ModRevision, read.KVs[0].Value
				}
				res, err := s.Txn(t.Context(), Txn{
					If:   []Compare{{Key: []byte("n"), Target: ModRevision, Number: mod}},
					Then: []Op{{Put: &Put{Key: []byte("n"), Value: append(bytes.Clone(value), 'x')}}},
				})
				if err != nil {
					t.Error(err)
					return
				}
				if res.Succeeded {
					n++
				}
			}
		})
	}
	all.Wait()
	kv := mustRead(t, s, Read{Range: Range{Key: []byte("n")}}).KVs[0]
	if len(kv.Value) != writers*rounds || kv.Version != writers*rounds || kv.ModRevision != writers*rounds+1 {
		t.Errorf("%d bytes, version %d, revision %d after %d swaps", len(kv.Value), kv.Version, kv.ModRevision, writers*rounds)
	}
}

// TestLeaseOverRestart stops a store before a lease ends and starts it after:
// the keys go, with a revision and events of their own.
func TestLeaseOverRestart(t *testing.T) {
	clock, path := newFakeClock(), filepath.Join(t.TempDir(), "store.db")
	o := Options{NoSync: true, Clock: clock}
	s := openAt(t, path, o)
	grant := func(id, ttl int64) {
		if _, err := s.Grant(t.Context(), id, ttl); err != nil {
			t.Fatal(err)
		}
	}
	grant(1, 60)
	grant(2, 600)
	mustTxn(t, s, Op{Put: &Put{Key: []byte("a"), Lease: 1}}, Op{Put: &Put{Key: []byte("b"), Lease: 1}})
	mustTxn(t, s, Op{Put: &Put{Key: []byte("c"), Lease: 1}})
	last := mustTxn(t, s, Op{Put: &Put{Key: []byte("c"), Lease: 2}}).Revision // moved to the longer one
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	clock.advance(90 * time.Second)

	s = openAt(t, path, o)
	c, err := s.Watch(everything(), last+1)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	events := wait(t, c, 2)
	if got := show(events); got != fmt.Sprintf(` {true "a"=""@%[1]d+0#0~0 was "a"=""@2+2#1~1} {true "b"=""@%[1]d+0#0~0 was "b"=""@2+2#1~1}`, last+1) {
		t.Errorf("events %s", got)
	}
	info, err := s.Lease(t.Context(), 2)
	if err != nil || info.Left != 510 || info.TTL != 600 || len(info.Keys) != 1 {
		t.Errorf("lease 2: %+v, %v", info, err)
	}
	if _, err := s.Lease(t.Context(), 1); !errors.Is(err, ErrLeaseNotFound) {
		t.Errorf("lease 1: %v", err)
	}
	// The writer sleeps until the next lease ends, and wakes by itself.
	clock.advance(510 * time.Second)
	if got := wait(t, c, 1); string(got[0].KV.Key) != "c" || !got[0].Deleted {
		t.Errorf("events %s", show(got))
	}
}

// TestLeaseClockSetBack opens a file whose leases end later than they can.
func TestLeaseClockSetBack(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store.db")
	ahead := newFakeClock()
	ahead.advance(1000 * time.Hour)
	s := openAt(t, path, Options{NoSync: true, Clock: ahead})
	if _, err := s.Grant(t.Context(), 1, 60); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = openAt(t, path, Options{NoSync: true, Clock: newFakeClock()})
	if info, err := s.Lease(t.Context(), 1); err != nil || info.Left != 60 {
		t.Errorf("%+v, %v", info, err)
	}
}

func TestLeases(t *testing.T) {
	s := openTemp(t, Options{Clock: newFakeClock()})
	for _, ttl := range []int64{0, -1, MaxLeaseTTL + 1} {
		if _, err := s.Grant(t.Context(), 0, ttl); !errors.Is(err, ErrLeaseTTL) {
			t.Errorf("ttl %d: %v", ttl, err)
		}
	}
	info, err := s.Grant(t.Context(), 0, MaxLeaseTTL)
	if err != nil || info.ID <= 0 {
		t.Fatalf("%+v, %v", info, err)
	}
	if _, err := s.Grant(t.Context(), info.ID, 1); !errors.Is(err, ErrLeaseExists) {
		t.Error(err)
	}
	if ids, _, err := s.Leases(t.Context()); err != nil || len(ids) != 1 || ids[0] != info.ID {
		t.Errorf("%v, %v", ids, err)
	}
	mustTxn(t, s, Op{Put: &Put{Key: []byte("k"), Lease: info.ID}})
	if rev, err := s.Revoke(t.Context(), info.ID); err != nil || rev != 3 {
		t.Errorf("revoked at %d, %v", rev, err)
	}
	for name, f := range map[string]func(context.Context, int64) error{
		"revoke": func(ctx context.Context, id int64) error { _, err := s.Revoke(ctx, id); return err },
		"renew":  func(ctx context.Context, id int64) error { _, err := s.Renew(ctx, id); return err },
	} {
		if err := f(t.Context(), info.ID); !errors.Is(err, ErrLeaseNotFound) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestCompaction compacts at a deletion: its state stays readable, the file
// forgets the rest, and the next compaction forgets the deletion too.
func TestCompaction(t *testing.T) {
	s := openTemp(t, Options{SweepSlice: 2})
	for i := range 20 {
		mustPut(t, s, "k", fmt.Sprint(i))
	}
	deleted := mustDelete(t, s, "k")
	kept := mustPut(t, s, "old", "and never touched again")
	if _, err := s.Compact(t.Context(), deleted); err != nil {
		t.Fatal(err)
	}
	swept(t, s)
	if res := mustRead(t, s, Read{Range: everything(), Revision: deleted}); res.Count != 0 {
		t.Errorf("at the deletion: %s", show(res))
	}
	if _, err := s.Read(t.Context(), Read{Range: everything(), Revision: deleted - 1}); !errors.Is(err, ErrCompacted) {
		t.Errorf("before the deletion: %v", err)
	}
	if n := records(t, s); n != 2 {
		t.Errorf("%d records are left, want the deletion and the other key", n)
	}
	for range 2 {
		if _, err := s.Compact(t.Context(), kept); err != nil && !errors.Is(err, ErrCompacted) {
			t.Fatal(err)
		}
	}
	swept(t, s)
	if n := records(t, s); n != 1 {
		t.Errorf("%d records are left, want the other key", n)
	}
	if res := mustRead(t, s, Read{Range: everything(), Revision: kept}); res.Count != 1 {
		t.Errorf("at the compacted revision: %s", show(res))
	}
}

// swept waits until compaction has nothing left to do.
func swept(t *testing.T, s *Store) {
	t.Helper()
	for done := false; !done; {
		if err := s.submit(t.Context(), 0, func(g *group) error { done = !g.keep.sweeping; return nil }); err != nil {
			t.Fatal(err)
		}
	}
}

func records(t *testing.T, s *Store) (n int) {
	t.Helper()
	if err := s.view(t.Context(), func(snap snapshot) error { n = int(snap.head.sizes[bucketLog-bucketCur]); return nil }); err != nil {
		t.Fatal(err)
	}
	return n
}

// TestReadsAreCopies holds what a read returned while the file is rewritten.
func TestReadsAreCopies(t *testing.T) {
	s := openTemp(t, Options{})
	mustPut(t, s, "k", strings.Repeat("a", 1000))
	kv := mustRead(t, s, Read{Range: everything()}).KVs[0]
	for i := range 200 {
		rev := mustPut(t, s, "k", strings.Repeat("b", 1000+i))
		if _, err := s.Compact(t.Context(), rev); err != nil {
			t.Fatal(err)
		}
	}
	if string(kv.Value) != strings.Repeat("a", 1000) || string(kv.Key) != "k" {
		t.Error("a value that was read changed")
	}
}

func TestClose(t *testing.T) {
	s := openTemp(t, Options{})
	c, err := s.Watch(everything(), 0)
	if err != nil {
		t.Fatal(err)
	}
	var busy sync.WaitGroup
	for i := range 20 {
		busy.Go(func() {
			for err := error(nil); err == nil; {
				if err = s.put(fmt.Sprint(i), "x"); err != nil && !errors.Is(err, ErrClosed) {
					t.Error(err)
				}
				if _, err := s.Read(context.Background(), Read{Range: everything()}); err != nil && !errors.Is(err, ErrClosed) {
					t.Error(err)
				}
			}
		})
	}
	wait(t, c, 100)
	for range 2 {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
	busy.Wait()
	for {
		_, wake, err := c.Poll(t.Context())
		if errors.Is(err, ErrClosed) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		<-wake
	}
	for name, err := range map[string]error{
		"put":  s.put("k", "v"),
		"read": func() error { _, err := s.Read(t.Context(), Read{Range: everything()}); return err }(),
		"copy": func() error { _, err := s.WriteTo(&bytes.Buffer{}); return err }(),
	} {
		if !errors.Is(err, ErrClosed) {
			t.Errorf("%s after Close: %v", name, err)
		}
	}
}
