package manager

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/workqueue"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/event"

	"sublet.dev/api/v1alpha1"
	"sublet.dev/isolation/tenant"
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
	cell *roster
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
	open := &openCell{cell: newRoster(c)}
	open.life, open.end = context.WithCancel(context.WithoutCancel(ctx))
	if err := m.inner.Add(&cellWatch{manager: m, name: name, openCell: open}); err != nil {
		open.end()
		return nil, fmt.Errorf("watch cell %s: %w", name, err)
	}
	m.cells[name] = open
	return open.cell, nil
}

// retire stops the tenant's cell when nobody else is in it. The first cell stays:
// it is warm for the next tenant. The caller must hold placing.
func (m *Manager) retire(ctx context.Context, vc *v1alpha1.VirtualCluster) error {
	name := vc.Status.Cell
	if name == "" || name == firstCell {
		return nil
	}
	o, err := m.others(ctx, vc)
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

const (
	// cellPause is how soon a cell that does not answer is asked again. Asking costs
	// next to nothing while nobody listens.
	cellPause = 20 * time.Millisecond
	// outage is how long a cell may not answer before its tenants' conditions say so:
	// one that is restarted takes less, and is not to share its processors with that.
	outage = 5 * time.Second
)

// cellWatch tells the manager of changes in a cell.
type cellWatch struct {
	*openCell
	manager *Manager
	name    string

	known map[tenant.ID]cell.Status
	down  time.Time // since when the cell does not answer; zero: it does
	// ending: it has ended because all its tenants sleep.
	ending bool
	told   bool // the tenants' conditions say that it is down, or are about to
}

// Start watches until ctx ends or the cell is retired.
func (w *cellWatch) Start(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(w.life, cancel)()
	var last cell.Snapshot
	for ctx.Err() == nil {
		now, err := w.cell.Snapshot(ctx, last.Revision)
		if err != nil {
			last.Revision = 0
			w.away(ctx, err)
			pause(ctx, cellPause)
			continue
		}
		w.down, w.told = time.Time{}, false
		if now.Instance != last.Instance {
			w.begin(ctx)
			last = cell.Snapshot{Instance: now.Instance}
			continue // it has its tenants from now on
		}
		if w.ending = now.Ending; now.Ending {
			pause(ctx, cellPause)
		}
		w.changes(ctx, now)
		last = now
	}
	return nil
}

// away notes that the cell does not answer.
func (w *cellWatch) away(ctx context.Context, err error) {
	if ctx.Err() != nil {
		return
	}
	if w.down.IsZero() {
		w.down = time.Now()
		level := slog.LevelWarn
		if w.ending {
			level = slog.LevelDebug
		}
		w.manager.config.Logger.Log(ctx, level, "the cell does not answer", "cell", w.name, "error", err)
	}
	if !w.told && time.Since(w.down) >= outage {
		w.told = true
		w.all(ctx, nil)
	}
}

// begin has a process that is new, or new to this one, host the cell's tenants.
func (w *cellWatch) begin(ctx context.Context) {
	given, err := w.cell.again(ctx, w.known)
	if err != nil && ctx.Err() == nil {
		w.manager.config.Logger.Warn("a restarted cell gets its tenants one by one", "cell", w.name, "error", err)
	}
	w.all(ctx, given)
}

// changes queues the tenants whose status is another than the one that is known, and
// tells the waker. That one starts is no news: it soon runs or has failed, or sleeps
// on in another process.
func (w *cellWatch) changes(ctx context.Context, now cell.Snapshot) {
	next := make(map[tenant.ID]cell.Status, len(now.Tenants))
	for _, s := range now.Tenants {
		before, known := w.known[s.ID]
		if known && s.Phase == cell.Starting {
			s = before
		}
		next[s.ID] = s
		if before == s {
			continue
		}
		w.manager.waker.set(w.name, s)
		if s.Phase != cell.Starting {
			w.queue(ctx, s.Name)
		}
	}
	for id, s := range w.known {
		if _, ok := next[id]; !ok {
			w.manager.waker.unset(w.name, s)
			w.queue(ctx, s.Name)
		}
	}
	w.known = next
}

// all queues every tenant of the cell but those named.
func (w *cellWatch) all(ctx context.Context, but map[string]bool) {
	tenants, err := w.manager.tenants(ctx)
	if err != nil {
		// The cache is in this process: it is ending.
		w.manager.config.Logger.Error("list the tenants of a cell", "cell", w.name, "error", err)
		return
	}
	for i := range tenants {
		if vc := &tenants[i]; vc.Status.Cell == w.name && !but[vc.Name] {
			w.queue(ctx, vc.Name)
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
