package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	bolt "go.etcd.io/bbolt"
)

// Compact gives up the history before rev: reads below it, and cursors that
// want an event up to it, get ErrCompacted from now on. The state at rev stays
// readable. The disk space is given back to later writes, little by little.
// Errors: ErrCompacted when rev was compacted before, ErrFutureRevision.
func (s *Store) Compact(ctx context.Context, rev int64) (revision int64, err error) {
	err = s.submit(ctx, 0, func(g *group) error {
		switch {
		case rev <= g.head.compacted:
			return ErrCompacted
		case rev > g.head.rev:
			return ErrFutureRevision
		}
		g.head.compacted, g.dirty, g.keep.sweeping = rev, true, true
		revision = g.head.rev
		return nil
	})
	return revision, err
}

// housekeep does the writer's own work at the end of a group.
func (g *group) housekeep(slice int) {
	if g.err != nil {
		return
	}
	g.expire()
	if g.keep.sweeping && g.err == nil {
		g.check(g.sweep(slice))
	}
}

// sweep removes what compaction made unreachable, looking at a slice of the
// log. Each record up to the compacted revision makes the one before it for the
// same key unreachable; a deletion is itself not needed any more once the
// compacted revision has passed it. One at that very revision stays until the
// next compaction, which begins there.
func (g *group) sweep(slice int) error {
	type seen struct {
		at pos
		record
	}
	var batch []seen // collected first: a cursor must not see its bucket change
	next := pos{rev: g.head.compacted}
	done := true
	c := g.log.Cursor()
	for k, v := c.Seek(g.head.swept.bytes()); k != nil; k, v = c.Next() {
		at, err := decodePos(k)
		if err != nil {
			return fmt.Errorf("%w: %w", ErrCorrupt, err)
		}
		if at.rev > g.head.compacted {
			break
		}
		if len(batch) == slice {
			next, done = at, false
			break
		}
		r, err := openRecord(k, v)
		if err != nil {
			return err
		}
		r.key = bytes.Clone(r.key)
		batch = append(batch, seen{at, r})
	}
	for _, s := range batch {
		if s.prev != (pos{}) {
			g.remove(g.toLog, s.prev.bytes())
		}
		if s.deleted && s.at.rev < g.head.compacted {
			if err := g.forget(s.key, s.at); err != nil {
				return err
			}
		}
	}
	g.head.swept, g.keep.sweeping, g.dirty = next, !done, true
	return g.err
}

// forget removes a deletion, and the key when nothing came after it.
func (g *group) forget(key []byte, at pos) error {
	e, err := g.entry(key)
	if err != nil {
		return err
	}
	if e.at == at {
		g.remove(g.toCur, key)
	}
	g.remove(g.toLog, at.bytes())
	return nil
}

// adopt takes over from an earlier run: an unfinished sweep, and the leases. A
// lease that would last longer than it was granted for was written under a
// clock that has been set back since; it starts anew.
func (s *Store) adopt(h head) error {
	s.keep.sweeping = h.compacted > 0 && h.swept != pos{rev: h.compacted}
	g := &group{now: s.o.Clock.Now(), keep: s.keep}
	err := s.update(func(tx *bolt.Tx) error {
		if err := g.begin(tx); err != nil {
			return err
		}
		if err := g.clampLeases(); err != nil {
			return err
		}
		if g.head.id == "" && s.o.ID != "" {
			g.head.id, g.dirty = s.o.ID, true
		}
		if first, _ := g.due.Cursor().First(); first != nil {
			g.keep.due = 1 // look at once
		}
		return g.finish()
	})
	if err != nil && !errors.Is(err, errRollback) {
		return err
	}
	s.keep = g.keep
	return nil
}

func (g *group) clampLeases() error {
	type clamped struct {
		id int64
		lease
	}
	var all []clamped
	err := g.leases.ForEach(func(k, _ []byte) error {
		id := idOf(k)
		l, err := readLease(g.leases.Bucket, id)
		if err == nil && l.deadline > deadline(g.now, l.ttl) {
			all = append(all, clamped{id, l})
		}
		return err
	})
	if err != nil {
		return err
	}
	for _, c := range all {
		g.remove(g.due, dueKey(c.id, c.lease))
		c.deadline = deadline(g.now, c.ttl)
		g.setLease(c.id, c.lease)
	}
	return nil
}
