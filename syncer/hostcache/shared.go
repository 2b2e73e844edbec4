package hostcache

import (
	"fmt"
	"sync"

	"k8s.io/client-go/tools/cache"
)

// Shared is an informer of what all syncers of a process see alike: nodes, classes. Its
// handlers come and go with syncers, so they have no goroutines and no buffers of their
// own: one handler of the informer calls them one after the other.
type Shared struct {
	cache.SharedIndexInformer
	registration cache.ResourceEventHandlerRegistration

	mu        sync.Mutex
	followers map[*follower]struct{} // guarded by mu
}

// follower is a handler of a Shared.
type follower struct {
	cache.ResourceEventHandlerRegistration
	handler cache.ResourceEventHandler
}

// Share returns the informer with handlers that share one.
func Share(informer cache.SharedIndexInformer) (*Shared, error) {
	s := &Shared{SharedIndexInformer: informer, followers: map[*follower]struct{}{}}
	var err error
	s.registration, err = informer.AddEventHandler(cache.ResourceEventHandlerDetailedFuncs{
		AddFunc:    func(o any, initial bool) { s.each(func(h cache.ResourceEventHandler) { h.OnAdd(o, initial) }) },
		UpdateFunc: func(before, now any) { s.each(func(h cache.ResourceEventHandler) { h.OnUpdate(before, now) }) },
		DeleteFunc: func(o any) { s.each(func(h cache.ResourceEventHandler) { h.OnDelete(o) }) },
	})
	return s, err
}

func (s *Shared) each(tell func(cache.ResourceEventHandler)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for f := range s.followers {
		tell(f.handler)
	}
}

// AddEventHandler implements cache.SharedInformer: the handler is told what there is
// before it returns. What is new at that moment it may be told twice.
func (s *Shared) AddEventHandler(h cache.ResourceEventHandler) (cache.ResourceEventHandlerRegistration, error) {
	f := &follower{s.registration, h}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.followers[f] = struct{}{}
	for _, o := range s.GetStore().List() {
		h.OnAdd(o, true)
	}
	return f, nil
}

// RemoveEventHandler implements cache.SharedInformer: the handler is not called any more
// when it returns.
func (s *Shared) RemoveEventHandler(handle cache.ResourceEventHandlerRegistration) error {
	f, ok := handle.(*follower)
	if !ok {
		return fmt.Errorf("the handle %T is not of this informer", handle)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.followers, f)
	return nil
}
