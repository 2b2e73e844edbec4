package engine

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/utils/clock"

	"sublet.dev/isolation/tenant"
)

// The pace of retries: quick at first, because most failures are a cache that lags
// behind by milliseconds, and bounded, because a pod that the host refuses must be
// taken up soon after room was made.
const (
	firstRetry = 5 * time.Millisecond
	lastRetry  = 30 * time.Second
)

// defaultWorkers is how many keys are worked on at a time for one tenant. Passes
// mostly wait for the host's API, so it is more than the processors of a machine
// with hundreds of tenants would suggest; it is enough for a burst of writes.
const defaultWorkers = 8

// ErrPanic says that a pass fell over; it is a defect of ours.
var ErrPanic = errors.New("the pass panicked")

// Key names one thing to bring in step: an object, by the tenant's name for it, and
// the pass that does it.
type Key struct {
	Kind string
	Name tenant.Name
}

// Pass brings one kind in step.
type Pass interface {
	// Kind names the pass in keys and logs.
	Kind() string
	// Reconcile looks at both sides and does the next write, if any. It is called
	// again when again has passed (0: only when something changed) or, after an
	// error, with back-off. It must be idempotent.
	Reconcile(ctx context.Context, name tenant.Name) (again time.Duration, err error)
}

// Config is what an engine is made of.
type Config struct {
	Passes  []Pass
	Workers int                  // 0: a default
	Clock   clock.WithTicker     // nil: the real one
	Logger  *slog.Logger         // required
	OnError func(k Key, e error) // told of each failed pass; may be nil
	// OnInspected is told of each key that Inspect queued, once it was passed, and how
	// many writes that took: none, if all was as it must be. It may be nil.
	OnInspected func(k Key, writes int64)
	// Budget has the passes of Tenant take turns with those of other tenants; nil: there
	// is nobody else.
	Budget *Budget
	Tenant tenant.ID
	// Prompt kinds have most turns; patient ones are worked on when there is nothing
	// else to do, and now and then.
	Prompt, Patient []string
}

// Engine runs passes. Make it with New.
type Engine struct {
	config Config
	queue  workqueue.TypedRateLimitingInterface[Key]
	ledger *ledger

	mu     sync.Mutex
	passes map[string]Pass        // guarded by mu: by kind
	synced []cache.InformerSynced // guarded by mu
}

// New returns an engine that does not run yet.
func New(c Config) *Engine {
	if c.Workers <= 0 {
		c.Workers = defaultWorkers
	}
	if c.Clock == nil {
		c.Clock = clock.RealClock{}
	}
	e := &Engine{config: c, passes: map[string]Pass{}, ledger: newLedger()}
	for _, p := range c.Passes {
		e.passes[p.Kind()] = p
	}
	e.queue = workqueue.NewTypedRateLimitingQueueWithConfig(
		workqueue.NewTypedItemExponentialFailureRateLimiter[Key](firstRetry, lastRetry),
		workqueue.TypedRateLimitingQueueConfig[Key]{Clock: c.Clock, DelayingQueue: newQueue(c)})
	return e
}

// Put adds a pass, in the place of one of the same kind. It may be called at any time.
func (e *Engine) Put(p Pass) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.passes[p.Kind()] = p
}

// Drop takes a pass away; keys of its kind are then nobody's. One that works ends by
// itself.
func (e *Engine) Drop(kind string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.passes, kind)
}

func (e *Engine) pass(kind string) (Pass, bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	p, ok := e.passes[kind]
	return p, ok
}

// newQueue returns a queue in which kinds take turns.
func newQueue(c Config) workqueue.TypedDelayingInterface[Key] {
	sorts := map[string]sort{}
	for _, kind := range c.Prompt {
		sorts[kind] = prompt
	}
	for _, kind := range c.Patient {
		sorts[kind] = patient
	}
	return workqueue.NewTypedDelayingQueueWithConfig(workqueue.TypedDelayingQueueConfig[Key]{
		Clock: c.Clock, Queue: workqueue.NewTypedWithConfig(workqueue.TypedQueueConfig[Key]{Clock: c.Clock, Queue: newLines(sorts)}),
	})
}

// Add queues keys.
func (e *Engine) Add(keys ...Key) {
	e.ledger.added(e.config.Clock.Now(), keys)
	for _, k := range keys {
		e.queue.Add(k)
	}
}

// Inspect queues a key to be compared, unless it is under way anyway.
func (e *Engine) Inspect(k Key) {
	if e.ledger.inspect(k) {
		e.queue.Add(k)
	}
}

// Informer reports objects.
type Informer interface {
	AddEventHandler(cache.ResourceEventHandler) (cache.ResourceEventHandlerRegistration, error)
}

// Watch queues keys(object) for every object that the informer reports; for an
// update the keys of the old object too. mark, which may be nil, notes what was
// queued. Watch must be called before Run.
func (e *Engine) Watch(informer Informer, mark *Mark, keys func(object any) []Key) error {
	return e.WatchChanges(informer, mark, keys, func(before, now any) []Key { return append(keys(before), keys(now)...) })
}

// WatchChanges is Watch for objects of which it matters what changed: for an update
// it queues what changed says.
func (e *Engine) WatchChanges(informer Informer, mark *Mark, keys func(object any) []Key, changed func(before, now any) []Key) error {
	registration, err := informer.AddEventHandler(e.handler(mark, keys, changed))
	if err != nil {
		return fmt.Errorf("watch: %w", err)
	}
	e.waitFor(registration.HasSynced)
	return nil
}

// Follow is Watch for an informer that outlasts the engine: leave ends it.
func (e *Engine) Follow(informer cache.SharedInformer, keys func(object any) []Key) (leave func(), err error) {
	registration, err := informer.AddEventHandler(e.handler(nil, keys, func(before, now any) []Key { return append(keys(before), keys(now)...) }))
	if err != nil {
		return nil, fmt.Errorf("follow: %w", err)
	}
	e.waitFor(registration.HasSynced)
	return func() { _ = informer.RemoveEventHandler(registration) }, nil // it fails for what is removed already
}

// Listen is Watch for an informer that comes and goes while the engine works: Run
// and Rest do not wait for it. A pass must not decide before has is true.
func (e *Engine) Listen(informer Informer, keys func(object any) []Key) (has cache.InformerSynced, err error) {
	registration, err := informer.AddEventHandler(e.handler(nil, keys, func(before, now any) []Key { return append(keys(before), keys(now)...) }))
	if err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	return registration.HasSynced, nil
}

func (e *Engine) waitFor(synced cache.InformerSynced) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.synced = append(e.synced, synced)
}

func (e *Engine) sources() []cache.InformerSynced {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Clone(e.synced)
}

func (e *Engine) handler(mark *Mark, keys func(object any) []Key, changed func(before, now any) []Key) cache.ResourceEventHandler {
	return cache.ResourceEventHandlerFuncs{
		AddFunc: func(o any) {
			e.Add(keys(o)...)
			mark.note(o, 1)
		},
		UpdateFunc: func(before, now any) {
			e.Add(changed(before, now)...)
			mark.note(now, 0)
		},
		DeleteFunc: func(o any) {
			if last, ok := o.(cache.DeletedFinalStateUnknown); ok {
				o = last.Obj
			}
			e.Add(keys(o)...)
			mark.note(o, -1)
		},
	}
}

// Run works until ctx ends, after all watched informers have delivered what there
// was; nothing is decided on half a picture. The informers are run by the caller.
// It returns when every worker has ended.
func (e *Engine) Run(ctx context.Context) error {
	defer e.queue.ShutDown()
	if !cache.WaitForCacheSync(ctx.Done(), e.sources()...) {
		return nil // ctx ended: the only reason not to sync
	}
	var workers sync.WaitGroup
	for range e.config.Workers {
		workers.Go(func() {
			for e.next(ctx) {
			}
		})
	}
	<-ctx.Done()
	e.queue.ShutDown()
	workers.Wait()
	return nil
}

// next works on one key; false when the queue is shut down.
func (e *Engine) next(ctx context.Context) bool {
	key, shutdown := e.queue.Get()
	if shutdown {
		return false
	}
	defer e.queue.Done(key)
	inspected := e.ledger.begin(key)
	pass, ok := e.pass(key.Kind)
	if !ok { // it was dropped
		e.ledger.end(key, e.config.Clock.Now(), 0, nil)
		e.queue.Forget(key)
		return true
	}
	counting, written := countWrites(ctx)
	again, err := e.turn(counting, pass, key.Name)
	e.ledger.end(key, e.config.Clock.Now(), again, err)
	if inspected && e.config.OnInspected != nil {
		e.config.OnInspected(key, written.Load())
	}
	switch {
	case ctx.Err() != nil:
	case err != nil:
		e.report(ctx, key, err)
		e.queue.AddRateLimited(key)
	default:
		e.queue.Forget(key)
		if again > 0 {
			e.queue.AddAfter(key, again)
		}
	}
	return true
}

// turn has a pass work when it is its tenant's turn.
func (e *Engine) turn(ctx context.Context, pass Pass, name tenant.Name) (time.Duration, error) {
	if e.config.Budget == nil {
		return guarded(ctx, pass, name)
	}
	end, err := e.config.Budget.shares.begin(ctx, e.config.Tenant)
	if err != nil {
		return 0, fmt.Errorf("wait for other tenants: %w", err)
	}
	defer end()
	return guarded(withPlace(ctx, end), pass, name)
}

// guarded makes an error of a panic: an object on which a pass falls over must not
// end the process, which does other tenants' work too. It is tried again like
// everything that fails.
func guarded(ctx context.Context, pass Pass, name tenant.Name) (again time.Duration, err error) {
	defer func() {
		if p := recover(); p != nil {
			again, err = 0, fmt.Errorf("%w: %v\n%s", ErrPanic, p, debug.Stack())
		}
	}()
	return pass.Reconcile(ctx, name)
}

// report logs a failure: quietly when it is only a lost race that a retry settles.
func (e *Engine) report(ctx context.Context, key Key, err error) {
	level := slog.LevelWarn
	if apierrors.IsConflict(err) || errors.Is(err, ErrUnseen) {
		level = slog.LevelDebug
	}
	e.config.Logger.Log(ctx, level, "out of step, will retry",
		"kind", key.Kind, "namespace", key.Name.Namespace, "name", key.Name.Name, "error", err)
	if e.config.OnError != nil {
		e.config.OnError(key, err)
	}
}
