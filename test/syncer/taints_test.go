package syncer

import (
	"context"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// patchView changes what the tenant may change of its node, until the test ends.
func patchView(t *testing.T, patch, undo string) {
	t.Helper()
	name := acme.ID.NodeName(hostNode)
	if _, err := w.tenant.CoreV1().Nodes().Patch(t.Context(), name, types.MergePatchType, []byte(patch), metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if _, err := w.tenant.CoreV1().Nodes().Patch(context.Background(), name, types.MergePatchType, []byte(undo), metav1.PatchOptions{}); err != nil {
			t.Error(err)
		}
	})
}

func waitUnschedulable(t *testing.T, ns, pod string) {
	t.Helper()
	waitTenantPod(t, ns, pod, "unschedulable", func(p *corev1.Pod) bool {
		return slices.ContainsFunc(p.Status.Conditions, func(c corev1.PodCondition) bool {
			return c.Type == corev1.PodScheduled && c.Reason == corev1.PodReasonUnschedulable
		})
	})
}

// TestCordonedByTenant: a node that the tenant cordons gets no more of its pods, until
// it is free again; the host's node knows nothing of that.
func TestCordonedByTenant(t *testing.T) {
	ns := namespace(t)
	there := create(t, simplePod(ns, "there"))
	waitTenantPod(t, ns, "there", "placed", func(p *corev1.Pod) bool { return p.Spec.NodeName != "" })
	t.Run("cordoned", func(t *testing.T) {
		patchView(t, `{"spec":{"unschedulable":true}}`, `{"spec":{"unschedulable":null}}`)
		wait(t, "taint of the view", func() (bool, any) {
			n, err := w.tenant.CoreV1().Nodes().Get(t.Context(), acme.ID.NodeName(hostNode), metav1.GetOptions{})
			return err == nil && slices.ContainsFunc(n.Spec.Taints, func(taint corev1.Taint) bool { return taint.Key == corev1.TaintNodeUnschedulable }), n
		})
		create(t, simplePod(ns, "late"))
		waitUnschedulable(t, ns, "late")
		waitHostPod(t, ns, "there", there.UID)
		if n, err := w.host.CoreV1().Nodes().Get(t.Context(), hostNode, metav1.GetOptions{}); err != nil || n.Spec.Unschedulable || len(n.Spec.Taints) > 0 {
			t.Errorf("the host's node: %+v, %v", n.Spec, err)
		}
	})
	waitTenantPod(t, ns, "late", "placed", func(p *corev1.Pod) bool { return p.Spec.NodeName != "" })
}

// TestTaintedByTenant: a taint of the tenant's keeps off what does not tolerate it, and
// drives out what is there when it says so.
func TestTaintedByTenant(t *testing.T) {
	ns := namespace(t)
	tolerant := simplePod(ns, "tolerant")
	tolerant.Spec.Tolerations = []corev1.Toleration{{Key: "dedicated", Operator: corev1.TolerationOpExists}}
	tolerant = create(t, tolerant)
	for _, name := range []string{"tolerant", "driven-out"} {
		if name == "driven-out" {
			create(t, simplePod(ns, name))
		}
		waitTenantPod(t, ns, name, "placed", func(p *corev1.Pod) bool { return p.Spec.NodeName != "" })
	}
	patchView(t, `{"spec":{"taints":[{"key":"dedicated","value":"db","effect":"NoExecute"}]}}`, `{"spec":{"taints":null}}`)
	wait(t, "end of the pod that does not tolerate it", func() (bool, any) {
		p, err := tenantPod(t, ns, "driven-out")
		return apierrors.IsNotFound(err) || err == nil && p.DeletionTimestamp != nil, p
	})
	if p, err := tenantPod(t, ns, "tolerant"); err != nil || p.UID != tolerant.UID || p.DeletionTimestamp != nil {
		t.Errorf("the pod that tolerates it: %v, %v", p.ObjectMeta, err)
	}
	create(t, simplePod(ns, "late"))
	waitUnschedulable(t, ns, "late")
}
