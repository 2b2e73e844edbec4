package store

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"
)

// wait polls until the cursor gave at least n events.
func wait(t testing.TB, c *Cursor, n int) (events []Event) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for len(events) < n {
		b, wake, err := c.Poll(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if events = append(events, b.Events...); len(b.Events) > 0 {
			continue
		}
		select {
		case <-wake:
		case <-ctx.Done():
			t.Fatalf("%d events came, want %d", len(events), n)
		}
	}
	return events
}

// reader follows a range and checks what every watch is promised: no event
// twice, none out of order, none after a Revision that covered it, and whole
// revisions.
type reader struct {
	c       *Cursor
	last    int64 // revision of the last event
	covered int64 // what the batches promised
	events  []Event
	err     error
}

func (r *reader) take(b Batch) {
	for i, e := range b.Events {
		switch rev := e.revision(); {
		case rev < r.last, rev == r.last && i == 0:
			r.err = fmt.Errorf("revision %d after %d", rev, r.last)
		case rev <= r.covered:
			r.err = fmt.Errorf("revision %d, when %d was promised", rev, r.covered)
		case rev > b.Revision:
			r.err = fmt.Errorf("revision %d in a batch up to %d", rev, b.Revision)
		}
		r.last = e.revision()
	}
	if b.Revision < r.covered {
		r.err = fmt.Errorf("promised %d, then %d", r.covered, b.Revision)
	}
	r.covered = b.Revision
	r.events = append(r.events, b.Events...)
}

// TestWatchers has writers and all kinds of readers at the same time: ones that
// keep up, slow ones that fall out of the ring, and ones that leave and resume.
// All must see the same, and none may hold up the writers.
func TestWatchers(t *testing.T) {
	s := openTemp(t, Options{HotBytes: 4 << 10})
	const writers, each = 4, 300
	keys := Prefix([]byte("in/"))
	finished := make(chan struct{})

	read := func(slow, leaves bool) *reader {
		r := &reader{}
		var err error
		if r.c, err = s.Watch(keys, 1); err != nil {
			t.Fatal(err)
		}
		defer func() { r.c.Close() }()
		for r.err == nil {
			b, wake, err := r.c.Poll(t.Context())
			if err != nil {
				r.err = err
				break
			}
			r.take(b)
			if slow && rand.IntN(4) == 0 {
				<-time.After(time.Millisecond)
			}
			if leaves && rand.IntN(10) == 0 {
				r.c.Close()
				if r.c, r.err = s.Watch(keys, r.covered+1); r.err != nil {
					break
				}
				continue
			}
			if len(b.Events) > 0 {
				continue
			}
			select {
			case <-wake:
			case <-finished:
				if b, _, err := r.c.Poll(t.Context()); err == nil && len(b.Events) == 0 {
					return r
				} else {
					r.take(b)
				}
			}
		}
		return r
	}

	var reading, writing sync.WaitGroup
	readers := make([]*reader, 9)
	for i := range readers {
		reading.Go(func() { readers[i] = read(i%3 == 1, i%3 == 2) })
	}
	for w := range writers {
		writing.Go(func() {
			for i := range each {
				a, b := fmt.Appendf(nil, "in/%d/%d", w, i%10), fmt.Appendf(nil, "out/%d", w)
				ops := []Op{{Put: &Put{Key: a, Value: make([]byte, 100)}}, {Put: &Put{Key: b}}}
				if i%5 == 4 {
					ops = []Op{{Delete: &Range{Key: []byte("in/" + fmt.Sprint(w)), End: fmt.Appendf(nil, "in/%d0", w)}}}
				}
				if _, err := s.Txn(context.Background(), Txn{Then: ops}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	writing.Wait()
	close(finished)
	reading.Wait()

	want := show(readers[0].events)
	for i, r := range readers {
		if r.err != nil {
			t.Errorf("reader %d: %v", i, r.err)
		} else if got := show(r.events); got != want {
			t.Errorf("reader %d saw %d events, reader 0 %d", i, len(r.events), len(readers[0].events))
		}
	}
	if n := len(readers[0].events); n < writers*each {
		t.Errorf("only %d events", n)
	}
}

// TestWatchNoise checks that a quiet range costs its watcher nothing: it is not
// woken, and needs not look through what it missed.
func TestWatchNoise(t *testing.T) {
	s := openTemp(t, Options{HotBytes: 1})
	c, err := s.Watch(Prefix([]byte("quiet/")), 0)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	b, wake, err := c.Poll(t.Context())
	if err != nil || b.Revision != 1 {
		t.Fatal(b, err)
	}
	for i := range 100 {
		mustPut(t, s, fmt.Sprint("noise/", i), "x")
	}
	select {
	case <-wake:
		t.Error("woken by the keys of others")
	default:
	}
	// Progress: it is known to be up to date all the same.
	if b, _, err := c.Poll(t.Context()); err != nil || b.Revision != 101 || len(b.Events) != 0 {
		t.Error(b, err)
	}
	mustPut(t, s, "quiet/1", "x")
	<-wake
	if got := wait(t, c, 1); got[0].revision() != 102 {
		t.Error(show(got))
	}
}

// TestWatchFuture starts beyond the end: nothing before is given.
func TestWatchFuture(t *testing.T) {
	s := openTemp(t, Options{})
	c, err := s.Watch(everything(), 5)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for range 5 {
		mustPut(t, s, "k", "v")
	}
	got := wait(t, c, 2)
	if len(got) != 2 || got[0].revision() != 5 || got[1].revision() != 6 {
		t.Error(show(got))
	}
}

// TestWatchCompacted checks every place of a start against a compaction, and a
// cursor that fell behind it.
func TestWatchCompacted(t *testing.T) {
	s := openTemp(t, Options{HotBytes: 1})
	behind, err := s.Watch(everything(), 0)
	if err != nil {
		t.Fatal(err)
	}
	defer behind.Close()
	for i := range 10 {
		mustPut(t, s, fmt.Sprint(i), "v")
	}
	if _, err := s.Compact(t.Context(), 5); err != nil {
		t.Fatal(err)
	}
	for from := int64(1); from <= 12; from++ {
		c, err := s.Watch(everything(), from)
		if err != nil {
			t.Fatal(err)
		}
		b, _, err := c.Poll(t.Context())
		if want := from <= 5; errors.Is(err, ErrCompacted) != want {
			t.Errorf("from %d: %v", from, err)
		} else if !want && len(b.Events) != int(12-from) {
			t.Errorf("from %d: %d events", from, len(b.Events))
		}
		if c.Compacted() != 5 {
			t.Errorf("compacted at %d", c.Compacted())
		}
		c.Close()
	}
	if _, _, err := behind.Poll(t.Context()); !errors.Is(err, ErrCompacted) {
		t.Errorf("a cursor that fell behind: %v", err)
	}
}

// TestWatchBatches reads a long history: bounded batches that join without a gap.
func TestWatchBatches(t *testing.T) {
	s := openTemp(t, Options{HotBytes: 1, MaxRequestBytes: 1 << 20})
	const n = 2500
	for i := 0; i < n; i += 500 {
		var ops []Op
		for j := range 500 {
			ops = append(ops, Op{Put: &Put{Key: fmt.Appendf(nil, "%d", i+j)}})
		}
		mustTxn(t, s, ops...)
	}
	mustPut(t, s, "last", "")
	c, err := s.Watch(everything(), 1)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	r, batches := &reader{}, 0
	for len(r.events) <= n && r.err == nil {
		b, _, err := c.Poll(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		r.take(b)
		batches++
	}
	if r.err != nil || batches < 3 || len(r.events) != n+1 {
		t.Errorf("%d events in %d batches, %v", len(r.events), batches, r.err)
	}
}
