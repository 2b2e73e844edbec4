package engine

import (
	"context"
	"maps"
	"sync"
	"time"

	"sublet.dev/isolation/tenant"
)

const (
	// lately is how long a tenant counts after its last write to the host: who makes
	// one pod after another writes again within it.
	lately = 250 * time.Millisecond
	// longestTurn is how long a pass keeps its place. One that waits for a host that
	// hangs keeps no other pass of its tenant waiting.
	longestTurn = time.Second
)

// shares is how many passes a tenant may have under way, so that what one with very
// much to do does not take the processors from the one pod of another. A tenant alone
// has as many as it has workers; while others write to the host too, each has its part
// of the processors, one at least. Who only looks at things does not count.
type shares struct {
	processors int

	mu      sync.Mutex
	wrote   map[tenant.ID]time.Time // guarded by mu: when tenants wrote last; old ones are dropped
	passes  map[tenant.ID]int       // guarded by mu: those that have a place
	waiting map[tenant.ID][]*turn   // guarded by mu: first come first; no empty ones
}

// turn is a pass that has a place, or waits for one.
type turn struct {
	who   tenant.ID
	begun chan struct{} // closed when it has a place
	timer *time.Timer   // of its end; set when it has a place
	over  bool
}

func newShares(processors int) *shares {
	return &shares{
		processors: max(processors, 1),
		wrote:      map[tenant.ID]time.Time{}, passes: map[tenant.ID]int{}, waiting: map[tenant.ID][]*turn{},
	}
}

// writes notes that a tenant writes to the host now.
func (s *shares) writes(who tenant.ID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.wrote[who] = time.Now()
}

// others counts the tenants beside one that wrote lately. The caller holds mu.
func (s *shares) others(who tenant.ID) int {
	now := time.Now()
	maps.DeleteFunc(s.wrote, func(_ tenant.ID, at time.Time) bool { return now.Sub(at) > lately })
	if _, ok := s.wrote[who]; ok {
		return len(s.wrote) - 1
	}
	return len(s.wrote)
}

// each is how many passes a tenant may have under way; false: as many as it likes. The
// caller holds mu.
func (s *shares) each(who tenant.ID) (int, bool) {
	others := s.others(who)
	return max(s.processors/(others+1), 1), others > 0
}

// begin waits until a tenant may have one more pass under way, or ctx ends. end, which
// is idempotent, is to be called when the pass ends.
func (s *shares) begin(ctx context.Context, who tenant.ID) (end func(), err error) {
	mine := &turn{who: who, begun: make(chan struct{})}
	s.mu.Lock()
	s.waiting[who] = append(s.waiting[who], mine)
	s.admit(who)
	s.mu.Unlock()
	select {
	case <-mine.begun:
		return func() { s.end(mine) }, nil
	case <-ctx.Done():
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if mine.timer != nil { // it was admitted meanwhile
		s.over(mine)
		return nil, context.Cause(ctx)
	}
	s.leave(mine)
	return nil, context.Cause(ctx)
}

// leave takes one that waits out of its line. The caller holds mu.
func (s *shares) leave(mine *turn) {
	var left []*turn
	for _, t := range s.waiting[mine.who] {
		if t != mine {
			left = append(left, t)
		}
	}
	if s.waiting[mine.who] = left; len(left) == 0 {
		delete(s.waiting, mine.who)
	}
}

// admit gives places to as many of a tenant's passes as may have one. The caller holds
// mu. When others have stopped writing, the next pass that ends finds out.
func (s *shares) admit(who tenant.ID) {
	for line := s.waiting[who]; len(line) > 0; line = s.waiting[who] {
		if most, limited := s.each(who); limited && s.passes[who] >= most {
			return
		}
		next := line[0]
		if s.waiting[who] = line[1:]; len(line) == 1 {
			delete(s.waiting, who)
		}
		s.passes[who]++
		next.timer = time.AfterFunc(longestTurn, func() { s.end(next) })
		close(next.begun)
	}
}

// placeKey is the key of the end of a pass's place in its context.
type placeKey struct{}

// withPlace is the context of a pass that has a place, which end gives back.
func withPlace(ctx context.Context, end func()) context.Context {
	return context.WithValue(ctx, placeKey{}, end)
}

// giveBack gives back the place of the pass whose context it is, if it has one: it has
// nothing to do for the processors for long.
func giveBack(ctx context.Context) {
	if end, ok := ctx.Value(placeKey{}).(func()); ok {
		end()
	}
}

func (s *shares) end(mine *turn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.over(mine)
}

// over gives a place back, once. The caller holds mu.
func (s *shares) over(mine *turn) {
	if mine.over {
		return
	}
	mine.over = true
	mine.timer.Stop()
	if s.passes[mine.who]--; s.passes[mine.who] == 0 {
		delete(s.passes, mine.who)
	}
	s.admit(mine.who)
}
