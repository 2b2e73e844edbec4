package translate

import (
	"bytes"
	"maps"

	corev1 "k8s.io/api/core/v1"

	"sublet.dev/syncer/engine"
)

// Secret returns the host Secret of a tenant's. The type is kept only where the
// kubelet looks at it (image pull credentials), or an ingress controller (certificates);
// every other one is Opaque, so that
// no controller of the host acts on it, least of all the one that fills
// service account tokens in.
func (t Translation) Secret(tenantSecret *corev1.Secret) *corev1.Secret {
	hostSecret := &corev1.Secret{
		ObjectMeta: t.hostMeta(tenantSecret, ""),
		Type:       corev1.SecretTypeOpaque,
		Data:       tenantSecret.Data,
	}
	switch tenantSecret.Type {
	case corev1.SecretTypeDockerConfigJson, corev1.SecretTypeDockercfg, corev1.SecretTypeTLS:
		hostSecret.Type = tenantSecret.Type
	}
	return hostSecret
}

// MergeSecret is the Merge of host Secrets.
func MergeSecret(have, want *corev1.Secret) (*corev1.Secret, engine.Difference) {
	merged := *have // a copy is made if something has changed
	if merged.Type != want.Type {
		return have.DeepCopy(), engine.Immutable
	}
	changed := mergeMeta(&merged.ObjectMeta, want.ObjectMeta)
	if !maps.EqualFunc(merged.Data, want.Data, bytes.Equal) {
		merged.Data, changed = want.Data, true
	}
	if !changed {
		return have, engine.Same
	}
	return merged.DeepCopy(), engine.Changed
}
