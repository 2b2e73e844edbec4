package informer

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/tools/cache"
)

var errStarted = errors.New("informer has already started")

// Informer is the cache.SharedIndexInformer of one type.
type Informer struct {
	factory *Factory
	gvk     schema.GroupVersionKind
	kind    Kind
	indexer cache.Indexer

	// mu keeps the cache and what handlers are told in one order.
	mu        sync.Mutex
	listeners map[*listener]struct{}
	transform cache.TransformFunc
	onError   cache.WatchErrorHandlerWithContext
	started   bool
	stopped   bool
	version   int64 // the revision that the cache is at
	listed    int64 // the revision of the last list; changes up to it are in it
	synced    chan struct{}
}

var _ cache.SharedIndexInformer = (*Informer)(nil)

func newInformer(f *Factory, gvk schema.GroupVersionKind, kind Kind) *Informer {
	return &Informer{
		factory: f, gvk: gvk, kind: kind, transform: f.config.Transform,
		indexer: cache.NewIndexer(cache.DeletionHandlingMetaNamespaceKeyFunc,
			cache.Indexers{cache.NamespaceIndex: cache.MetaNamespaceIndexFunc}),
		listeners: map[*listener]struct{}{}, synced: make(chan struct{}),
	}
}

// begin joins the feed, which lists. The feed runs.
func (i *Informer) begin() {
	i.mu.Lock()
	i.started = true
	i.mu.Unlock()
	i.factory.feed.join(i)
}

// end leaves the feed. Handlers still get what was queued.
func (i *Informer) end() {
	i.factory.feed.leave(i)
	i.mu.Lock()
	defer i.mu.Unlock()
	i.stopped = true
	for l := range i.listeners {
		l.quiet()
	}
}

// Run implements cache.SharedInformer.
func (i *Informer) Run(stopCh <-chan struct{}) { i.RunWithContext(wait.ContextForChannel(stopCh)) }

// RunWithContext implements cache.SharedInformer, for informers that are not
// started by their factory.
func (i *Informer) RunWithContext(ctx context.Context) {
	i.mu.Lock()
	again := i.started
	i.started = true
	i.mu.Unlock()
	if again {
		i.factory.config.Logger.Warn("an informer was started twice", "kind", i.gvk)
		return
	}
	i.factory.mu.Lock()
	if i.factory.shutting {
		i.factory.mu.Unlock()
		return
	}
	i.factory.informers.Add(1)
	i.factory.runFeed()
	i.factory.mu.Unlock()
	defer i.factory.informers.Done()
	i.begin()
	<-ctx.Done()
	i.end()
}

// AddEventHandler implements cache.SharedInformer.
func (i *Informer) AddEventHandler(h cache.ResourceEventHandler) (cache.ResourceEventHandlerRegistration, error) {
	return i.AddEventHandlerWithOptions(h, cache.HandlerOptions{})
}

// AddEventHandlerWithResyncPeriod implements cache.SharedInformer.
func (i *Informer) AddEventHandlerWithResyncPeriod(h cache.ResourceEventHandler, resync time.Duration) (cache.ResourceEventHandlerRegistration, error) {
	return i.AddEventHandlerWithOptions(h, cache.HandlerOptions{ResyncPeriod: &resync})
}

// AddEventHandlerWithOptions implements cache.SharedInformer.
func (i *Informer) AddEventHandlerWithOptions(h cache.ResourceEventHandler, o cache.HandlerOptions) (cache.ResourceEventHandlerRegistration, error) {
	resync := i.factory.config.Resync
	if o.ResyncPeriod != nil {
		resync = *o.ResyncPeriod
	}
	l := newListener(h, i.gvk.Kind, resync, &i.factory.feed.listeners)
	i.factory.holds.add(l)
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.stopped {
		return nil, fmt.Errorf("handler %v was not added to the informer of %s because it has stopped", h, i.gvk.Kind)
	}
	i.listeners[l] = struct{}{}
	if i.isSynced() {
		i.prime(l)
	}
	return l, nil
}

// prime tells a handler what is there. The caller holds mu.
func (i *Informer) prime(l *listener) {
	keys := i.indexer.ListKeys()
	ns := make([]notification, 0, len(keys))
	for _, key := range keys {
		if obj, ok, err := i.indexer.GetByKey(key); ok && err == nil {
			ns = append(ns, notification{change: added, key: key, new: obj, initial: true})
		}
	}
	l.add(ns...)
	l.prime()
	if l.resync > 0 {
		l.repeat(func() { i.resyncOne(l) })
	}
}

// resyncOne tells a handler of everything again, as an update of nothing.
func (i *Informer) resyncOne(l *listener) {
	i.mu.Lock()
	defer i.mu.Unlock()
	for _, key := range i.indexer.ListKeys() {
		if obj, ok, err := i.indexer.GetByKey(key); ok && err == nil {
			l.add(notification{change: updated, key: key, old: obj, new: obj})
		}
	}
	l.repeat(func() { i.resyncOne(l) })
}

// RemoveEventHandler implements cache.SharedInformer.
func (i *Informer) RemoveEventHandler(handle cache.ResourceEventHandlerRegistration) error {
	l, ok := handle.(*listener)
	if !ok {
		return fmt.Errorf("the handle %T is not of this informer", handle)
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	delete(i.listeners, l)
	l.remove()
	return nil
}

// GetStore implements cache.SharedInformer.
func (i *Informer) GetStore() cache.Store { return i.indexer }

// GetIndexer implements cache.SharedIndexInformer.
func (i *Informer) GetIndexer() cache.Indexer { return i.indexer }

// AddIndexers implements cache.SharedIndexInformer.
func (i *Informer) AddIndexers(indexers cache.Indexers) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.stopped {
		return errors.New("indexers can't be added to an informer that has stopped")
	}
	return i.indexer.AddIndexers(indexers)
}

// GetController implements cache.SharedInformer; it is deprecated upstream.
func (i *Informer) GetController() cache.Controller { return controller{i} }

// controller is what is left of an informer's controller upstream.
type controller struct{ *Informer }

func (controller) RunWithContext(context.Context) {}
func (controller) Run(<-chan struct{})            {}

func (i *Informer) isSynced() bool { return cache.IsDone(i.HasSyncedChecker()) }

// HasSynced implements cache.SharedInformer.
func (i *Informer) HasSynced() bool { return i.isSynced() }

// HasSyncedChecker implements cache.SharedInformer.
func (i *Informer) HasSyncedChecker() cache.DoneChecker {
	return done{"informer of " + i.gvk.Kind, i.synced}
}

// LastSyncResourceVersion implements cache.SharedInformer.
func (i *Informer) LastSyncResourceVersion() string {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.version == 0 {
		return ""
	}
	return strconv.FormatInt(i.version, 10)
}

// SetWatchErrorHandler implements cache.SharedInformer.
func (i *Informer) SetWatchErrorHandler(h cache.WatchErrorHandler) error {
	return i.SetWatchErrorHandlerWithContext(func(_ context.Context, r *cache.Reflector, err error) { h(r, err) })
}

// SetWatchErrorHandlerWithContext implements cache.SharedInformer. There is no
// reflector here: the handler gets an empty one.
func (i *Informer) SetWatchErrorHandlerWithContext(h cache.WatchErrorHandlerWithContext) error {
	return i.beforeStart(func() { i.onError = h })
}

// SetTransform implements cache.SharedInformer.
func (i *Informer) SetTransform(t cache.TransformFunc) error {
	return i.beforeStart(func() { i.transform = t })
}

func (i *Informer) beforeStart(set func()) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.started {
		return errStarted
	}
	set()
	return nil
}

// IsStopped implements cache.SharedInformer.
func (i *Informer) IsStopped() bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.stopped
}
