package manager

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"

	"sublet.dev/isolation/tenant"
	"sublet.dev/tenant-apiserver/cell"
)

// roster is a cell, and whom it was given: when its process was restarted, it gets
// all of them at once, without a look at the host.
type roster struct {
	Cell

	// Held alone while the tenants are given again, so that none is that is being
	// taken away.
	giving sync.RWMutex

	mu      sync.Mutex
	tenants map[tenant.ID]cell.Tenant // guarded by mu: as they were given last
}

func newRoster(c Cell) *roster { return &roster{Cell: c, tenants: map[tenant.ID]cell.Tenant{}} }

// Put implements Cell.
func (r *roster) Put(ctx context.Context, t cell.Tenant) (cell.Status, error) {
	s, err := r.Cell.Put(ctx, t)
	if err == nil {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.tenants[t.ID] = t
	}
	return s, err
}

// Delete implements Cell.
func (r *roster) Delete(ctx context.Context, id tenant.ID) error {
	r.giving.RLock()
	defer r.giving.RUnlock()
	r.mu.Lock()
	delete(r.tenants, id)
	r.mu.Unlock()
	return r.Cell.Delete(ctx, id)
}

// Revoke implements Cell. What is revoked is remembered even when the cell does not
// answer.
func (r *roster) Revoke(ctx context.Context, id tenant.ID, serials []string) error {
	r.mu.Lock()
	if t, ok := r.tenants[id]; ok {
		t.Revoked = slices.Compact(slices.Sorted(slices.Values(slices.Concat(t.Revoked, serials))))
		r.tenants[id] = t
	}
	r.mu.Unlock()
	return r.Cell.Revoke(ctx, id, serials)
}

// again gives a process all tenants that the one before had, those first that did not
// sleep, and returns their names. It does not wait until they run.
func (r *roster) again(ctx context.Context, before map[tenant.ID]cell.Status) (given map[string]bool, err error) {
	r.giving.Lock()
	defer r.giving.Unlock()
	r.mu.Lock()
	tenants := slices.Collect(maps.Values(r.tenants))
	r.mu.Unlock()
	if len(tenants) == 0 {
		return nil, nil
	}
	asleep := func(t cell.Tenant) int {
		if before[t.ID].Phase == cell.Asleep {
			return 1
		}
		return 0
	}
	slices.SortFunc(tenants, func(a, b cell.Tenant) int { return cmp.Or(asleep(a)-asleep(b), cmp.Compare(a.Name, b.Name)) })
	ctx, cancel := context.WithTimeout(ctx, hostTimeout)
	defer cancel()
	if err := r.Resume(ctx, tenants); err != nil {
		return nil, fmt.Errorf("give the cell its tenants again: %w", err)
	}
	given = make(map[string]bool, len(tenants))
	for _, t := range tenants {
		given[t.Name] = true
	}
	return given, nil
}
