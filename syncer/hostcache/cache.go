package hostcache

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
)

// Cache is what the syncers of a process know of their host namespaces. Make it with
// New.
type Cache struct {
	turns turns

	mu      sync.Mutex
	joined  map[string]*Space // guarded by mu: by namespace
	commons map[place]*common // guarded by mu: those that run
}

// New returns a cache of nothing.
func New() *Cache {
	return &Cache{turns: newTurns(), joined: map[string]*Space{}, commons: map[place]*common{}}
}

// Space returns the part of a namespace, empty until it is joined. Whoever has it sees
// that namespace and no other.
func (c *Cache) Space(namespace string) *Space {
	return &Space{cache: c, namespace: namespace, left: make(chan struct{}), guests: map[*View]struct{}{}}
}

// Stats is what a cache holds.
type Stats struct {
	Namespaces int // that are joined
	Watches    int // of views: that run, or are about to
	Objects    int // of views
	Commons    int // that run
}

// Stats counts what the cache holds now.
func (c *Cache) Stats() Stats {
	c.mu.Lock()
	defer c.mu.Unlock()
	all := Stats{Namespaces: len(c.joined), Commons: len(c.commons)}
	for _, s := range c.joined {
		for _, v := range s.all() {
			all.Objects += len(v.indexer.ListKeys())
			if v.runs() {
				all.Watches++
			}
		}
	}
	return all
}

// Space is one namespace of a Cache.
type Space struct {
	cache     *Cache
	namespace string
	views     []*View // not changed after Join
	left      chan struct{}

	mu     sync.Mutex
	ctx    context.Context    // guarded by mu: nil unless it is joined
	guests map[*View]struct{} // guarded by mu: those that were let in
}

// View adds a view of a kind. It must be called before Join.
func (s *Space) View(k Kind) *View {
	v := newView(k, s.namespace, s.cache.turns)
	s.views = append(s.views, v)
	return v
}

// Join has the views follow the host until leave, which waits until everything has
// ended; it can be called again. A namespace has one space at a time: Join waits until
// another has left. It can be called once.
func (s *Space) Join(ctx context.Context) (leave func(), err error) {
	if err := s.enter(ctx); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	for _, v := range s.views {
		v.begin(ctx)
	}
	s.mu.Lock()
	s.ctx = ctx
	s.mu.Unlock()
	return sync.OnceFunc(func() {
		cancel()
		s.mu.Lock()
		s.ctx = nil
		s.mu.Unlock()
		for _, v := range s.all() {
			v.end()
		}
		s.cache.mu.Lock()
		delete(s.cache.joined, s.namespace)
		s.cache.mu.Unlock()
		close(s.left)
	}), nil
}

// enter takes the namespace's place in the cache.
func (s *Space) enter(ctx context.Context) error {
	for {
		s.cache.mu.Lock()
		other := s.cache.joined[s.namespace]
		if other == nil {
			s.cache.joined[s.namespace] = s
		}
		s.cache.mu.Unlock()
		if other == nil {
			return nil
		}
		select {
		case <-other.left:
		case <-ctx.Done():
			return fmt.Errorf("join host namespace %s: %w", s.namespace, context.Cause(ctx))
		}
	}
}

// all are the views of the space, and the guests.
func (s *Space) all() []*View {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.AppendSeq(slices.Clone(s.views), maps.Keys(s.guests))
}

// Guest returns a view of a kind that comes and goes while the namespace is joined. It is
// nothing until LetIn.
func (s *Space) Guest(k Kind) *View { return newView(k, s.namespace, s.cache.turns) }

// LetIn has a guest follow the host until leave, which waits until it has ended, or until
// the namespace is left. Its handlers and indexes are to be there before. It can be called
// once.
func (s *Space) LetIn(v *View) (leave func(), err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ctx == nil {
		return nil, fmt.Errorf("%s in %s: %w", v.kind.Resource, v.namespace, ErrNotJoined)
	}
	ctx, cancel := context.WithCancel(s.ctx)
	s.guests[v] = struct{}{}
	v.begin(ctx)
	return sync.OnceFunc(func() {
		cancel()
		v.end()
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.guests, v)
	}), nil
}
