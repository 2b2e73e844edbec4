package manager

import (
	"context"
	"fmt"

	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"sublet.dev/api/v1alpha1"
)

// seat is what a tenant has of the things of which there are few.
type seat struct {
	tenant            string // its name
	slice, cell, plan string
}

// seats is what this process has changed and the manager's cache does not show yet.
// The cache holds all tenants, so what follows from the statuses of all of them costs
// no request for each of them, and with seats nothing is given twice. Manager.placing
// guards it.
type seats struct {
	taken map[types.UID]seat
	left  map[types.UID]bool // tenants that are gone
}

// take notes that a tenant has what its status says.
func (s *seats) take(vc *v1alpha1.VirtualCluster) {
	s.taken[vc.UID] = seatOf(vc)
}

// leave notes that a tenant is gone.
func (s *seats) leave(uid types.UID) {
	delete(s.taken, uid)
	s.left[uid] = true
}

// vanished notes that there is no tenant of that name: somebody removed it by force.
func (s *seats) vanished(name string) {
	for uid, own := range s.taken {
		if own.tenant == name {
			delete(s.taken, uid)
		}
	}
}

// merge returns who has what, given the tenants that a cache shows, and forgets what
// the cache shows by now.
func (s *seats) merge(cached []v1alpha1.VirtualCluster) map[types.UID]seat {
	all := make(map[types.UID]seat, len(cached)+len(s.taken))
	for i := range cached {
		vc := &cached[i]
		now := seatOf(vc)
		if own, ok := s.taken[vc.UID]; ok && (own.slice != now.slice || own.cell != now.cell) {
			now.slice, now.cell = own.slice, own.cell
		} else {
			delete(s.taken, vc.UID)
		}
		if s.left[vc.UID] {
			now.cell = "" // its slice is free when nobody sees it any more
		}
		all[vc.UID] = now
	}
	for uid := range s.left {
		if _, shown := all[uid]; !shown {
			delete(s.left, uid)
		}
	}
	for uid, own := range s.taken {
		all[uid] = own
	}
	return all
}

func seatOf(vc *v1alpha1.VirtualCluster) seat {
	return seat{tenant: vc.Name, slice: vc.Status.ServiceCIDR, cell: vc.Status.Cell, plan: vc.Spec.Plan}
}

// everybody returns what each tenant has. The caller must hold placing.
func (m *Manager) everybody(ctx context.Context) (map[types.UID]seat, error) {
	tenants, err := m.tenants(ctx)
	if err != nil {
		return nil, err
	}
	return m.seats.merge(tenants), nil
}

// tenants returns all tenants from the manager's cache. They must not be changed.
func (m *Manager) tenants(ctx context.Context) ([]v1alpha1.VirtualCluster, error) {
	var list v1alpha1.VirtualClusterList
	if err := m.inner.GetCache().List(ctx, &list, client.UnsafeDisableDeepCopy); err != nil {
		return nil, fmt.Errorf("list the tenants: %w", err)
	}
	return list.Items, nil
}
