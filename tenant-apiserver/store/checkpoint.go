package store

import (
	"errors"
	"fmt"

	bolt "go.etcd.io/bbolt"
)

// logFill packs the pages of the log, which only grows at its end.
const logFill = 0.95

// checkpoint is what the writer keeps of the way of the layers into the file.
type checkpoint struct {
	done    chan error // of the running one; nil: none is running
	applied int64      // the file has all groups up to it
	due     int64      // unix nanoseconds; 0: no layer has anything
	wanted  bool       // at once
	noSpace error      // why the last one failed
	small   bool       // it was begun because of age
	shrink  int64      // when the log is cut, unix nanoseconds; 0: it is small
	waiting []*call
}

// later takes a call that waits for the file to have all groups up to seq.
// false: it has.
func (c *checkpoint) later(waiter *call, seq int64) bool {
	if seq <= c.applied {
		return false
	}
	waiter.seq = seq
	c.waiting, c.wanted = append(c.waiting, waiter), true
	return true
}

// answer ends the waits that are over: those for what the file has now, and all
// when it cannot have more.
func (c *checkpoint) answer(err error) {
	still := c.waiting[:0]
	for _, w := range c.waiting {
		if err == nil && w.seq > c.applied {
			still = append(still, w)
			continue
		}
		w.err = err
		close(w.done)
	}
	c.waiting, c.wanted = still, len(still) > 0
}

// checkpointIfDue begins a checkpoint when there is something to do and none is
// running, and notes when the next one is.
func (s *Store) checkpointIfDue() {
	if s.check.noSpace == nil && s.Err() == nil {
		if err := s.wal.ballast.restore(s.o.Clock.Now()); err != nil {
			s.fail(fmt.Errorf("restore the ballast: %w", err))
		}
	}
	st := s.now.Load()
	newest := st.layers[0]
	if s.check.done != nil || s.Err() != nil || len(st.layers) == 1 && newest.empty() {
		return
	}
	now := s.o.Clock.Now()
	if s.check.due == 0 {
		s.check.due = now.Add(s.o.pace.layerAge).UnixNano()
	}
	aged := now.UnixNano() >= s.check.due
	switch {
	case s.check.noSpace != nil && !aged:
		return
	case !aged && !s.check.wanted && newest.bytes < s.o.pace.layerBytes && len(st.layers) == 1 && !s.wal.waits(s.check.applied):
		return
	}
	s.check.small = newest.bytes < s.o.pace.layerBytes
	s.beginCheckpoint(st)
}

// beginCheckpoint starts a new layer and, if it can, the other segment, and
// brings all older layers into the file.
func (s *Store) beginCheckpoint(st *state) {
	all := st.layers[len(st.layers)-1]
	for i := len(st.layers) - 2; i >= 0; i-- {
		all = st.layers[i].over(all)
	}
	s.wal.rotate(s.check.applied)
	s.now.Store(&state{head: st.head, data: st.data, layers: []*layer{newLayer(), all}})
	// Whoever loaded a state before this one looks again.
	s.applying.Store(st.head.seq)
	s.check.done, s.check.wanted, s.check.due = make(chan error, 1), false, 0
	go func() { s.check.done <- s.apply(all) }()
}

// apply writes a layer to the file in one transaction.
func (s *Store) apply(l *layer) error {
	fault(faultCheckpointBegun)
	err := s.update(func(tx *bolt.Tx) error {
		var buckets [buckets]*bolt.Bucket
		n, err := 0, error(nil)
		l.tree.Scan(func(c *change) bool {
			b := buckets[c.bucket]
			if b == nil {
				b = tx.Bucket(c.bucket.name())
				buckets[c.bucket] = b
				if c.bucket == bucketLog {
					b.FillPercent = logFill
				}
			}
			if c.value == nil {
				err = b.Delete(c.key)
			} else {
				err = b.Put(c.key, c.value)
			}
			if n++; n == l.tree.Len()/2 {
				fault(faultCheckpointHalf)
			}
			return err == nil
		})
		fault(faultCheckpointApplied)
		return err
	})
	if err != nil {
		return err
	}
	fault(faultCheckpointFlushed)
	return s.shrinkIfWasteful()
}

// checkpointed takes the outcome of the checkpoint that was running.
func (s *Store) checkpointed(err error) {
	s.check.done, s.check.noSpace = nil, nil
	if isNoSpace(err) && s.spendBallast() {
		s.check.wanted = true // there is room now: again, at once
		return
	}
	if isNoSpace(err) {
		err = fmt.Errorf("%w: bring the log into the file: %w", ErrNoSpace, err)
		s.check.noSpace = err
		s.check.due = s.o.Clock.Now().Add(s.o.pace.retry).UnixNano()
	} else if err != nil {
		err = s.fail(fmt.Errorf("bring the log into the file: %w", err))
	} else {
		st := s.now.Load()
		s.now.Store(&state{head: st.head, data: st.data, layers: []*layer{st.layers[0]}})
		s.check.applied = s.applying.Load()
		if st.layers[0].empty() && s.check.small {
			s.rest()
		}
	}
	s.check.answer(err)
}

// rest gives back what a store without work does not need: events in memory at
// once, disk blocks some time later, since work may come again.
func (s *Store) rest() {
	s.wal.free()
	s.hub.forget()
	if !s.wal.large() {
		return
	}
	at := s.o.Clock.Now()
	if !s.wal.ballast.spent() { // whose return needs the blocks
		at = at.Add(s.o.pace.restAge)
	}
	s.check.shrink = at.UnixNano()
}

// shrinkIfDue cuts the log of a store that had no work since rest.
func (s *Store) shrinkIfDue() {
	if s.check.shrink == 0 || s.Err() != nil || s.o.Clock.Now().UnixNano() < s.check.shrink {
		return
	}
	s.check.shrink = 0
	if st := s.now.Load(); len(st.layers) > 1 || !st.layers[0].empty() {
		return // until the next rest
	}
	if err := s.wal.shrink(); err != nil {
		s.fail(err)
	}
}

// prepareIfDue has the other segment made ready before it is needed.
func (s *Store) prepareIfDue() {
	if s.check.noSpace != nil || s.Err() != nil {
		return
	}
	if err := s.wal.prepare(s.check.applied); err != nil {
		s.fail(err)
	}
}

// waitForRoom holds the writer while the newest layer is as large as it may be
// and a checkpoint is on its way.
func (s *Store) waitForRoom() {
	for s.check.done != nil && s.now.Load().layers[0].bytes >= s.o.pace.backlogBytes {
		s.checkpointed(<-s.check.done)
		s.checkpointIfDue()
	}
}

// spendBallast says whether it made any room.
func (s *Store) spendBallast() bool {
	spent, err := s.wal.ballast.spend(s.o.Clock.Now())
	if err != nil {
		s.fail(fmt.Errorf("empty the ballast: %w", err))
	}
	return spent
}

// makeRoom empties the ballast, brings all layers into the file now, so that the
// log can be written over, and says whether there is more room than before.
func (s *Store) makeRoom() bool {
	before, spent := s.check.applied, s.spendBallast()
	for s.Err() == nil && s.check.applied < s.now.Load().head.seq {
		if s.check.done == nil {
			s.beginCheckpoint(s.now.Load())
		}
		if s.checkpointed(<-s.check.done); s.check.noSpace != nil {
			break
		}
	}
	return s.check.applied > before || spent
}

func (s *Store) backlog() (n int) {
	for _, l := range s.now.Load().layers {
		n += l.bytes
	}
	return n
}

// drain ends the writer: it brings everything into the file and removes the log.
func (s *Store) drain() error {
	for s.Err() == nil {
		if s.check.done != nil {
			s.checkpointed(<-s.check.done)
			continue
		}
		if st := s.now.Load(); len(st.layers) == 1 && st.layers[0].empty() {
			fault(faultCloseCheckpointed)
			err := s.wal.close(!s.full()) // there may be no room to make it again
			fault(faultCloseSegmentsGone)
			return err
		}
		if err := s.check.noSpace; err != nil {
			return errors.Join(fmt.Errorf("the log stays beside the file: %w", err), s.wal.close(false))
		}
		s.check.wanted = true
		s.checkpointIfDue()
	}
	if s.check.done != nil {
		<-s.check.done
	}
	return s.wal.close(false)
}

// update runs f in a bbolt transaction of its own and commits it. It is not
// DB.Update, which answers a panic by looking through the whole file in a
// goroutine that nobody can recover; taking the transaction back does not.
func (s *Store) update(f func(tx *bolt.Tx) error) error {
	return guard(func() error {
		tx, err := s.db.Load().Begin(true)
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
