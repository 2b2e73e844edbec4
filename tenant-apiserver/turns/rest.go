package turns

import (
	"context"
	"slices"
	"sync"
	"time"
)

const (
	// Stretch is how long who computes does so before he rests, if others count. Go's
	// scheduler lets a goroutine compute for ten milliseconds and more while others
	// wait, and with all processors in use it does not look for what has come from the
	// network either.
	Stretch = time.Millisecond / 2
	// Rest is how long he rests at least: what waits for a processor has one by then,
	// and goes on as long as it needs.
	Rest = Stretch / 10
	// LongestRest is how long he rests at most for a brief turn of another flow that is
	// not over. A request goes through a dozen goroutines, each of which would wait for
	// a stretch. It bounds what he waits for turns that follow each other without end.
	LongestRest = 4 * Stretch
	// Brief is how long turns are begun for at most that are waited for.
	Brief = 20 * time.Millisecond
)

// paceKey marks the pace in a context.
type paceKey struct{}

// pace is that of one who computes.
type pace struct {
	flow  *Flow
	mu    sync.Mutex
	since time.Time // when the stretch began
}

// Paced returns a context for what computes for long in a turn of the flow: it is to
// call [Breathe] again and again.
func (f *Flow) Paced(ctx context.Context) context.Context {
	return context.WithValue(ctx, paceKey{}, &pace{flow: f, since: time.Now()})
}

// Breathe rests when whose context it is has computed for a stretch and another flow
// counts, until the others' brief turns are over. It costs next to nothing otherwise, and nothing is wrong about calling it with
// another context.
func Breathe(ctx context.Context) {
	p, ok := ctx.Value(paceKey{}).(*pace)
	if !ok {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if time.Since(p.since) < Stretch {
		return
	}
	if p.flow.Shared() {
		p.flow.rest()
	}
	p.since = time.Now()
}

// rest returns when no other flow has a brief turn, or it has taken long enough.
func (f *Flow) rest() {
	for begun := time.Now(); ; {
		time.Sleep(Rest)
		if !f.others((*Flow).hasBrief) || time.Since(begun) >= LongestRest {
			return
		}
	}
}

// Shared says whether another flow counts.
func (f *Flow) Shared() bool {
	now := time.Now()
	return f.others(func(o *Flow) bool { return o.stillCounts(now) })
}

// hasBrief says whether the flow has a brief turn. The caller holds mu.
func (f *Flow) hasBrief() bool { return f.brief > 0 }

// others says whether is is true of another flow. It is called with mu held.
func (f *Flow) others(is func(*Flow) bool) bool {
	f.of.mu.Lock()
	defer f.of.mu.Unlock()
	return slices.ContainsFunc(f.of.flows, func(o *Flow) bool { return o != f && is(o) })
}
