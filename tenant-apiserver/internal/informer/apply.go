package informer

import (
	"context"
	"fmt"
	"strconv"

	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/storage/value"
	"k8s.io/client-go/tools/cache"
)

// replace makes the cache what a list at rev says, and tells handlers the
// difference. Objects that went unseen are told as cache.DeletedFinalStateUnknown.
func (i *Informer) replace(ctx context.Context, entries []entry, rev int64) {
	objects := make(map[string]any, len(entries))
	for _, e := range entries {
		obj, err := i.decode(ctx, e)
		if err != nil {
			i.failed(ctx, err)
			continue
		}
		objects[i.kind.name(e.key)] = obj
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.stopped {
		return
	}
	first := !i.isSynced()
	i.listed, i.version = rev, rev
	for _, key := range i.indexer.ListKeys() {
		if _, ok := objects[key]; !ok {
			i.forget(key, func(obj any) any { return cache.DeletedFinalStateUnknown{Key: key, Obj: obj} })
		}
	}
	for key, obj := range objects {
		i.keep(key, obj, !first)
	}
	i.indexer.Bookmark(strconv.FormatInt(rev, 10))
	if first {
		close(i.synced)
		for l := range i.listeners {
			i.prime(l)
		}
	}
}

// apply makes one change of the store in the cache, unless the list had it.
func (i *Informer) apply(ctx context.Context, e entry, gone bool) {
	var obj any
	if !gone {
		var err error
		if obj, err = i.decode(ctx, e); err != nil {
			i.failed(ctx, err)
			return
		}
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.stopped || e.rev <= i.listed {
		return
	}
	i.version = e.rev
	key := i.kind.name(e.key)
	if gone {
		i.forget(key, func(obj any) any { return at(obj, e.rev) })
		i.indexer.Bookmark(strconv.FormatInt(e.rev, 10))
		return
	}
	i.keep(key, obj, true)
}

// keep puts an object into the cache and tells handlers. The caller holds mu.
func (i *Informer) keep(key string, obj any, tell bool) {
	old, there, err := i.indexer.GetByKey(key)
	if err == nil && there {
		err = i.indexer.Update(obj)
	} else if err == nil {
		err = i.indexer.Add(obj)
	}
	if err != nil {
		i.factory.config.Logger.Error("an informer cannot keep an object", "kind", i.gvk, "key", key, "error", err)
		return
	}
	n := notification{change: added, key: key, new: obj}
	if there {
		n.change, n.old = updated, old
	}
	if tell && !(there && sameVersion(old, obj)) {
		i.tell(n)
	}
}

// sameVersion says that two states of an object are one.
func sameVersion(a, b any) bool {
	x, err := meta.Accessor(a)
	if err != nil {
		return false
	}
	y, err := meta.Accessor(b)
	return err == nil && x.GetResourceVersion() == y.GetResourceVersion() && x.GetUID() == y.GetUID()
}

// forget removes an object from the cache and tells handlers what final makes of
// its last state. The caller holds mu.
func (i *Informer) forget(key string, final func(any) any) {
	old, there, err := i.indexer.GetByKey(key)
	if err != nil || !there {
		return
	}
	if err := i.indexer.Delete(old); err != nil {
		i.factory.config.Logger.Error("an informer cannot remove an object", "kind", i.gvk, "key", key, "error", err)
		return
	}
	i.tell(notification{change: deleted, key: key, old: final(old)})
}

func (i *Informer) tell(n notification) {
	for l := range i.listeners {
		l.add(n)
	}
}

// at returns obj as it is known, at the revision at which it is gone.
func at(obj any, rev int64) any {
	object, ok := obj.(runtime.Object)
	if !ok {
		return obj
	}
	copied := object.DeepCopyObject()
	if accessor, err := meta.Accessor(copied); err == nil {
		accessor.SetResourceVersion(strconv.FormatInt(rev, 10))
	}
	return copied
}

// decode turns what the store holds into an object as a client gets it.
func (i *Informer) decode(ctx context.Context, e entry) (any, error) {
	data := e.value
	if t := i.kind.Transformer; t != nil {
		var err error
		if data, _, err = t.TransformFromStorage(ctx, data, value.DefaultContext(e.key)); err != nil {
			return nil, fmt.Errorf("decrypt %s: %w", e.key, err)
		}
	}
	obj, err := runtime.Decode(i.kind.Decoder, data)
	if err != nil {
		return nil, fmt.Errorf("decode %s: %w", e.key, err)
	}
	accessor, err := meta.Accessor(obj)
	if err != nil {
		return nil, fmt.Errorf("decode %s: %w", e.key, err)
	}
	accessor.SetResourceVersion(strconv.FormatInt(e.rev, 10))
	// Typed clients do not fill it in either.
	obj.GetObjectKind().SetGroupVersionKind(schema.GroupVersionKind{})
	if i.transform == nil {
		return obj, nil
	}
	transformed, err := i.transform(obj)
	if err != nil {
		return nil, fmt.Errorf("transform %s: %w", e.key, err)
	}
	return transformed, nil
}

// failed tells the error handler, or the log, that the store could not be read.
func (i *Informer) failed(ctx context.Context, err error) {
	i.mu.Lock()
	h := i.onError
	i.mu.Unlock()
	if h != nil {
		h(ctx, &cache.Reflector{}, err)
		return
	}
	i.factory.config.Logger.Warn("an informer cannot read the store", "kind", i.gvk, "error", err)
}
