package engine

import (
	"context"
	"net/http"
	"runtime"
	"sync"

	"k8s.io/client-go/transport"

	"sublet.dev/isolation/tenant"
)

// defaultWrites is how many writes to the host go on at a time: enough to keep a
// control plane busy that commits them in groups, and far fewer than would queue
// there, where they are served first come first.
const defaultWrites = 16

// burst is how many writes a tenant has served in one turn, at most. The host's quota
// admission counts what waits for a namespace at once, with one write of the quota, where
// each that comes alone is a write of its own
// (k8s.io/apiserver/pkg/admission/plugin/resourcequota).
const burst = 8

// Budget shares the host's capacity for writes among tenants: so many writes go on at
// a time, and less than a burst more, and while there are more, tenants take turns. What
// waits is bounded by the workers that wait: each waits for one write. And while more than
// one tenant writes, each has its part of this process's processors: see shares. A pass that
// waits for its tenant's turn is not counted there, so that the writes of a turn are more
// than one.
type Budget struct {
	mu     sync.Mutex
	turns  *turns[*ticket] // guarded by mu
	shares *shares
}

// ticket is one write that waits for a place; granted is closed when it has one.
type ticket struct{ granted chan struct{} }

// NewBudget returns a budget of so many writes at a time; 0 or less: a default.
func NewBudget(places int) *Budget {
	if places <= 0 {
		places = defaultWrites
	}
	return &Budget{turns: newTurns[*ticket](places, burst), shares: newShares(runtime.GOMAXPROCS(0))}
}

// acquire waits for a place, or for ctx to end. Who gets one gives it back.
func (b *Budget) acquire(ctx context.Context, who tenant.ID) error {
	mine := &ticket{make(chan struct{})}
	b.mu.Lock()
	has := b.turns.ask(who, mine)
	b.mu.Unlock()
	if has {
		return nil
	}
	giveBack(ctx)
	select {
	case <-mine.granted:
		return nil
	case <-ctx.Done():
	}
	b.mu.Lock()
	left := b.turns.leave(who, mine)
	b.mu.Unlock()
	if !left {
		b.release() // it was granted meanwhile
	}
	return context.Cause(ctx)
}

func (b *Budget) release() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, next := range b.turns.back() {
		close(next.granted)
	}
}

// Waiting returns how many writes of a tenant wait for their turn.
func (b *Budget) Waiting(who tenant.ID) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.turns.lines[who])
}

// Alone says whether no other tenant has written lately.
func (b *Budget) Alone(who tenant.ID) bool {
	b.shares.mu.Lock()
	defer b.shares.mu.Unlock()
	return b.shares.others(who) == 0
}

// Do does a tenant's work that is no write when it has a place for it.
func (b *Budget) Do(ctx context.Context, who tenant.ID, work func() error) error {
	if err := b.acquire(ctx, who); err != nil {
		return err
	}
	defer b.release()
	return work()
}

// Wrap makes the writes of a client those of a tenant; what it reads is not limited.
func (b *Budget) Wrap(who tenant.ID) transport.WrapperFunc {
	return func(next http.RoundTripper) http.RoundTripper { return &writer{budget: b, who: who, next: next} }
}

// writer holds a tenant's writes to a budget.
type writer struct {
	budget *Budget
	who    tenant.ID
	next   http.RoundTripper
}

// RoundTrip implements http.RoundTripper.
func (w *writer) RoundTrip(r *http.Request) (*http.Response, error) {
	if !writes(r) {
		return w.next.RoundTrip(r)
	}
	w.budget.shares.writes(w.who)
	if err := w.budget.acquire(r.Context(), w.who); err != nil {
		if r.Body != nil {
			_ = r.Body.Close() // a RoundTripper must; nothing was read from it
		}
		return nil, err
	}
	defer w.budget.release()
	answer, err := w.next.RoundTrip(r)
	count(r, answer, err)
	return answer, err
}

// WrappedRoundTripper lets client-go look at the transport below.
func (w *writer) WrappedRoundTripper() http.RoundTripper { return w.next }

func writes(r *http.Request) bool { return r.Method != http.MethodGet && r.Method != http.MethodHead }
