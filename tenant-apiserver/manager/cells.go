package manager

import (
	"context"
	"fmt"
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

// openCell is a cell that runs, and the end of the watch over it.
type openCell struct {
	cell Cell
	life context.Context // of the watch
	end  context.CancelFunc
}

// cell returns the cell of that name; one that does not run is started and watched.
func (m *Manager) cell(ctx context.Context, name string) (Cell, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if open := m.cells[name]; open != nil {
		return open.cell, nil
	}
	c, err := m.config.Cells.Start(ctx, name)
	if err != nil {
		return nil, fmt.Errorf("start cell %s: %w", name, err)
	}
	open := &openCell{cell: c}
	open.life, open.end = context.WithCancel(context.WithoutCancel(ctx))
	if err := m.inner.Add(&cellWatch{manager: m, name: name, openCell: open}); err != nil {
		open.end()
		return nil, fmt.Errorf("watch cell %s: %w", name, err)
	}
	m.cells[name] = open
	return c, nil
}

// retire stops the tenant's cell when nobody else is in it. The first cell stays:
// it is warm for the next tenant. The caller must hold placing.
func (m *Manager) retire(ctx context.Context, vc *v1alpha1.VirtualCluster) error {
	name := vc.Status.Cell
	if name == "" || name == firstCell {
		return nil
	}
	o, err := m.occupants(ctx, vc)
	if err != nil || o.count[name] > 0 {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if open := m.cells[name]; open != nil {
		open.end()
		delete(m.cells, name)
	}
	if err := m.config.Cells.Stop(ctx, name); err != nil {
		return fmt.Errorf("stop cell %s: %w", name, err)
	}
	return nil
}

// cellWatch tells the manager of changes in a cell.
type cellWatch struct {
	*openCell
	manager *Manager
	name    string
}

// Start watches until ctx ends or the cell is retired.
func (w *cellWatch) Start(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(w.life, cancel)()
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
		w.manager.waker.set(w.name, now.Tenants)
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
