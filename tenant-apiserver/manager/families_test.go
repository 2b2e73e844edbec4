package manager_test

import (
	"fmt"
	"slices"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"sublet.dev/api/v1alpha1"
)

// secondRange: the host says that it has a second range, and each tenant's API gives
// addresses of a slice of it; one from before gets its slice when it is looked at next.
func (h *host) secondRange(t *testing.T, a, b *v1alpha1.VirtualCluster) {
	if a.Status.SecondServiceCIDR == "" || a.Status.SecondServiceCIDR == b.Status.SecondServiceCIDR {
		t.Errorf("a has %q, b has %q", a.Status.SecondServiceCIDR, b.Status.SecondServiceCIDR)
	}
	r, err := h.tenantAPI(a).NetworkingV1().ServiceCIDRs().Get(t.Context(), "kubernetes", metav1.GetOptions{})
	if err != nil || !slices.Equal(r.Spec.CIDRs, []string{a.Status.ServiceCIDR, a.Status.SecondServiceCIDR}) {
		t.Errorf("the API of a gives addresses of %v (%v)", r.Spec.CIDRs, err)
	}
	var now v1alpha1.VirtualCluster
	h.eventually("a is as one from before", func() error {
		if err := h.api.Get(t.Context(), client.ObjectKeyFromObject(a), &now); err != nil {
			return err
		}
		now.Status.SecondServiceCIDR = ""
		return h.api.Status().Update(t.Context(), &now)
	})
	for _, plan := range []string{"medium", v1alpha1.DefaultPlan} { // so that it is looked at
		h.setPlan(t, a.Name, plan)
	}
	h.eventually("its slice is back", func() error {
		if err := h.api.Get(t.Context(), client.ObjectKeyFromObject(a), &now); err != nil {
			return err
		}
		if now.Status.SecondServiceCIDR != a.Status.SecondServiceCIDR {
			return fmt.Errorf("it has %q", now.Status.SecondServiceCIDR)
		}
		return nil
	})
}
