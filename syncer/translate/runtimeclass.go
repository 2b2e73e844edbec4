package translate

import (
	nodev1 "k8s.io/api/node/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"sublet.dev/isolation/tenant"
	"sublet.dev/syncer/engine"
)

// RuntimeClass returns the tenant's view of a RuntimeClass that its plan offers: a name,
// which says nothing of the host's. Its UID is that of the offer.
func RuntimeClass(name string) *nodev1.RuntimeClass {
	return &nodev1.RuntimeClass{
		ObjectMeta: metav1.ObjectMeta{Name: name, UID: types.UID("offer:" + name), Labels: map[string]string{tenant.LabelManagedBy: tenant.ManagedBySyncer}},
		Handler:    name,
	}
}

// IsRuntimeView says whether a RuntimeClass of the tenant is marked as ours.
func IsRuntimeView(class *nodev1.RuntimeClass) bool {
	return class.Labels[tenant.LabelManagedBy] == tenant.ManagedBySyncer
}

// MergeRuntimeClass is the Merge of views of RuntimeClasses.
func MergeRuntimeClass(have, want *nodev1.RuntimeClass) (*nodev1.RuntimeClass, engine.Difference) {
	merged := have.DeepCopy()
	if set(&merged.Handler, want.Handler) {
		return have, engine.Immutable // the API lets nobody change it
	}
	changed := set(&merged.Labels, want.Labels)
	changed = set(&merged.Annotations, want.Annotations) || changed
	changed = set(&merged.Overhead, want.Overhead) || changed
	changed = set(&merged.Scheduling, want.Scheduling) || changed
	return merged, difference(changed)
}
