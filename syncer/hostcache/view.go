package hostcache

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"k8s.io/client-go/tools/cache"
)

// ErrNotJoined says that a view does not follow the host: not yet, or no more.
var ErrNotJoined = errors.New("the host namespace is not joined")

// phase is what a view does.
type phase int

const (
	apart    phase = iota // nothing: its space is not joined
	looking               // it lists
	watching              // it has listed, and watches
	parked                // the list was empty, and nobody needs more
)

// View is what a syncer sees of one kind in its host namespace. It is read like an
// informer. Objects in it are shared: do not change them.
type View struct {
	kind      Kind
	namespace string
	turns     turns
	indexer   cache.Indexer
	handlers  []cache.ResourceEventHandler // not changed after Join
	while     func() bool                  // not changed after Join

	mu    sync.Mutex
	ctx   context.Context // guarded by mu: of the space; nil unless it is joined
	phase phase           // guarded by mu
	holds int             // guarded by mu
	// ready is closed when what there is is known. Guarded by mu.
	ready chan struct{}
	stop  context.CancelFunc // guarded by mu: of the last reflector
	ended chan struct{}      // guarded by mu: closed when the last reflector has ended
	group sync.WaitGroup     // reflectors; Add only with mu held
}

func newView(k Kind, namespace string, t turns) *View {
	return &View{
		kind: k, namespace: namespace, turns: t, ready: make(chan struct{}),
		indexer: cache.NewIndexer(cache.MetaNamespaceKeyFunc, cache.Indexers{}),
	}
}

// GetStore returns the objects, by namespace/name.
func (v *View) GetStore() cache.Store { return v.indexer }

// GetIndexer returns the objects with their indexes.
func (v *View) GetIndexer() cache.Indexer { return v.indexer }

// AddIndexers adds indexes. It must be called before the space is joined.
func (v *View) AddIndexers(indexers cache.Indexers) error { return v.indexer.AddIndexers(indexers) }

// AddEventHandler has a handler told of what there is, and of every change. Handlers
// are called one after the other, and hold up what follows. It must be called before
// the space is joined.
func (v *View) AddEventHandler(h cache.ResourceEventHandler) (cache.ResourceEventHandlerRegistration, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.ctx != nil {
		return nil, fmt.Errorf("a handler of %s comes too late: the namespace is joined", v.kind.Resource)
	}
	v.handlers = append(v.handlers, h)
	return v, nil
}

// OnlyWhile has the view look at nothing before [View.Want], nor keep anything later
// once needed says no and somebody looks. Whoever makes needed say yes calls Want then.
// It must be called before the space is joined.
func (v *View) OnlyWhile(needed func() bool) { v.while = needed }

// HasSynced says whether handlers were told everything that there is, or that there is
// nothing.
func (v *View) HasSynced() bool { return cache.IsDone(v.HasSyncedChecker()) }

// HasSyncedChecker is HasSynced to be waited for.
func (v *View) HasSyncedChecker() cache.DoneChecker {
	v.mu.Lock()
	defer v.mu.Unlock()
	return done{v.kind.Resource + " in " + v.namespace, v.ready}
}

// done is a cache.DoneChecker.
type done struct {
	name  string
	ready <-chan struct{}
}

func (d done) Name() string          { return d.name }
func (d done) Done() <-chan struct{} { return d.ready }

// Want has a view that is parked look again: somebody has seen an object, or needs it.
func (v *View) Want() {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.ctx != nil && v.phase == parked {
		v.start()
	}
}

// Hold has the view watch until release. It returns once the view knows what there is,
// or with an error when ctx ends before that. Whoever makes an object that the view is
// to see holds it from before until it knows what became of that.
func (v *View) Hold(ctx context.Context) (release func(), err error) {
	v.mu.Lock()
	joined := v.ctx
	if joined == nil {
		v.mu.Unlock()
		return nil, fmt.Errorf("%s in %s: %w", v.kind.Resource, v.namespace, ErrNotJoined)
	}
	v.holds++
	if v.phase == parked {
		v.start()
	}
	ready := v.ready
	v.mu.Unlock()
	release = sync.OnceFunc(v.release)
	select {
	case <-ready:
		return release, nil
	case <-ctx.Done():
		err = context.Cause(ctx)
	case <-joined.Done():
		err = ErrNotJoined
	}
	release()
	return nil, fmt.Errorf("look for %s in %s: %w", v.kind.Resource, v.namespace, err)
}

func (v *View) release() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.holds--
}

// Look has a view that watches, and has no objects, list again, and then end its watch
// if that is still so and nobody holds it.
func (v *View) Look() {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.ctx != nil && v.phase == watching && v.idle(len(v.indexer.ListKeys())) {
		v.stop()
		v.start()
	}
}

// idle says whether the view need not watch, with so many objects. The caller holds mu.
func (v *View) idle(objects int) bool {
	if v.while != nil {
		return v.holds == 0 && !v.while()
	}
	return v.holds == 0 && objects == 0
}

func (v *View) runs() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.phase == looking || v.phase == watching
}

// begin has the view follow the host until ctx ends.
func (v *View) begin(ctx context.Context) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.ctx = ctx
	if v.while == nil || v.while() {
		v.start()
		return
	}
	v.phase = parked
	close(v.ready)
}

// end waits until everything has ended; the context of begin has.
func (v *View) end() {
	v.mu.Lock()
	v.ctx, v.phase = nil, apart
	v.mu.Unlock()
	v.group.Wait()
}

// start runs a reflector, after the last one has ended. The caller holds mu.
func (v *View) start() {
	ctx, cancel := context.WithCancel(v.ctx)
	before, ended := v.ended, make(chan struct{})
	v.phase, v.stop, v.ended = looking, cancel, ended
	if cache.IsDone(done{ready: v.ready}) {
		v.ready = make(chan struct{})
	}
	v.group.Go(func() {
		defer close(ended)
		defer cancel()
		if before != nil {
			<-before
		}
		f := feed{v, cancel, ended}
		cache.NewReflectorWithOptions(inTurn{source{v.kind.Source(v.namespace)}, v.turns}, v.kind.Example, f, cache.ReflectorOptions{
			Name: v.kind.Resource + " in " + v.namespace,
		}).RunWithContext(ctx)
	})
}
