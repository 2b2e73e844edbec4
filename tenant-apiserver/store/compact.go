package store

import (
	"bytes"
	"context"
	"fmt"
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
		g.changed()
		g.head.compacted, g.keep.sweeping = rev, true
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
	g.relieve()
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
	c := g.cursor(bucketLog)
	for k, v := c.seek(g.head.swept.bytes()); k != nil; k, v = c.next() {
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
			g.remove(bucketLog, s.prev.bytes())
		}
		if s.deleted && s.at.rev < g.head.compacted {
			if err := g.forget(s.key, s.at); err != nil {
				return err
			}
		}
	}
	g.changed()
	g.head.swept, g.keep.sweeping = next, !done
	fault(faultSweep)
	return nil
}

// forget removes a deletion, and the key when nothing came after it.
func (g *group) forget(key []byte, at pos) error {
	e, err := g.entry(key)
	if err != nil {
		return err
	}
	if e.at == at {
		g.remove(bucketCur, key)
	}
	g.remove(bucketLog, at.bytes())
	return nil
}
