package manager_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"sublet.dev/api/v1alpha1"
	"sublet.dev/isolation/tenant"
	"sublet.dev/tenant-apiserver/cell"
)

// swappedStores wants two tenants that have each other's store to be refused, to
// say so, and to run again once each has its own.
func (h *host) swappedStores(t *testing.T, a, b *v1alpha1.VirtualCluster) {
	h.cells.kill("cell-0")
	h.swap(t, a, b)
	h.cells.run("cell-0")
	for _, pair := range [][2]*v1alpha1.VirtualCluster{{a, b}, {b, a}} {
		own, other := pair[0], pair[1]
		c := meta.FindStatusCondition(h.awaitPhase(own.Name, v1alpha1.PhaseFailed).Status.Conditions, v1alpha1.ConditionReady)
		if c == nil || c.Status != metav1.ConditionFalse || c.Reason != cell.ReasonStoreForeign {
			t.Fatalf("condition of %s: %+v", own.Name, c)
		}
		for _, text := range []string{h.store(own), `belongs to "` + string(other.UID) + `"`, `not to "` + string(own.UID) + `"`} {
			if !strings.Contains(c.Message, text) {
				t.Errorf("the condition of %s does not say %s: %s", own.Name, text, c.Message)
			}
		}
	}
	h.swap(t, a, b)
	for _, vc := range []*v1alpha1.VirtualCluster{a, b} {
		h.awaitPhase(vc.Name, v1alpha1.PhaseReady)
		if _, err := h.tenantAPI(vc).CoreV1().ConfigMaps("default").Get(t.Context(), "mine-"+vc.Name, metav1.GetOptions{}); err != nil {
			t.Error(err)
		}
	}
}

func (h *host) store(vc *v1alpha1.VirtualCluster) string {
	return filepath.Join(h.tenantDir(tenant.ID(vc.UID)), "store.db")
}

func (h *host) swap(t *testing.T, a, b *v1alpha1.VirtualCluster) {
	t.Helper()
	aside := filepath.Join(h.dir, "aside.db")
	for _, move := range [][2]string{{h.store(a), aside}, {h.store(b), h.store(a)}, {aside, h.store(b)}} {
		if err := os.Rename(move[0], move[1]); err != nil {
			t.Fatal(err)
		}
	}
}
