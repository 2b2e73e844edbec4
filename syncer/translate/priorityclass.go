package translate

import (
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"sublet.dev/isolation/tenant"
	"sublet.dev/syncer/engine"
)

// A pod that names a PriorityClass of the tenant's plan has that class on the host, too,
// where the host makes its priority of it. The name means the host's class only as long as
// the tenant has no class of its own of that name: what the tenant made itself ranks its
// pods among each other, and never among those of others.

// PriorityClass returns the tenant's view of a PriorityClass of the host: what it means for
// a pod, and what the provider says of it. It is never the class of pods that name none.
func (t Translation) PriorityClass(hostClass *schedulingv1.PriorityClass) *schedulingv1.PriorityClass {
	return &schedulingv1.PriorityClass{
		ObjectMeta:       metav1.ObjectMeta{Name: hostClass.Name, Labels: map[string]string{tenant.LabelManagedBy: tenant.ManagedBySyncer}},
		Value:            hostClass.Value,
		Description:      hostClass.Description,
		PreemptionPolicy: hostClass.DeepCopy().PreemptionPolicy,
	}
}

// IsPriorityView says whether a PriorityClass of the tenant is marked as ours. Who marks one
// of its own so loses it.
func IsPriorityView(class *schedulingv1.PriorityClass) bool {
	return class.Labels[tenant.LabelManagedBy] == tenant.ManagedBySyncer
}

// MergePriorityClass is the Merge of views of PriorityClasses.
func MergePriorityClass(have, want *schedulingv1.PriorityClass) (*schedulingv1.PriorityClass, engine.Difference) {
	merged := have.DeepCopy()
	fixed := set(&merged.Value, want.Value)
	fixed = set(&merged.PreemptionPolicy, want.PreemptionPolicy) || fixed
	if fixed {
		return have, engine.Immutable // the API lets nobody change these
	}
	changed := set(&merged.Labels, want.Labels)
	changed = set(&merged.Annotations, want.Annotations) || changed
	changed = set(&merged.Description, want.Description) || changed
	changed = set(&merged.GlobalDefault, want.GlobalDefault) || changed
	return merged, difference(changed)
}

// hostClass returns the PriorityClass that a pod has on the host, with its value there; ""
// if it has none.
func (t Translation) hostClass(tenantPod *corev1.Pod) (name string, value int32) {
	name = tenantPod.Spec.PriorityClassName
	if name == "" || !slices.Contains(t.plan().PriorityClasses, name) {
		return "", 0
	}
	value, ok := t.Lookup.HostPriority(name)
	if !ok {
		return "", 0
	}
	return name, value
}

// keepRank has a host pod whose PriorityClass was another when it was made keep the rank
// that it got then, for its class stays, too.
func keepRank(have *corev1.Pod, want *metav1.ObjectMeta) {
	want.Annotations = maps.Clone(want.Annotations)
	delete(want.Annotations, tenant.AnnotationRank)
	if rank, ok := have.Annotations[tenant.AnnotationRank]; ok {
		want.Annotations[tenant.AnnotationRank] = rank
	}
}

// Importance orders a tenant's pods as the host does: by the priority that they have there,
// which is 0 without a class of the plan, then by their rank among the tenant's own.
func (t Translation) Importance(tenantPod *corev1.Pod) int64 {
	if class, value := t.hostClass(tenantPod); class != "" {
		return int64(value) << 32
	}
	return int64(RankOf(tenantPod).Priority)
}
