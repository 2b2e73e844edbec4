package translate_test

import (
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"sublet.dev/isolation/policy"
	"sublet.dev/isolation/tenant"
	"sublet.dev/syncer/engine"
	"sublet.dev/syncer/translate"
)

// Whatever a tenant makes of a view becomes what it was; what the API lets nobody change is
// made anew.
func TestMergePriorityClass(t *testing.T) {
	view := one.PriorityClass(&schedulingv1.PriorityClass{ObjectMeta: metav1.ObjectMeta{Name: "gold"}, Value: 1000, Description: "first", GlobalDefault: true,
		PreemptionPolicy: ptr.To(corev1.PreemptNever)})
	for name, c := range map[string]struct {
		change func(*schedulingv1.PriorityClass)
		want   engine.Difference
	}{
		"nothing":     {func(*schedulingv1.PriorityClass) {}, engine.Same},
		"the API's":   {func(v *schedulingv1.PriorityClass) { v.ResourceVersion, v.UID = "7", "u" }, engine.Same},
		"description": {func(v *schedulingv1.PriorityClass) { v.Description = "mine" }, engine.Changed},
		"default":     {func(v *schedulingv1.PriorityClass) { v.GlobalDefault = true }, engine.Changed},
		"annotations": {func(v *schedulingv1.PriorityClass) { v.Annotations = map[string]string{"a": "b"} }, engine.Changed},
		"value":       {func(v *schedulingv1.PriorityClass) { v.Value = 7 }, engine.Immutable},
		"policy":      {func(v *schedulingv1.PriorityClass) { v.PreemptionPolicy = ptr.To(corev1.PreemptLowerPriority) }, engine.Immutable},
	} {
		have := view.DeepCopy()
		c.change(have)
		merged, difference := translate.MergePriorityClass(have, view)
		if difference != c.want || difference == engine.Changed && (merged.Description != "first" || merged.GlobalDefault || len(merged.Annotations) > 0) {
			t.Errorf("%s: %v, %+v", name, difference, merged)
		}
	}
	if !translate.IsPriorityView(view) || translate.IsPriorityView(&schedulingv1.PriorityClass{ObjectMeta: metav1.ObjectMeta{Name: "gold"}, Value: 1000}) {
		t.Error("a view is not told from a class of the tenant's")
	}
}

// Among a tenant's pods those come first that have more priority on the host, then those
// that the tenant ranks higher.
func TestImportance(t *testing.T) {
	class := func(name string, value int32) *schedulingv1.PriorityClass {
		return &schedulingv1.PriorityClass{ObjectMeta: metav1.ObjectMeta{Name: name}, Value: value}
	}
	tr := translation(tenant.GVisor, class("gold", 1000), class("some", 1), class("spare", -1), class("none", 0))
	tr.Plan = func() translate.PodTerms {
		return translate.PodTerms{Offer: policy.Offer{PriorityClasses: []string{"gold", "some", "spare", "none"}}}
	}
	pod := func(name, class string, priority int32) *corev1.Pod {
		p := plainTenantPod()
		p.Name, p.Spec.PriorityClassName, p.Spec.Priority = name, class, &priority
		return p
	}
	pods := []*corev1.Pod{
		pod("spare", "spare", -1), pod("least", "mine", -2_000_000_000), pod("plain", "", 0), pod("none", "none", 0), pod("own", "mine", 1_000_000_000), pod("some", "some", 1), pod("gold", "gold", 1000),
	}
	want := []string{"gold", "some", "own", "plain", "none", "least", "spare"}
	slices.SortStableFunc(pods, func(a, b *corev1.Pod) int {
		switch of, other := tr.Importance(a), tr.Importance(b); {
		case of > other:
			return -1
		case of < other:
			return 1
		}
		return 0
	})
	var order []string
	for _, p := range pods {
		order = append(order, p.Name)
	}
	if !slices.Equal(order, want) {
		t.Errorf("they come as %q, want %q", order, want)
	}
}

// A host pod that has no node yet is made anew when its class comes or goes; one that has
// stays as it is, with its rank.
func TestClassOfAWaitingPod(t *testing.T) {
	tr := translation(tenant.GVisor, &schedulingv1.PriorityClass{ObjectMeta: metav1.ObjectMeta{Name: "gold"}, Value: 1000})
	tenantPod := plainTenantPod()
	tenantPod.Spec.PriorityClassName, tenantPod.Spec.Priority = "gold", ptr.To[int32](1000)
	without, _ := tr.Pod(tenantPod)
	tr.Plan = func() translate.PodTerms {
		return translate.PodTerms{Offer: policy.Offer{PriorityClasses: []string{"gold"}}}
	}
	with, _ := tr.Pod(tenantPod)
	if with.Spec.PriorityClassName != "gold" || without.Spec.PriorityClassName != "" {
		t.Fatalf("classes %q and %q", with.Spec.PriorityClassName, without.Spec.PriorityClassName)
	}
	for name, c := range map[string]struct {
		have, want *corev1.Pod
		differs    engine.Difference
	}{
		"same": {with, with, engine.Same}, "none": {without, without, engine.Same},
		"comes": {without, with, engine.Immutable}, "goes": {with, without, engine.Immutable},
	} {
		have := c.have.DeepCopy()
		if _, difference := translate.MergePod(have, c.want.DeepCopy()); difference != c.differs {
			t.Errorf("%s: %v", name, difference)
		}
		have.Spec.NodeName = "worker-1"
		if merged, difference := translate.MergePod(have, c.want.DeepCopy()); difference != engine.Same {
			t.Errorf("%s, placed: %v, %+v", name, difference, merged.ObjectMeta)
		}
	}
}
