package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// startAll measures starts beside each of the numbers of control planes that there are to
// be. A profile is of the last of these numbers, a trace of the last start.
func (w *ours) startAll(ctx context.Context, o options) error {
	for i, size := range o.sizes {
		for len(w.all) < size {
			if err := w.add(ctx); err != nil {
				return err
			}
		}
		if err := pause(ctx, calm); err != nil { // their controllers have work left
			return err
		}
		profile, traced := "", ""
		if i == len(o.sizes)-1 {
			profile, traced = o.cpu, o.trace
		}
		if err := profiled(profile, func() error { return w.starts(ctx, o.starts, "") }); err != nil {
			return err
		}
		if traced != "" {
			return w.starts(ctx, 1, traced)
		}
	}
	return nil
}

// starts makes n control planes from nothing, each gone before the next begins, and says
// how long they took, and what processor time this process spent on each until it was
// ready, the client's included.
func (w *ours) starts(ctx context.Context, n int, traced string) error {
	there := len(w.all)
	w.answers, w.ready = nil, nil
	var spent time.Duration
	for range n {
		before, err := spentTime()
		if err != nil {
			return err
		}
		if err := tracing(traced, func() error { return w.add(ctx) }); err != nil {
			return err
		}
		after, err := spentTime()
		if err != nil {
			return err
		}
		spent += after - before
		p := w.all[there]
		w.all = w.all[:there]
		if err := p.stop(ctx); err != nil {
			return err
		}
		if err := os.RemoveAll(filepath.Dir(p.config.StorePath)); err != nil {
			return err
		}
	}
	percentiles(fmt.Sprintf("starts/%d/first-answer", there), w.answers)
	percentiles(fmt.Sprintf("starts/%d/ready", there), w.ready)
	figure(fmt.Sprintf("starts/%d/cpu", there), milliseconds(spent)/float64(n), "ms")
	return nil
}

// spentTime is the processor time that this process has used.
func spentTime() (time.Duration, error) {
	var used unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &used); err != nil {
		return 0, err
	}
	return time.Duration(used.Utime.Nano() + used.Stime.Nano()), nil
}
