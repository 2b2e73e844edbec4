package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	bolt "go.etcd.io/bbolt"
)

const (
	// maxGroup and maxGroupBytes bound one bbolt transaction.
	maxGroup      = 4096
	maxGroupBytes = 8 << 20
	// maxQueue is how many requests wait in line; more wait outside, which costs
	// an idle store nothing. Being drained, the line refills within a group.
	maxQueue = 256
	// logFill packs the pages of the log, which only grows at its end.
	logFill = 0.95
	// noSpaceRetry is how long ended leases wait for room on a full disk.
	noSpaceRetry = 5 * time.Second
)

// errRollback ends a bbolt transaction that changed nothing, without a flush.
var errRollback = errors.New("nothing to commit")

// call is one request on its way through the writer.
type call struct {
	ctx  context.Context
	size int
	// run evaluates the request. Its error refuses this request alone, and is
	// returned only before anything was changed.
	run  func(*group) error
	err  error // the outcome, set before done is closed
	done chan struct{}
}

// writerState is what the writer goroutine remembers between groups.
type writerState struct {
	due      int64 // deadline of the lease that ends first, unix nanoseconds; 0: none
	sweeping bool  // compaction has records left to look at
}

// group is one bbolt transaction of the writer and all requests in it.
type group struct {
	snapshot
	toCur, toLog, leases, due, held bucket

	now    time.Time
	events []Event
	dirty  bool
	err    error // bbolt failed: nobody in the group is acknowledged
	keep   writerState
}

// submit hands a request to the writer and waits for its outcome. When ctx ends
// first the request may still take effect.
func (s *Store) submit(ctx context.Context, size int, run func(*group) error) error {
	c := &call{ctx: ctx, size: size, run: run, done: make(chan struct{})}
	select {
	case <-s.stopping:
		return ErrClosed
	default:
	}
	select {
	case s.queue <- c:
	case <-ctx.Done():
		return ctx.Err()
	case <-s.stopping:
		return ErrClosed
	}
	select {
	case <-c.done:
		return c.err
	case <-ctx.Done():
		return ctx.Err()
	case <-s.stopped:
	}
	select {
	case <-c.done:
		return c.err
	default:
		return ErrClosed
	}
}

// write is the writer goroutine.
func (s *Store) write() {
	defer close(s.stopped)
	for {
		first, ok := s.next()
		if !ok {
			return
		}
		s.commit(s.gather(first))
	}
}

// next waits for something to do: a request, the end of a lease, or nothing (a
// nil call) while compaction has work left. false: the store is closing.
func (s *Store) next() (*call, bool) {
	var idle <-chan struct{}
	if s.keep.sweeping && s.Err() == nil {
		idle = always
	}
	timer, stop := s.leaseTimer()
	defer stop()
	select {
	case <-s.stopping:
		return nil, false
	case c := <-s.queue:
		return c, true
	case <-timer:
		return nil, true
	case <-idle:
		return nil, true
	}
}

// always is a channel that never makes anyone wait.
var always = func() <-chan struct{} { c := make(chan struct{}); close(c); return c }()

// leaseTimer fires when the next lease ends; never when there is none.
func (s *Store) leaseTimer() (<-chan time.Time, func()) {
	if s.keep.due == 0 || s.Err() != nil {
		return nil, func() {}
	}
	return s.o.Clock.NewTimer(time.Unix(0, s.keep.due).Sub(s.o.Clock.Now()))
}

// gather takes what else is queued, within the bounds of a group.
func (s *Store) gather(first *call) []*call {
	var calls []*call
	size := 0
	if first != nil {
		calls, size = []*call{first}, first.size
	}
	for len(calls) < maxGroup && size < maxGroupBytes {
		select {
		case c := <-s.queue:
			calls, size = append(calls, c), size+c.size
		default:
			return calls
		}
	}
	return calls
}

// commit writes one group, publishes its events and then answers its callers.
func (s *Store) commit(calls []*call) {
	err := s.Err()
	if err == nil {
		err = s.transact(calls)
	}
	for _, c := range calls {
		if err != nil {
			c.err = err
		}
		close(c.done)
	}
}

// transact runs the group in one bbolt transaction and returns what every
// caller of the group must be told, nil when each has its own outcome.
func (s *Store) transact(calls []*call) error {
	g := &group{now: s.o.Clock.Now(), keep: s.keep}
	err := s.update(func(tx *bolt.Tx) error {
		if err := g.begin(tx); err != nil {
			return err
		}
		g.run(calls)
		g.housekeep(s.o.SweepSlice)
		return g.finish()
	})
	switch {
	case err == nil || errors.Is(err, errRollback):
		s.keep = g.keep
		s.hub.publish(g.head.rev, g.head.compacted, g.events)
		return nil
	case isNoSpace(err):
		// Tried again by the next compaction, and in a while.
		s.keep.sweeping, s.keep.due = false, g.now.Add(noSpaceRetry).UnixNano()
		return fmt.Errorf("%w: %w", ErrNoSpace, err)
	}
	return s.fail(err)
}

// update runs f in a bbolt transaction of its own and commits it. It is not
// DB.Update, which answers a panic by looking through the whole file in a
// goroutine that nobody can recover; taking the transaction back does not.
func (s *Store) update(f func(tx *bolt.Tx) error) error {
	return guard(func() error {
		tx, err := s.db.Begin(true)
		if err != nil {
			return err
		}
		defer tx.Rollback() // says that it is closed, after Commit
		if err := f(tx); err != nil {
			return err
		}
		return tx.Commit()
	})
}

// bucket is a bucket that the group writes to.
type bucket struct {
	*bolt.Bucket
	name []byte
	size *int64 // nil for meta
}

func (g *group) begin(tx *bolt.Tx) (err error) {
	if g.snapshot, err = newSnapshot(tx); err != nil {
		return err
	}
	for i, b := range []*bucket{&g.toCur, &g.toLog, &g.leases, &g.due, &g.held} {
		*b = bucket{tx.Bucket(counted[i]), counted[i], &g.head.sizes[i]}
	}
	g.toLog.FillPercent = logFill
	return nil
}

// run evaluates the requests in order, each seeing the ones before it. A
// request whose caller has gone is not begun.
func (g *group) run(calls []*call) {
	for _, c := range calls {
		if c.err = c.ctx.Err(); c.err == nil && g.err == nil {
			c.err = c.run(g)
		}
	}
}

// finish writes the head, when anything changed.
func (g *group) finish() error {
	if g.err != nil {
		return g.err
	}
	if !g.dirty {
		return errRollback
	}
	g.put(bucket{g.tx.Bucket(bucketMeta), bucketMeta, nil}, keyHead, g.head.encode())
	return g.err
}

// put seals and writes a value; it remembers the first failure.
func (g *group) put(b bucket, key, body []byte) {
	g.dirty = true
	if b.size != nil && b.Get(key) == nil {
		*b.size++
	}
	if err := b.Put(key, seal(b.name, key, body)); err != nil && g.err == nil {
		g.err = fmt.Errorf("write %s: %w", b.name, err)
	}
}

// remove deletes a key, which may be gone; it remembers the first failure.
func (g *group) remove(b bucket, key []byte) {
	if b.Get(key) == nil {
		return
	}
	g.dirty = true
	*b.size--
	if err := b.Delete(key); err != nil && g.err == nil {
		g.err = fmt.Errorf("remove from %s: %w", b.name, err)
	}
}

// check remembers an error that must end the group, and says whether err is one.
func (g *group) check(err error) bool {
	if err != nil && g.err == nil {
		g.err = err
	}
	return err != nil
}
