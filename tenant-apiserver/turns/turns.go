// Package turns has the tenants of a process take turns at its processors.
//
//	request of a tenant -> Flow.Begin -> (waits in its flow) -> its turn -> end
//
// One tenant alone may have [Ahead] turns for each processor at a time, which keeps
// processors and disk busy. As soon as another asks too, or has within [Recent], each
// gets its part of the processors, one at least: none of them is ever kept waiting for
// the queue of another, only for turns that have begun. Free turns go round among the
// flows that wait.
//
// A turn ends when the work does, or after the time that it was begun for, whatever
// comes first: what lasts (a watch, a slow client, a webhook that asks the same API in
// return) does not keep others waiting and cannot wait for itself. So this shares
// processors out; it does not bound what is under way, which plans do.
//
// What computes for long in a turn rests again and again while other flows count
// ([Breathe]), for a moment or until their brief turns are over: turns are of processors
// and not of the scheduler's queues.
//
// The package starts no goroutines, and knows neither requests nor tenants.
package turns

import (
	"context"
	"slices"
	"sync"
	"time"
)

const (
	// Ahead is how many turns a flow that is alone may have for each processor.
	Ahead = 4
	// Recent is how long a flow counts after its last turn. Clients that ask one
	// thing after another are seldom longer about it.
	Recent = 250 * time.Millisecond
)

// Turns shares processors out among flows. Its methods may be called concurrently.
type Turns struct {
	processors int

	mu      sync.Mutex
	running int
	flows   []*Flow // that count, in the order of their next turns
	later   bool    // there is another look to come
}

// New shares out so many processors.
func New(processors int) *Turns { return &Turns{processors: max(processors, 1)} }

// Flow is what asks for turns in its own name: a tenant.
type Flow struct {
	of *Turns
	// Guarded by of.mu:
	waiting []*turn
	running int
	brief   int       // of those that run
	last    time.Time // when a turn ended
	counts  bool      // it is in of.flows
}

// Flow returns a flow of its own. It costs nothing when it is not used any more.
func (t *Turns) Flow() *Flow { return &Flow{of: t} }

// Waiting returns how many turns the flow waits for.
func (f *Flow) Waiting() int {
	f.of.mu.Lock()
	defer f.of.mu.Unlock()
	return len(f.waiting)
}

// turn is one that is waited for, or has begun.
type turn struct {
	flow  *Flow
	begun chan struct{} // closed when it has
	lasts time.Duration
	timer *time.Timer
	over  bool
}

// Begin waits for a turn, which is over when end is called, or after lasts. It fails
// only when ctx ends before. end is idempotent.
func (f *Flow) Begin(ctx context.Context, lasts time.Duration) (end func(), err error) {
	t := f.of
	mine := &turn{flow: f, begun: make(chan struct{}), lasts: lasts}
	t.mu.Lock()
	if !f.counts {
		f.counts = true
		t.flows = append(t.flows, f)
	}
	f.waiting = append(f.waiting, mine)
	t.share()
	t.mu.Unlock()
	select {
	case <-mine.begun:
		return func() { t.end(mine) }, nil
	case <-ctx.Done():
		t.abandon(mine)
		return nil, context.Cause(ctx)
	}
}

// abandon takes back a wish for a turn, which may just have been granted.
func (t *Turns) abandon(mine *turn) {
	t.mu.Lock()
	f := mine.flow
	f.waiting = slices.DeleteFunc(f.waiting, func(w *turn) bool { return w == mine })
	t.mu.Unlock()
	select {
	case <-mine.begun:
		t.end(mine)
	default:
	}
}

// end gives a turn back.
func (t *Turns) end(mine *turn) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if mine.over {
		return
	}
	mine.over = true
	mine.timer.Stop()
	t.running--
	mine.flow.running--
	if mine.lasts <= Brief {
		mine.flow.brief--
	}
	mine.flow.last = time.Now()
	t.share()
}

// share begins the turns that may begin. The caller holds mu.
func (t *Turns) share() {
	now := time.Now()
	t.flows = slices.DeleteFunc(t.flows, func(f *Flow) bool {
		f.counts = f.stillCounts(now)
		return !f.counts
	})
	for each := t.each(); t.running < Ahead*t.processors; {
		i := slices.IndexFunc(t.flows, func(f *Flow) bool { return len(f.waiting) > 0 && f.running < each })
		if i < 0 {
			t.lookLater()
			return
		}
		f := t.flows[i]
		t.flows = append(slices.Delete(t.flows, i, i+1), f) // its next comes after the others'
		t.begin(f.waiting[0])
		f.waiting = f.waiting[1:]
	}
}

// stillCounts says whether the flow counts. The caller holds mu.
func (f *Flow) stillCounts(now time.Time) bool {
	return len(f.waiting) > 0 || f.running > 0 || now.Sub(f.last) < Recent
}

// lookLater has turns shared out again when flows that only count still may not any
// more, if somebody waits because of them. The caller holds mu.
func (t *Turns) lookLater() {
	if t.later || !slices.ContainsFunc(t.flows, func(f *Flow) bool { return len(f.waiting) > 0 }) {
		return
	}
	t.later = true
	time.AfterFunc(Recent, func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		t.later = false
		t.share()
	})
}

// each is how many turns a flow may have at a time. The caller holds mu.
func (t *Turns) each() int {
	if len(t.flows) < 2 {
		return Ahead * t.processors
	}
	return max(t.processors/len(t.flows), 1)
}

// begin begins a turn. The caller holds mu.
func (t *Turns) begin(next *turn) {
	t.running++
	next.flow.running++
	if next.lasts <= Brief {
		next.flow.brief++
	}
	next.timer = time.AfterFunc(next.lasts, func() { t.end(next) })
	close(next.begun)
}
