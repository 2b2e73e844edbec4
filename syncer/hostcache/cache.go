package hostcache

import (
	"context"
	"fmt"
	"sync"
)

// Cache is what the syncers of a process know of their host namespaces. Make it with
// New.
type Cache struct {
	mu     sync.Mutex
	joined map[string]*Space // guarded by mu: by namespace
}

// New returns a cache of nothing.
func New() *Cache { return &Cache{joined: map[string]*Space{}} }

// Space returns the part of a namespace, empty until it is joined. Whoever has it sees
// that namespace and no other.
func (c *Cache) Space(namespace string) *Space {
	return &Space{cache: c, namespace: namespace, left: make(chan struct{})}
}

// Stats is what a cache holds.
type Stats struct {
	Namespaces int // that are joined
	Watches    int // that run, or are about to
	Objects    int
}

// Stats counts what the cache holds now.
func (c *Cache) Stats() Stats {
	c.mu.Lock()
	defer c.mu.Unlock()
	all := Stats{Namespaces: len(c.joined)}
	for _, s := range c.joined {
		for _, v := range s.views {
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
}

// View adds a view of a kind. It must be called before Join.
func (s *Space) View(k Kind) *View {
	v := newView(k, s.namespace)
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
	return sync.OnceFunc(func() {
		cancel()
		for _, v := range s.views {
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
