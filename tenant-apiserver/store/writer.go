package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	bolt "go.etcd.io/bbolt"
)

const (
	// maxGroup and maxGroupBytes bound one group.
	maxGroup      = 4096
	maxGroupBytes = 8 << 20
	// maxQueue is how many requests wait in line; more wait outside, which costs
	// an idle store nothing. Being drained, the line refills within a group.
	maxQueue = 256
	// noSpaceRetry is how long ended leases wait for room on a full disk.
	noSpaceRetry = 5 * time.Second
)

// call is one request on its way through the writer.
type call struct {
	ctx  context.Context
	size int
	// run evaluates the request. Its error refuses this request alone, and is
	// returned only before anything was changed.
	run  func(*group) error
	err  error // the outcome, set before done is closed
	done chan struct{}
	// flush: it is done when the file has all that was acknowledged before.
	flush bool
	seq   int64 // what it waits for
}

// writerState is what the writer goroutine remembers between groups.
type writerState struct {
	due      int64 // deadline of the lease that ends first, unix nanoseconds; 0: none
	sweeping bool  // compaction has records left to look at
}

// group is all requests of one round of the writer, evaluated on what the round
// before it left. Its changes become one frame of the log and, at the same time,
// a part of the newest layer.
type group struct {
	snapshot

	now    time.Time
	frame  []byte // nil: nothing changed yet
	size   int    // what the requests bring in, to make frame as large as needed
	full   bool   // the disk is: see Store.full
	quota  int64  // see Options.QuotaBytes
	tight  bool   // something was refused for want of room
	events []Event
	err    error // nobody in the group is acknowledged
	keep   writerState
}

// submit hands a request to the writer and waits for its outcome. When ctx ends
// first the request may still take effect.
func (s *Store) submit(ctx context.Context, size int, run func(*group) error) error {
	return s.hand(&call{ctx: ctx, size: size, run: run, done: make(chan struct{})})
}

// flush returns when the file has all that was acknowledged before the call.
func (s *Store) flush(ctx context.Context) error {
	nothing := func(*group) error { return nil }
	return s.hand(&call{ctx: ctx, run: nothing, flush: true, done: make(chan struct{})})
}

func (s *Store) hand(c *call) error {
	ctx := c.ctx
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
		s.checkpointIfDue()
		s.shrinkIfDue()
		s.prepareIfDue()
		first, ok := s.next()
		if !ok {
			s.closeErr = s.drain()
			return
		}
		s.waitForRoom()
		s.commit(s.gather(first))
	}
}

// next waits for something to do: a request, the end of a lease, the end of a
// checkpoint or the time of the next (a nil call), or nothing (a nil call) while
// compaction has work left. false: the store is closing.
func (s *Store) next() (*call, bool) {
	var idle <-chan struct{}
	if s.keep.sweeping && s.Err() == nil {
		idle = always
	}
	lease, stopLease := s.timer(s.keep.due)
	defer stopLease()
	ballast, stopBallast := s.timer(s.wal.ballast.next)
	defer stopBallast()
	shrink, stopShrink := s.timer(s.check.shrink)
	defer stopShrink()
	due, stopDue := s.timer(s.check.due)
	defer stopDue()
	select {
	case <-s.stopping:
		return nil, false
	case c := <-s.queue:
		return c, true
	case err := <-s.check.done:
		s.checkpointed(err)
		return nil, true
	case <-due:
		return nil, true
	case <-lease:
		return nil, true
	case <-ballast:
		return nil, true
	case <-shrink:
		return nil, true
	case <-idle:
		return nil, true
	}
}

// always is a channel that never makes anyone wait.
var always = func() <-chan struct{} { c := make(chan struct{}); close(c); return c }()

// timer fires at a time in unix nanoseconds; never at 0.
func (s *Store) timer(at int64) (<-chan time.Time, func()) {
	if at == 0 || s.Err() != nil {
		return nil, func() {}
	}
	return s.o.Clock.NewTimer(time.Unix(0, at).Sub(s.o.Clock.Now()))
}

// commit writes one group, publishes its events and then answers its callers.
func (s *Store) commit(calls []*call) {
	err := s.Err()
	if err == nil {
		size := 0
		for _, c := range calls {
			size += c.size
		}
		run := func(g *group) {
			g.run(calls)
			g.housekeep(s.o.SweepSlice)
		}
		if err = s.transact(size, run); errors.Is(err, ErrNoSpace) && s.makeRoom() {
			err = s.transact(size, run)
		}
	}
	if errors.Is(err, ErrNoSpace) {
		// Tried again by the next compaction, and in a while.
		s.keep.sweeping, s.keep.due = false, s.o.Clock.Now().Add(noSpaceRetry).UnixNano()
	}
	fault(faultGroupPublished)
	s.crowd.answering(len(calls), len(s.queue), s.wal.flushed)
	for _, c := range calls {
		if err != nil {
			c.err = err
		}
		if c.flush && c.err == nil && s.check.later(c, s.now.Load().head.seq) {
			continue
		}
		close(c.done)
	}
}

// opOverhead is about what an operation adds to a frame beside its own bytes.
const opOverhead = 224

// transact evaluates a group, writes its frame and publishes its events. It
// returns what every caller of the group must be told, nil when each has its own
// outcome.
func (s *Store) transact(size int, run func(*group)) error {
	st := s.now.Load()
	g := &group{
		now: s.o.Clock.Now(), size: size, keep: s.keep,
		full: s.full(), quota: s.quota.Load(),
	}
	err := s.readTx(func(tx *bolt.Tx) error {
		g.snapshot = st.over(tx)
		run(g)
		g.finish()
		return g.err
	})
	if err == nil && g.frame != nil {
		if g.full && s.backlog()+len(g.frame) > s.o.pace.backlogBytes+s.o.pace.reserveBytes {
			return fmt.Errorf("%w: the log is full of deletes", ErrNoSpace)
		}
		fault(faultGroupEvaluated)
		err = s.wal.append(s.check.applied, g.head.seq, g.frame)
	}
	switch {
	case err == nil:
		s.keep = g.keep
		if g.frame != nil {
			s.now.Store(&state{head: g.head, data: g.data, layers: g.layers})
			s.hub.publish(g.head.rev, g.head.compacted, g.events)
		}
		return nil
	case isNoSpace(err):
		return fmt.Errorf("%w: %w", ErrNoSpace, err)
	}
	return s.fail(err)
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

// changed is called before the first change: from then on the group has a frame,
// and a newest layer of its own.
func (g *group) changed() {
	if g.frame == nil {
		g.frame = newFrame(g.size)
		g.layers = append([]*layer{g.layers[0].clone()}, g.layers[1:]...)
	}
}

// finish writes the head, when anything changed.
func (g *group) finish() {
	if g.frame == nil || g.err != nil {
		return
	}
	g.head.seq++
	g.write(bucketMeta, keyHead, 0, g.head.appendTo)
	g.layers[0].bytes += len(g.frame)
}

// write seals and writes the value that body appends to what it is given. old
// are the bytes of the sealed value that it replaces, absent when there is none.
func (g *group) write(b bucketID, key []byte, old int, body func([]byte) []byte) {
	g.changed()
	from := len(g.frame)
	g.frame = body(beginChange(g.frame, b, key))
	var c *change
	g.frame, c = endChange(g.frame, from)
	g.layers[0].set(c)
	switch {
	case b == bucketMeta:
	case old == absent:
		g.head.sizes[b-bucketCur]++
		g.data += int64(len(key) + len(c.value))
	default:
		g.data += int64(len(c.value) - old)
	}
}

const absent = -1

// put is write for a key of which nothing is known.
func (g *group) put(b bucketID, key []byte, body func([]byte) []byte) {
	old := absent
	if v := g.get(b, key); v != nil {
		old = len(v)
	}
	g.write(b, key, old, body)
}

// remove deletes a key, which may be gone.
func (g *group) remove(b bucketID, key []byte) {
	old := g.get(b, key)
	if old == nil {
		return
	}
	g.changed()
	g.head.sizes[b-bucketCur]--
	g.data -= int64(len(key) + len(old))
	var c *change
	g.frame, c = removal(g.frame, b, key)
	g.layers[0].set(c)
}

// check remembers an error that must end the group, and says whether err is one.
func (g *group) check(err error) bool {
	if err != nil && g.err == nil {
		g.err = err
	}
	return err != nil
}
