package hostcache

import (
	"context"
	"fmt"
	"sync"

	"k8s.io/client-go/tools/cache"
)

// place is a kind in a namespace of the host, or of all of it ("").
type place struct{ kind, namespace string }

// common is the informer of a place, while somebody has it.
type common struct {
	shared *Shared
	users  int    // guarded by the cache's mu
	stop   func() // waits until it has ended
}

// Common is a kind in a place of the host that is no tenant's: what some tenants are
// shown of it. Whoever has the same has one informer together, and is told of all that is
// there: which of it a tenant sees, its syncer decides. Objects in it are shared: do not
// change them.
type Common struct {
	shared *Shared
	leave  func()

	mu      sync.Mutex
	handles []cache.ResourceEventHandlerRegistration // guarded by mu
}

// Common returns a kind in a namespace of the host, or without one (""). It is followed
// from the first who asks for it until the last has left. Kinds with the same Resource
// are the same.
func (c *Cache) Common(ctx context.Context, k Kind, namespace string) (*Common, error) {
	at := place{k.Resource, namespace}
	c.mu.Lock()
	defer c.mu.Unlock()
	one := c.commons[at]
	if one == nil {
		var err error
		if one, err = startCommon(context.WithoutCancel(ctx), k, namespace); err != nil {
			return nil, fmt.Errorf("%s in %q of the host: %w", k.Resource, namespace, err)
		}
		c.commons[at] = one
	}
	one.users++
	return &Common{shared: one.shared, leave: sync.OnceFunc(func() { c.leaveCommon(at, one) })}, nil
}

func startCommon(ctx context.Context, k Kind, namespace string) (*common, error) {
	informer := cache.NewSharedIndexInformer(source{k.Source(namespace)}, k.Example, 0, cache.Indexers{})
	if err := informer.SetTransform(k.Transform); err != nil {
		return nil, err
	}
	shared, err := Share(informer)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	var group sync.WaitGroup
	group.Go(func() { informer.RunWithContext(ctx) })
	return &common{shared: shared, stop: func() { cancel(); group.Wait() }}, nil
}

// leaveCommon ends an informer that nobody has any more.
func (c *Cache) leaveCommon(at place, one *common) {
	c.mu.Lock()
	one.users--
	last := one.users == 0
	if last {
		delete(c.commons, at)
	}
	c.mu.Unlock()
	if last {
		one.stop()
	}
}

// GetStore returns the objects, by namespace/name, or by name.
func (m *Common) GetStore() cache.Store { return m.shared.GetStore() }

// AddEventHandler has a handler told of what there is, and of every change, until Leave.
func (m *Common) AddEventHandler(h cache.ResourceEventHandler) (cache.ResourceEventHandlerRegistration, error) {
	handle, err := m.shared.AddEventHandler(h)
	if err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.handles = append(m.handles, handle)
	return handle, nil
}

// Leave lets go of it. No handler is called any more when it returns, and what followed
// the host has ended, if nobody else has it. It can be called again.
func (m *Common) Leave() {
	m.mu.Lock()
	handles := m.handles
	m.handles = nil
	m.mu.Unlock()
	for _, handle := range handles {
		_ = m.shared.RemoveEventHandler(handle) // it fails for handles of others
	}
	m.leave()
}
