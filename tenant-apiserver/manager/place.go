package manager

import (
	"context"
	"fmt"

	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"sublet.dev/api/v1alpha1"
	"sublet.dev/isolation/tenant"
)

const (
	// DefaultPerCell is how many tenants share a cell unless the provider says
	// otherwise: what one crash may cost, against 95 MiB for each cell.
	DefaultPerCell = 100
	// firstCell runs even when it has no tenant.
	firstCell = "cell-0"
)

func cellName(n int) string { return fmt.Sprintf("cell-%d", n) }

// occupants is who is in the cells: what the statuses of the tenants say, and
// nothing else.
type occupants struct {
	count map[string]int
	alone map[string]bool // cells with a tenant whose plan gives it a cell of its own
}

// occupants says where tenants are.
func (m *Manager) occupants(ctx context.Context, tenants map[types.UID]seat) (occupants, error) {
	o := occupants{map[string]int{}, map[string]bool{}}
	var plans v1alpha1.PlanList
	if err := m.inner.GetCache().List(ctx, &plans, client.UnsafeDisableDeepCopy); err != nil {
		return o, fmt.Errorf("list the plans: %w", err)
	}
	own := map[string]bool{}
	for _, p := range plans.Items {
		own[p.Name] = p.Spec.OwnCell
	}
	for _, s := range tenants {
		if s.cell != "" {
			o.count[s.cell]++
			o.alone[s.cell] = o.alone[s.cell] || own[s.plan]
		}
	}
	return o, nil
}

// others says where all tenants but one are. The caller must hold placing.
func (m *Manager) others(ctx context.Context, but *v1alpha1.VirtualCluster) (occupants, error) {
	all, err := m.everybody(ctx)
	if err != nil {
		return occupants{}, err
	}
	delete(all, but.UID)
	return m.occupants(ctx, all)
}

// place returns the cell for a tenant that has none: the first that has room. One
// that is to be alone gets a cell that nobody is in, and not the first, which is
// warm for the others.
func (o occupants) place(alone bool, perCell int) string {
	for n := 0; ; n++ {
		name := cellName(n)
		if alone && o.count[name] == 0 && name != firstCell ||
			!alone && o.count[name] < perCell && !o.alone[name] {
			return name
		}
	}
}

// separate moves a tenant whose plan gives it a cell of its own since it was placed.
// Its pods do not notice; its API is away for a moment.
func (m *Manager) separate(ctx context.Context, vc *v1alpha1.VirtualCluster) error {
	m.placing.Lock()
	defer m.placing.Unlock()
	o, err := m.others(ctx, vc)
	if err != nil {
		return err
	}
	if old := vc.Status.Cell; o.count[old] == 0 && old != firstCell {
		return nil
	}
	if err := m.stop(ctx, vc, tenant.ID(vc.UID)); err != nil {
		return fmt.Errorf("stop the tenant to give it a cell of its own: %w", err)
	}
	vc.Status.Cell = o.place(true, m.config.PerCell)
	m.seats.take(vc)
	if err := m.api.Status().Update(ctx, vc); err != nil {
		return fmt.Errorf("write the tenant's cell: %w", err)
	}
	return nil
}
