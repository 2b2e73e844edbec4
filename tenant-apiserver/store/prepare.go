package store

import "fmt"

// preparation makes the segment that is not in use ready for the time when the one
// in use is full, so that writers need not wait for zeros to be written. The file
// has all that the segment holds, and nobody looks at it meanwhile: its goroutine
// works on a copy of what the writer knows of it, which settle hands back.
type preparation struct {
	segment
	to   int64      // what room is to be
	done chan error // gets the outcome
}

// prepare begins to make the other segment ready when the one in use fills up: when
// a quarter of it is used (of the smallest, half, since many stores never need more),
// larger or, where they are large already, as large; and larger still when three
// quarters are. A disk with little room is left alone until
// there is no other way.
func (w *wal) prepare(applied int64) error {
	if err := w.settle(false); err != nil {
		return fmt.Errorf("prepare the log: %w", err)
	}
	other, to := w.segments[1], w.ahead()
	if to == 0 || w.next != nil || w.tried || w.ballast.spent() || other.last > applied || other.kept && other.room >= to {
		return nil
	}
	if w.tried = !w.roomy(to - other.room); w.tried {
		return nil
	}
	err := w.ballast.hold(w.room() + to - other.room)
	if isNoSpace(err) {
		w.tried = true
		return nil
	}
	if err != nil {
		return fmt.Errorf("prepare the log: %w", err)
	}
	p := &preparation{segment: *other, to: to, done: make(chan error, 1)}
	w.next = p
	go func() { p.done <- p.run(w.noSync) }()
	return nil
}

// ahead is how large the other segment is to be, by how full the one in use is; 0: as
// it is.
func (w *wal) ahead() int64 {
	switch s := w.segments[0]; {
	case s.end == 0 || s.end < s.room/4 || s.room <= w.smallest && s.end < s.room/2:
		return 0
	case s.room < steps*w.smallest || s.end > s.room/4*3:
		return w.larger(s.room)
	default:
		return s.room
	}
}

func (p *preparation) run(noSync bool) error {
	fault(faultPrepareBegun)
	err := p.ready(p.to, noSync)
	fault(faultPrepared)
	return err
}

// settle takes over what was prepared; when it is still under way it waits for it,
// or leaves it.
func (w *wal) settle(wait bool) error {
	if w.next == nil {
		return nil
	}
	var err error
	if wait {
		err = <-w.next.done
	} else {
		select {
		case err = <-w.next.done:
		default:
			return nil
		}
	}
	of := w.segments[1]
	of.f, of.kept, of.room = w.next.f, w.next.kept, w.next.room
	w.next = nil
	fault(faultPrepareTaken)
	if isNoSpace(err) {
		w.tried, err = true, nil
	}
	return err
}

// waits says that the segment before the one in use is full, and a checkpoint has to
// free it: both are needed for the next step of growth.
func (w *wal) waits(applied int64) bool { return w.segments[1].last > applied }
