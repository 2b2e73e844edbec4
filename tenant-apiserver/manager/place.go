package manager

import (
	"fmt"

	"sublet.dev/api/v1alpha1"
)

const (
	// DefaultPerCell is how many tenants share a cell unless the provider says
	// otherwise: what one crash may cost, against 95 MiB for each cell.
	DefaultPerCell = 100
	// firstCell runs even when it has no tenant.
	firstCell = "cell-0"
)

func cellName(n int) string { return fmt.Sprintf("cell-%d", n) }

// place returns the cell of a new tenant: the first that has room. tenants are all
// there are; where they are is in their statuses and nowhere else.
func (m *Manager) place(tenants []v1alpha1.VirtualCluster) string {
	count := map[string]int{}
	for i := range tenants {
		count[tenants[i].Status.Cell]++
	}
	for n := 0; ; n++ {
		if name := cellName(n); count[name] < m.config.PerCell {
			return name
		}
	}
}
