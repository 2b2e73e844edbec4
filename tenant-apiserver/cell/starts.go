package cell

import (
	"context"
	"fmt"
	"slices"
	"sync"
)

// starts says who may start a control plane now. That is mostly computing: more at a
// time makes none faster. A tenant to whom somebody wants to speak comes before those
// to whom nobody does.
type starts struct {
	mu    sync.Mutex
	most  int             // how many may start at a time
	free  int             // how many more may start; guarded by mu
	queue []*starter      // who waits, in the order in which they came; guarded by mu
	calm  []chan struct{} // closed when nobody starts; guarded by mu
}

// starter is a tenant that waits for its turn.
type starter struct {
	turn   chan struct{} // closed when it has come
	wanted func() bool   // whether somebody waits for the tenant
}

func newStarts(most int) *starts { return &starts{most: most, free: most} }

// settle waits until nobody starts or waits for a turn.
func (s *starts) settle(ctx context.Context) error {
	calm := make(chan struct{})
	s.mu.Lock()
	s.calm = append(s.calm, calm)
	s.next()
	s.mu.Unlock()
	select {
	case <-calm:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("wait until all tenants have started: %w", context.Cause(ctx))
	}
}

// enter waits for a turn. wanted is asked whenever one is given away.
func (s *starts) enter(ctx context.Context, wanted func() bool) (leave func(), err error) {
	me := &starter{make(chan struct{}), wanted}
	s.mu.Lock()
	s.queue = append(s.queue, me)
	s.next()
	s.mu.Unlock()
	select {
	case <-me.turn:
		return s.leave, nil
	case <-ctx.Done():
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if i := slices.Index(s.queue, me); i >= 0 {
		s.queue = slices.Delete(s.queue, i, i+1)
	} else { // its turn came at the same time
		s.free++
		s.next()
	}
	return nil, fmt.Errorf("wait for other tenants' starts: %w", context.Cause(ctx))
}

func (s *starts) leave() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.free++
	s.next()
}

// next gives away the turns that are free, and tells who waits for nobody to have one.
// The caller must hold mu.
func (s *starts) next() {
	for ; s.free > 0 && len(s.queue) > 0; s.free-- {
		i := max(slices.IndexFunc(s.queue, func(w *starter) bool { return w.wanted() }), 0)
		close(s.queue[i].turn)
		s.queue = slices.Delete(s.queue, i, i+1)
	}
	if s.free == s.most {
		for _, calm := range s.calm {
			close(calm)
		}
		s.calm = nil
	}
}
