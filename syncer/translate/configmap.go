package translate

import (
	corev1 "k8s.io/api/core/v1"

	"sublet.dev/syncer/engine"
)

// ConfigMap returns the host ConfigMap of a tenant's. Immutability is the tenant's
// API's to keep; on the host it would keep us from repairing.
func (t Translation) ConfigMap(tenantMap *corev1.ConfigMap) *corev1.ConfigMap {
	return &corev1.ConfigMap{
		ObjectMeta: t.hostMeta(tenantMap, ""),
		Data:       tenantMap.Data,
		BinaryData: tenantMap.BinaryData,
	}
}

// MergeConfigMap is the Merge of host ConfigMaps.
func MergeConfigMap(have, want *corev1.ConfigMap) (*corev1.ConfigMap, engine.Difference) {
	merged := have.DeepCopy()
	changed := mergeMeta(&merged.ObjectMeta, want.ObjectMeta)
	changed = set(&merged.Data, want.Data) || changed
	changed = set(&merged.BinaryData, want.BinaryData) || changed
	return merged, difference(changed)
}

func difference(changed bool) engine.Difference {
	if changed {
		return engine.Changed
	}
	return engine.Same
}
