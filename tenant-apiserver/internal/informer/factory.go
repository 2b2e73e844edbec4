package informer

import (
	"context"
	"fmt"
	"log/slog"
	"reflect"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apiserver/pkg/storage/value"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/informers/internalinterfaces"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/tools/cache"
)

// Source is the part of an etcd client that informers are fed from.
type Source interface {
	Get(ctx context.Context, key string, opts ...clientv3.OpOption) (*clientv3.GetResponse, error)
	Watch(ctx context.Context, key string, opts ...clientv3.OpOption) clientv3.WatchChan
}

// Kind says how the store holds the objects of a type.
type Kind struct {
	// Prefix is what their keys begin with, "/registry/pods/": the rest of a key is
	// the namespace, a slash and the name, or the name alone.
	Prefix string
	// Decoder turns a value into an object of the type's version, with its defaults.
	Decoder runtime.Decoder
	// Transformer decrypts values; nil when they are as they are.
	Transformer value.Transformer
}

// Config is what a Factory needs. All fields but Transform and Logger are needed.
type Config struct {
	// Source is the control plane's store; Root is what all its keys begin with.
	Source Source
	Root   string
	// Resolve says how a type is stored, and false when it is not.
	Resolve func(schema.GroupVersionKind) (Kind, bool)
	// Client is for informers of what Resolve does not know.
	Client kubernetes.Interface
	// Resync is the period after which handlers get everything again, as updates;
	// 0: never.
	Resync time.Duration
	// Transform is applied to each object before it is kept.
	Transform cache.TransformFunc
	Logger    *slog.Logger
}

// Factory is an informers.SharedInformerFactory over a store.
type Factory struct {
	config Config
	feed   *feed
	cancel context.CancelFunc // ends the feed
	holds  holds

	mu       sync.Mutex
	known    map[reflect.Type]cache.SharedIndexInformer
	started  map[reflect.Type]bool
	shutting bool
	feeding  bool

	informers sync.WaitGroup // started and not stopped
	loop      sync.WaitGroup // the feed's goroutine
}

var _ informers.SharedInformerFactory = (*Factory)(nil)

// New returns a factory; nothing runs before Start. Values of ctx are kept, its
// end is not heeded: informers end with the contexts they are started with.
func New(ctx context.Context, c Config) *Factory {
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	life, cancel := context.WithCancel(context.WithoutCancel(ctx))
	return &Factory{
		config: c, cancel: cancel, feed: newFeed(life, c),
		known: map[reflect.Type]cache.SharedIndexInformer{}, started: map[reflect.Type]bool{},
	}
}

// InformerFor implements informers.SharedInformerFactory.
func (f *Factory) InformerFor(obj runtime.Object, byAPI internalinterfaces.NewInformerFunc) cache.SharedIndexInformer {
	f.mu.Lock()
	defer f.mu.Unlock()
	of := reflect.TypeOf(obj)
	if i, ok := f.known[of]; ok {
		return i
	}
	i := f.construct(obj, byAPI)
	f.known[of] = i
	return i
}

func (f *Factory) construct(obj runtime.Object, byAPI internalinterfaces.NewInformerFunc) cache.SharedIndexInformer {
	if gvk, ok := kindOf(obj); ok {
		if kind, ok := f.config.Resolve(gvk); ok {
			return newInformer(f, gvk, kind)
		}
	}
	i := byAPI(f.config.Client, f.config.Resync)
	if f.config.Transform != nil {
		// It fails only once an informer runs.
		_ = i.SetTransform(f.config.Transform)
	}
	return i
}

// kindOf returns the kind that client-go's scheme knows the type of obj by.
func kindOf(obj runtime.Object) (schema.GroupVersionKind, bool) {
	gvks, _, err := scheme.Scheme.ObjectKinds(obj)
	if err != nil || len(gvks) == 0 {
		return schema.GroupVersionKind{}, false
	}
	return gvks[0], true
}

// InformerName implements informers.SharedInformerFactory: informers of tenants
// have no metrics of their own.
func (f *Factory) InformerName() *cache.InformerName { return nil }

// Start implements informers.SharedInformerFactory.
func (f *Factory) Start(stopCh <-chan struct{}) {
	f.StartWithContext(wait.ContextForChannel(stopCh))
}

// StartWithContext implements informers.SharedInformerFactory.
func (f *Factory) StartWithContext(ctx context.Context) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.shutting {
		return
	}
	var own []*Informer
	for of, i := range f.known {
		if f.started[of] {
			continue
		}
		f.started[of] = true
		f.informers.Add(1)
		if mine, ok := i.(*Informer); ok {
			own = append(own, mine)
			continue
		}
		go func() {
			defer f.informers.Done()
			i.RunWithContext(ctx)
		}()
	}
	f.begin(ctx, own)
}

// begin starts informers that end together, with one waiter for all of them.
func (f *Factory) begin(ctx context.Context, own []*Informer) {
	if len(own) == 0 {
		return
	}
	f.runFeed()
	for _, i := range own {
		i.begin()
	}
	context.AfterFunc(ctx, func() {
		for _, i := range own {
			i.end()
			f.informers.Done()
		}
	})
}

// runFeed runs the feed, once. The caller holds mu.
func (f *Factory) runFeed() {
	if !f.feeding {
		f.feeding = true
		f.loop.Go(f.feed.run)
	}
}

// Shutdown implements informers.SharedInformerFactory.
func (f *Factory) Shutdown() {
	f.mu.Lock()
	f.shutting = true
	f.mu.Unlock()
	f.informers.Wait()
	f.cancel()
	f.loop.Wait()
	f.feed.listeners.Wait()
}

// WaitForCacheSync implements informers.SharedInformerFactory.
func (f *Factory) WaitForCacheSync(stopCh <-chan struct{}) map[reflect.Type]bool {
	return f.WaitForCacheSyncWithContext(wait.ContextForChannel(stopCh)).Synced
}

// WaitForCacheSyncWithContext implements informers.SharedInformerFactory.
func (f *Factory) WaitForCacheSyncWithContext(ctx context.Context) cache.SyncResult {
	result := cache.SyncResult{Synced: map[reflect.Type]bool{}}
	for of, i := range f.running() {
		select {
		case <-i.HasSyncedChecker().Done():
		case <-ctx.Done():
		}
		result.Synced[of] = i.HasSynced()
		if !result.Synced[of] {
			result.Err = context.Cause(ctx)
		}
	}
	return result
}

func (f *Factory) running() map[reflect.Type]cache.SharedIndexInformer {
	f.mu.Lock()
	defer f.mu.Unlock()
	running := map[reflect.Type]cache.SharedIndexInformer{}
	for of, i := range f.known {
		if f.started[of] {
			running[of] = i
		}
	}
	return running
}

// ForResource implements informers.SharedInformerFactory: for the built-in
// resources that Resolve knows.
func (f *Factory) ForResource(resource schema.GroupVersionResource) (informers.GenericInformer, error) {
	gvk, ok := builtIn()[resource]
	if !ok {
		return nil, fmt.Errorf("no informer found for %v", resource)
	}
	if _, ok := f.config.Resolve(gvk); !ok {
		return nil, fmt.Errorf("no informer found for %v: the store does not hold it", resource)
	}
	obj, err := scheme.Scheme.New(gvk)
	if err != nil {
		return nil, fmt.Errorf("informer for %v: %w", resource, err)
	}
	return generic{f.InformerFor(obj, nil), resource.GroupResource()}, nil
}

// generic is an informers.GenericInformer.
type generic struct {
	informer cache.SharedIndexInformer
	resource schema.GroupResource
}

func (g generic) Informer() cache.SharedIndexInformer { return g.informer }

func (g generic) Lister() cache.GenericLister {
	return cache.NewGenericLister(g.informer.GetIndexer(), g.resource)
}
