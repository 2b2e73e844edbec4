package engine

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
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
// with hundreds of tenants would suggest.
const defaultWorkers = 4

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
}

// Engine runs passes. Make it with New.
type Engine struct {
	config Config
	passes map[string]Pass
	queue  workqueue.TypedRateLimitingInterface[Key]
	synced []cache.InformerSynced
	ledger *ledger
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
		workqueue.TypedRateLimitingQueueConfig[Key]{Clock: c.Clock})
	return e
}

// Add queues keys.
func (e *Engine) Add(keys ...Key) {
	e.ledger.added(e.config.Clock.Now(), keys)
	for _, k := range keys {
		e.queue.Add(k)
	}
}

// Watch queues keys(object) for every object that the informer reports; for an
// update the keys of the old object too. mark, which may be nil, notes what was
// queued. Watch must be called before Run.
func (e *Engine) Watch(informer cache.SharedInformer, mark *Mark, keys func(object any) []Key) error {
	registration, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: func(o any) {
			e.Add(keys(o)...)
			mark.note(o, 1)
		},
		UpdateFunc: func(before, now any) {
			e.Add(keys(before)...)
			e.Add(keys(now)...)
			mark.note(now, 0)
		},
		DeleteFunc: func(o any) {
			if last, ok := o.(cache.DeletedFinalStateUnknown); ok {
				o = last.Obj
			}
			e.Add(keys(o)...)
			mark.note(o, -1)
		},
	})
	if err != nil {
		return fmt.Errorf("watch: %w", err)
	}
	e.synced = append(e.synced, registration.HasSynced)
	return nil
}

// Run works until ctx ends, after all watched informers have delivered what there
// was; nothing is decided on half a picture. The informers are run by the caller.
// It returns when every worker has ended.
func (e *Engine) Run(ctx context.Context) error {
	defer e.queue.ShutDown()
	if !cache.WaitForCacheSync(ctx.Done(), e.synced...) {
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
	pass, ok := e.passes[key.Kind]
	if !ok {
		e.config.Logger.Error("no pass for a key", "kind", key.Kind)
		return true
	}
	e.ledger.begin(key)
	again, err := pass.Reconcile(ctx, key.Name)
	e.ledger.end(key, e.config.Clock.Now(), again, err)
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
