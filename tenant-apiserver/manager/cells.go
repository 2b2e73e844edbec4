package manager

import (
	"context"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/workqueue"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/event"

	"sublet.dev/api/v1alpha1"
	"sublet.dev/tenant-apiserver/cell"
)

// limiter is how fast a tenant that fails is tried again. The slowest is what a
// tenant waits for after its cell was away for long.
func limiter() workqueue.TypedRateLimiter[ctrl.Request] {
	return workqueue.NewTypedItemExponentialFailureRateLimiter[ctrl.Request](50*time.Millisecond, 5*time.Second)
}

// enqueueName queues the VirtualCluster of that name.
func enqueueName(_ context.Context, e event.TypedGenericEvent[string], q workqueue.TypedRateLimitingInterface[ctrl.Request]) {
	q.Add(ctrl.Request{NamespacedName: types.NamespacedName{Name: e.Object}})
}

// cellWatch tells the manager of changes in a cell.
type cellWatch struct {
	manager *Manager
	name    string
	cell    Cell
}

// Start watches until ctx ends.
func (w *cellWatch) Start(ctx context.Context) error {
	var last cell.Snapshot
	known, up := map[string]cell.Status{}, true
	for ctx.Err() == nil {
		now, err := w.cell.Snapshot(ctx, last.Revision)
		if err != nil {
			if up && ctx.Err() == nil {
				w.manager.config.Logger.Warn("the cell does not answer", "cell", w.name, "error", err)
				w.all(ctx) // their conditions say so
			}
			up, last = false, cell.Snapshot{}
			pause(ctx, 50*time.Millisecond)
			continue
		}
		up = true
		if now.Instance != last.Instance {
			known = map[string]cell.Status{}
			w.all(ctx)
		}
		known = w.changes(ctx, known, now)
		last = now
	}
	return nil
}

// changes queues the tenants whose status changed and returns what is known now.
func (w *cellWatch) changes(ctx context.Context, known map[string]cell.Status, now cell.Snapshot) map[string]cell.Status {
	next := make(map[string]cell.Status, len(now.Tenants))
	for _, s := range now.Tenants {
		next[s.Name] = s
		if known[s.Name] != s {
			w.queue(ctx, s.Name)
		}
	}
	return next
}

// all queues every tenant of the cell.
func (w *cellWatch) all(ctx context.Context) {
	var list v1alpha1.VirtualClusterList
	if err := w.manager.api.List(ctx, &list); err != nil {
		// The host API is in this process: it is ending, or the next change of
		// the cell brings another chance.
		w.manager.config.Logger.Error("list the tenants of a cell", "cell", w.name, "error", err)
		return
	}
	for i := range list.Items {
		if list.Items[i].Status.Cell == w.name {
			w.queue(ctx, list.Items[i].Name)
		}
	}
}

func (w *cellWatch) queue(ctx context.Context, name string) {
	select {
	case w.manager.changed <- event.TypedGenericEvent[string]{Object: name}:
	case <-ctx.Done():
	}
}

// pause waits for d or for ctx to end.
func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
