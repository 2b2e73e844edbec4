package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime/pprof"
	"strings"
	"sync"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"
)

func TestMain(m *testing.M) {
	if role := os.Getenv(childRole); role != "" {
		os.Exit(runChild(role))
	}
	code := m.Run()
	if stacks := leaked(); stacks != "" && code == 0 {
		fmt.Fprintln(os.Stderr, "goroutines of the store are left after all tests:\n"+stacks)
		code = 1
	}
	os.Exit(code)
}

// leaked returns the goroutines that run this package's code, once those that
// are just ending had the time to.
func leaked() string {
	var left []string
	for range 6000 {
		var b bytes.Buffer
		pprof.Lookup("goroutine").WriteTo(&b, 2)
		left = nil
		for _, g := range strings.Split(b.String(), "\n\n") {
			if strings.Contains(g, "store.(*Store)") {
				left = append(left, g)
			}
		}
		if len(left) == 0 {
			break
		}
		<-time.After(10 * time.Millisecond)
	}
	return strings.Join(left, "\n\n")
}

// fakeClock is a clock that moves when told to.
type fakeClock struct {
	mu     sync.Mutex
	now    time.Time
	timers map[chan time.Time]time.Time
}

func newFakeClock() *fakeClock {
	return &fakeClock{now: time.Unix(1_700_000_000, 0), timers: map[chan time.Time]time.Time{}}
}

func (f *fakeClock) Now() time.Time {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.now
}

func (f *fakeClock) NewTimer(d time.Duration) (<-chan time.Time, func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	c := make(chan time.Time, 1)
	if d <= 0 {
		c <- f.now
		return c, func() {}
	}
	f.timers[c] = f.now.Add(d)
	return c, func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		delete(f.timers, c)
	}
}

func (f *fakeClock) advance(d time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.now = f.now.Add(d)
	for c, at := range f.timers {
		if !at.After(f.now) {
			c <- f.now
			delete(f.timers, c)
		}
	}
}

// openAt opens a store that is checked and closed at the end of the test.
func openAt(t testing.TB, path string, o Options) *Store {
	t.Helper()
	s, err := Open(path, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if errors.Is(s.put("closed?", ""), ErrClosed) {
			return
		}
		verify(t, s)
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func openTemp(t testing.TB, o Options) *Store {
	t.Helper()
	o.NoSync = true
	return openAt(t, filepath.Join(t.TempDir(), "store.db"), o)
}

// put and its kin are for tests that want no more than the effect.
func (s *Store) put(key, value string) error {
	_, err := s.Txn(context.Background(), Txn{Then: []Op{{Put: &Put{Key: []byte(key), Value: []byte(value)}}}})
	return err
}

func mustPut(t testing.TB, s *Store, key, value string) int64 {
	t.Helper()
	return mustTxn(t, s, Op{Put: &Put{Key: []byte(key), Value: []byte(value)}}).Revision
}

func mustDelete(t testing.TB, s *Store, key string) int64 {
	t.Helper()
	return mustTxn(t, s, Op{Delete: &Range{Key: []byte(key)}}).Revision
}

func mustTxn(t testing.TB, s *Store, ops ...Op) *TxnResult {
	t.Helper()
	r, err := s.Txn(t.Context(), Txn{Then: ops})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func mustRead(t testing.TB, s *Store, r Read) *ReadResult {
	t.Helper()
	res, err := s.Read(context.Background(), r)
	if err != nil {
		t.Fatal(err)
	}
	return res
}

func everything() Range { return Range{Key: []byte{0}, End: openEnd} }

// verify checks what must hold of every file at any time: the contents, that
// cur and the log agree, that leases and their indexes do, and bbolt's own pages.
func verify(t testing.TB, s *Store) {
	t.Helper()
	err := s.view(context.Background(), func(snap snapshot) error {
		if err := snap.checkAll(); err != nil {
			return err
		}
		if err := verifyLog(snap); err != nil {
			return err
		}
		return verifyLeases(snap)
	})
	if err != nil {
		t.Errorf("verify: %v", err)
	}
	// Within a write transaction: the list of free pages is the writer's.
	errRollback := errors.New("nothing to commit")
	err = s.db.Load().Update(func(tx *bolt.Tx) error {
		all := []error{errRollback}
		for err := range tx.Check() {
			all = append(all, err)
		}
		return errors.Join(all...)
	})
	if err.Error() != errRollback.Error() {
		t.Errorf("bbolt: %v", err)
	}
}

// verifyLog walks each key's chain and wants every record of the log on one of
// them, those apart that compaction has still to take.
func verifyLog(s snapshot) error {
	reached := map[pos]bool{}
	err := s.each(everything(), func(key []byte, e entry) error {
		for at := e.at; at != (pos{}); {
			r, found, err := s.lookup(at)
			if err != nil {
				return err
			}
			if !found {
				return s.missing(at)
			}
			if !bytes.Equal(r.key, key) {
				return fmt.Errorf("record %v of %q is in the chain of %q", at, r.key, key)
			}
			reached[at] = true
			at = r.prev
		}
		return nil
	})
	if err != nil {
		return err
	}
	last := int64(0)
	log := s.cursor(bucketLog)
	for k, _ := log.seek(nil); k != nil; k, _ = log.next() {
		at, err := decodePos(k)
		if err != nil {
			return err
		}
		if at.rev >= s.head.compacted && !reached[at] {
			return fmt.Errorf("record %v belongs to no key", at)
		}
		if at.rev > s.head.compacted && last > s.head.compacted && at.rev > last+1 {
			return fmt.Errorf("revisions %d to %d are missing", last+1, at.rev-1)
		}
		last = at.rev
	}
	return nil
}

func verifyLeases(s snapshot) error {
	held := map[string]bool{}
	err := s.each(everything(), func(key []byte, e entry) error {
		if e.live() && e.lease != 0 {
			held[string(heldPrefix(e.lease))+string(key)] = true
		}
		return nil
	})
	if err != nil {
		return err
	}
	n := 0
	index := s.cursor(bucketHeld)
	for k, _ := index.seek(nil); k != nil; k, _ = index.next() {
		n++
		if !held[string(k)] {
			return fmt.Errorf("lease index names %x, which is not held", k)
		}
		if _, err := readLease(s, idOf(k)); err != nil {
			return err
		}
	}
	if n != len(held) {
		return fmt.Errorf("lease index names %d keys of %d", n, len(held))
	}
	due := s.cursor(bucketDue)
	for k, _ := due.seek(nil); k != nil; k, _ = due.next() {
		l, err := readLease(s, idOf(k[8:]))
		if err != nil {
			return err
		}
		if l.deadline != idOf(k) {
			return fmt.Errorf("lease %d is due twice", idOf(k[8:]))
		}
	}
	// checkAll has counted both.
	if leases, due := s.head.sizes[bucketLease-bucketCur], s.head.sizes[bucketDue-bucketCur]; due != leases {
		return fmt.Errorf("%d leases, %d due", leases, due)
	}
	return nil
}
