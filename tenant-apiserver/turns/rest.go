package turns

import (
	"context"
	"sync"
	"time"
)

const (
	// Stretch is how long who computes does so before he rests, if others count. Go's
	// scheduler lets a goroutine compute for ten milliseconds and more while others
	// wait, and with all processors in use it does not look for what has come from the
	// network either.
	Stretch = time.Millisecond / 2
	// Rest is how long he rests: what waits for a processor has one by then, and
	// goes on as long as it needs.
	Rest = Stretch / 10
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
// counts. It costs next to nothing otherwise, and nothing is wrong about calling it with
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
	if p.flow.shared() {
		time.Sleep(Rest)
	}
	p.since = time.Now()
}

// shared says whether another flow counts.
func (f *Flow) shared() bool {
	f.of.mu.Lock()
	defer f.of.mu.Unlock()
	now := time.Now()
	for _, o := range f.of.flows {
		if o != f && o.stillCounts(now) {
			return true
		}
	}
	return false
}
