package store

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"sync"
)

// Event is one change of one key. It is shared: nobody may change what it
// points at.
type Event struct {
	// Deleted: the key is gone, and KV has only Key and ModRevision.
	Deleted bool
	KV      *KeyValue
	// Prev is what the key was before; nil when it did not exist.
	Prev *KeyValue
}

func (e Event) revision() int64 { return e.KV.ModRevision }

func (e Event) bytes() int {
	const overhead = 200
	n := overhead + len(e.KV.Key) + len(e.KV.Value)
	if e.Prev != nil {
		n += len(e.Prev.Value)
	}
	return n
}

// Batch is what a cursor had to give.
type Batch struct {
	// Events in order, whole revisions only. May be empty.
	Events []Event
	// Revision up to which this and earlier batches have given every event of
	// the cursor's range.
	Revision int64
}

// The bounds of one batch, and of how much of the log is read for it; the last
// revision may exceed them.
const (
	batchEvents = 1000
	batchBytes  = 1 << 20
	batchScan   = 10_000
)

// Cursor is a position in the log for one range of keys. It is used by one
// goroutine at a time; Close may be called by any.
type Cursor struct {
	s     *Store
	keys  Range
	from  int64
	late  bool // from was compacted when the cursor was made
	wake  chan struct{}
	empty chan struct{} // closed: there is more already

	next int64 // guarded by hub.mu: first revision to look at; 0: all was looked at
}

// Watch returns a cursor that gives the events of a range from the revision
// from on, which may lie in the future; 0: from the next one. Events before a
// compaction that happened in between are lost, and the cursor then says
// ErrCompacted. Close it after use. Error: ErrEmptyKey, ErrTooLarge.
func (s *Store) Watch(r Range, from int64) (*Cursor, error) {
	if err := checkKey(r.Key); err != nil {
		return nil, err
	}
	c := &Cursor{s: s, keys: r, from: from, wake: make(chan struct{}, 1), empty: make(chan struct{})}
	close(c.empty)
	s.hub.add(c)
	return c, nil
}

// Poll returns what there is, without waiting. When the batch has no events,
// wake gets a value once there may be some; it is valid until the next Poll.
// Errors end the cursor: ErrCompacted, ErrClosed, ErrFailed, the error of ctx.
func (c *Cursor) Poll(ctx context.Context) (b Batch, wake <-chan struct{}, err error) {
	for {
		p, err := c.s.hub.position(c)
		if err != nil {
			return Batch{}, nil, err
		}
		if p.next == 0 {
			return Batch{Revision: p.rev}, c.wake, nil
		}
		b, err := c.collect(ctx, p)
		if err != nil {
			return Batch{}, nil, err
		}
		c.s.hub.looked(c, b.Revision)
		if len(b.Events) > 0 {
			return b, c.empty, nil
		}
	}
}

// Compacted returns the revision that ErrCompacted speaks of.
func (c *Cursor) Compacted() int64 {
	c.s.hub.mu.Lock()
	defer c.s.hub.mu.Unlock()
	return c.s.hub.compacted
}

// Close releases the cursor. Closing it again does nothing.
func (c *Cursor) Close() { c.s.hub.drop(c) }

// collect looks at the revisions from p.next to p.rev, in the ring or on disk.
func (c *Cursor) collect(ctx context.Context, p position) (Batch, error) {
	b := Batch{Revision: p.rev}
	if !p.behind {
		size := 0
		for _, e := range p.recent {
			if full(&b, size, 0, e.revision()) {
				break
			}
			if c.keys.Contains(e.KV.Key) {
				b.Events, size = append(b.Events, e), size+e.bytes()
			}
		}
		return b, nil
	}
	err := c.s.view(ctx, func(snap snapshot) error {
		if p.next <= snap.head.compacted {
			return ErrCompacted
		}
		return snap.scan(c.keys, p.next, &b)
	})
	return b, err
}

// full ends a batch before the revision rev when it has enough: b.Revision is
// then the one before.
func full(b *Batch, size, scanned int, rev int64) bool {
	if len(b.Events) < batchEvents && size < batchBytes && scanned < batchScan {
		return false
	}
	if n := len(b.Events); n > 0 && b.Events[n-1].revision() == rev {
		return false
	}
	b.Revision = rev - 1
	return true
}

// scan adds the events of a range from the revision from up to b.Revision.
func (s snapshot) scan(keys Range, from int64, b *Batch) error {
	size, scanned := 0, 0
	c := s.cursor(bucketLog)
	for k, v := c.seek(pos{rev: from}.bytes()); k != nil; k, v = c.next() {
		at, err := decodePos(k)
		if err != nil {
			return fmt.Errorf("%w: %w", ErrCorrupt, err)
		}
		if at.rev > b.Revision || at.sub == 0 && full(b, size, scanned, at.rev) {
			return nil
		}
		scanned++
		r, err := openRecord(k, v)
		if err != nil {
			return err
		}
		if !keys.Contains(r.key) {
			continue
		}
		e, err := s.event(at, r)
		if err != nil {
			return err
		}
		b.Events, size = append(b.Events, e), size+e.bytes()
	}
	return nil
}

// event builds the event of a log record, as it was published.
func (s snapshot) event(at pos, r record) (Event, error) {
	e := Event{Deleted: r.deleted, KV: &KeyValue{
		Key: bytes.Clone(r.key), Value: append([]byte{}, r.value...), Lease: r.lease,
		ModRevision: at.rev, CreateRevision: r.create, Version: r.version,
	}}
	if r.prev == (pos{}) {
		return e, nil
	}
	prev, found, err := s.lookup(r.prev)
	if err != nil {
		return e, err
	}
	if !found {
		return e, s.missing(r.prev)
	}
	if !prev.deleted {
		e.Prev, err = s.keyValue(r.key, entry{at: r.prev, create: prev.create, version: prev.version, lease: prev.lease}, false)
	}
	return e, err
}

// hub is where the writer meets the cursors: a few recent events, and for each
// cursor what it has to look at.
type hub struct {
	limit int

	mu        sync.Mutex
	rev       int64 // all events up to it were published
	compacted int64
	err       error
	cursors   map[*Cursor]struct{}
	ring      []Event // elements are never changed, so that readers may hold a part
	ringFrom  int64   // all events from this revision on are in ring
	ringBytes int
}

func newHub(rev, compacted int64, limit int) *hub {
	return &hub{limit: limit, rev: rev, compacted: compacted, ringFrom: rev + 1, cursors: map[*Cursor]struct{}{}}
}

// publish makes the events of one group seen. Its cost is a comparison for each
// event and cursor; only cursors that have something to give are woken.
func (h *hub) publish(rev, compacted int64, events []Event) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.rev, h.compacted = rev, compacted
	if len(events) == 0 {
		return
	}
	h.remember(events)
	for c := range h.cursors {
		if c.next != 0 {
			continue // awake already
		}
		for _, e := range events {
			if e.revision() >= c.from && c.keys.Contains(e.KV.Key) {
				c.next = e.revision()
				c.signal()
				break
			}
		}
	}
}

// remember adds to the ring. Once it has twice the bytes it may, the older part
// is left to the garbage collector; caller holds mu.
func (h *hub) remember(events []Event) {
	h.ring = append(h.ring, events...)
	for _, e := range events {
		h.ringBytes += e.bytes()
	}
	if h.ringBytes <= 2*h.limit {
		return
	}
	keep, size := len(h.ring), 0
	for keep > 0 && size+h.ring[keep-1].bytes() <= h.limit {
		keep--
		size += h.ring[keep].bytes()
	}
	for ; keep < len(h.ring) && keep > 0 && h.ring[keep].revision() == h.ring[keep-1].revision(); keep++ {
		size -= h.ring[keep].bytes()
	}
	h.ringFrom = h.rev + 1
	if keep < len(h.ring) {
		h.ringFrom = h.ring[keep].revision()
	}
	h.ring, h.ringBytes = slices.Clone(h.ring[keep:]), size
}

// forget lets the ring go; who needs what was in it finds it in the log.
func (h *hub) forget() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ring, h.ringBytes, h.ringFrom = nil, 0, h.rev+1
}

func (c *Cursor) signal() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

func (h *hub) add(c *Cursor) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if c.from <= 0 {
		c.from = h.rev + 1
	}
	if c.from <= h.rev {
		c.next, c.late = c.from, c.from <= h.compacted
	}
	h.cursors[c] = struct{}{}
}

func (h *hub) drop(c *Cursor) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.cursors, c)
}

// position is what a cursor has to look at.
type position struct {
	next, rev int64
	recent    []Event // from next on, unless behind
	behind    bool    // the ring does not reach back to next
}

func (h *hub) position(c *Cursor) (position, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case h.err != nil:
		return position{}, h.err
	case c.late:
		return position{}, ErrCompacted
	}
	p := position{next: c.next, rev: h.rev, behind: c.next < h.ringFrom}
	if p.next != 0 && !p.behind {
		i, _ := slices.BinarySearchFunc(h.ring, p.next, func(e Event, rev int64) int { return int(e.revision() - rev) })
		p.recent = h.ring[i:]
	}
	return p, nil
}

// looked notes that the cursor has looked at all revisions up to rev.
func (h *hub) looked(c *Cursor, rev int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	c.next = 0
	if rev < h.rev {
		c.next = rev + 1
	}
}

// end wakes all cursors for the last time. The first reason stays.
func (h *hub) end(err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.err == nil {
		h.err = err
	}
	for c := range h.cursors {
		c.signal()
	}
}
