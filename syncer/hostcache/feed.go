package hostcache

import (
	"context"
	"errors"
	"fmt"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	"k8s.io/client-go/tools/cache"
)

// errElsewhere says that the host gave an object of another namespace.
var errElsewhere = errors.New("it is of another namespace")

// feed is where the reflector of a view puts what it reads. It implements
// cache.ReflectorStore.
type feed struct {
	*View
	cancel context.CancelFunc // ends the reflector
	over   chan struct{}      // what ended is as long as no other reflector was started
}

// Add implements cache.ReflectorStore.
func (f feed) Add(o any) error {
	now, err := f.take(o)
	if err != nil {
		return pass(err)
	}
	return f.put(now, false)
}

// Update implements cache.ReflectorStore.
func (f feed) Update(o any) error { return f.Add(o) }

// Delete implements cache.ReflectorStore.
func (f feed) Delete(o any) error {
	last, err := f.take(o)
	if err != nil {
		return pass(err)
	}
	_, there, err := f.indexer.Get(last)
	if err != nil || !there {
		return err
	}
	return f.drop(last)
}

// Resync implements cache.ReflectorStore.
func (f feed) Resync() error { return nil }

// Replace implements cache.ReflectorStore: it brings the view to a list.
func (f feed) Replace(list []any, _ string) error {
	now := map[string]metav1.Object{}
	for _, o := range list {
		taken, err := f.take(o)
		if err != nil {
			return err // nothing of the list is taken
		}
		now[taken.GetName()] = taken
	}
	for _, o := range now {
		if err := f.put(o, true); err != nil {
			return err
		}
	}
	if err := f.keep(now); err != nil {
		return err
	}
	if f.listed(len(now)) {
		return f.keep(nil)
	}
	return nil
}

// keep drops all objects but those of these names.
func (f feed) keep(names map[string]metav1.Object) error {
	for _, o := range f.indexer.List() {
		last, ok := o.(metav1.Object)
		if !ok || names[last.GetName()] != nil {
			continue
		}
		if err := f.drop(last); err != nil {
			return err
		}
	}
	return nil
}

// listed notes that the view knows what there is: so many objects. If nobody needs
// more, the reflector ends, and the view keeps nothing.
func (f feed) listed(objects int) (parks bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.phase == apart || f.over != f.ended {
		return false
	}
	f.phase = watching
	if parks = f.idle(objects); parks {
		f.phase = parked
		f.cancel()
	}
	if !cache.IsDone(done{ready: f.ready}) {
		close(f.ready)
	}
	return parks
}

// pass notes that an object was not taken. The reflector would write all that is in it
// to its log.
func pass(err error) error {
	utilruntime.HandleError(err)
	return nil
}

// take checks and transforms what the reflector read.
func (f feed) take(o any) (metav1.Object, error) {
	if f.kind.Transform != nil {
		var err error
		if o, err = f.kind.Transform(o); err != nil {
			return nil, fmt.Errorf("transform one of %s: %w", f.kind.Resource, err)
		}
	}
	m, err := meta.Accessor(o)
	if err != nil {
		return nil, fmt.Errorf("read one of %s: %w", f.kind.Resource, err)
	}
	if m.GetNamespace() != f.namespace {
		return nil, fmt.Errorf("one of %s in %s: %w", f.kind.Resource, f.namespace, errElsewhere)
	}
	return m, nil
}

// put takes an object into the view, and tells the handlers if it is news.
func (f feed) put(now metav1.Object, initial bool) error {
	before, was, err := f.indexer.Get(now)
	if err != nil {
		return err
	}
	if b, ok := before.(metav1.Object); was && ok && b.GetUID() == now.GetUID() && b.GetResourceVersion() == now.GetResourceVersion() {
		return nil
	}
	if err := f.indexer.Update(now); err != nil {
		return err
	}
	for _, h := range f.handlers {
		if was {
			h.OnUpdate(before, now)
		} else {
			h.OnAdd(now, initial)
		}
	}
	return nil
}

// drop takes an object out of the view.
func (f feed) drop(last metav1.Object) error {
	if err := f.indexer.Delete(last); err != nil {
		return err
	}
	for _, h := range f.handlers {
		h.OnDelete(last)
	}
	return nil
}
