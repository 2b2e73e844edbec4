package manager

import (
	"context"
	"fmt"
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"sublet.dev/isolation/baseline"
	"sublet.dev/isolation/tenant"
)

// applyQuota makes a quota of the host say what is wanted, and its managedFields empty.
// The host writes a tenant's quotas whenever it counts a pod or a Secret. Who owns which
// field of one is a good part of what that costs it, and it keeps account of that no longer once somebody has emptied the list, until the next server-side apply
// (https://kubernetes.io/docs/reference/using-api/server-side-apply/#clearing-managedfields).
func applyQuota(ctx context.Context, api client.Client, want *corev1.ResourceQuota) error {
	live, key := &corev1.ResourceQuota{}, client.ObjectKeyFromObject(want)
	err := api.Get(ctx, key, live)
	if apierrors.IsNotFound(err) {
		live = want.DeepCopy()
		err = api.Create(ctx, live, client.FieldOwner(fieldOwner))
	}
	if err != nil {
		return fmt.Errorf("apply host ResourceQuota %s: %w", key, err)
	}
	next := live.DeepCopy()
	next.Labels, next.Annotations = with(live.Labels, want.Labels), with(live.Annotations, want.Annotations)
	next.Spec = *want.Spec.DeepCopy()
	if tries, ok := live.Spec.Hard[baseline.ResourceRecounts]; ok { // see Recount
		next.Spec.Hard[baseline.ResourceRecounts] = tries
	}
	if len(live.ManagedFields) > 0 {
		next.ManagedFields = []metav1.ManagedFieldsEntry{{}}
	}
	if equality.Semantic.DeepEqual(live, next) {
		return nil
	}
	if err := api.Patch(ctx, next, client.MergeFrom(live), client.FieldOwner(fieldOwner)); err != nil {
		return fmt.Errorf("apply host ResourceQuota %s: %w", key, err)
	}
	return nil
}

// pruneQuotas removes the quotas that a tenant had by an earlier version, which nobody would
// change with its plan; those among kept stay. What a removed one limited is limited again as
// soon as the host has counted it for the one that limits it now.
func (m *Manager) pruneQuotas(ctx context.Context, t tenant.Tenant, kept []baseline.Object) error {
	var quotas corev1.ResourceQuotaList
	if err := m.api.List(ctx, &quotas, client.InNamespace(t.HostNamespace), client.MatchingLabels{tenant.LabelTenant: string(t.ID)}); err != nil {
		return fmt.Errorf("list the tenant's quotas: %w", err)
	}
	for i := range quotas.Items {
		q := &quotas.Items[i]
		if slices.ContainsFunc(kept, func(k baseline.Object) bool { return isSame(k, q) }) {
			continue
		}
		if err := client.IgnoreNotFound(m.api.Delete(ctx, q)); err != nil {
			return fmt.Errorf("remove the quota %s: %w", client.ObjectKeyFromObject(q), err)
		}
	}
	return nil
}

// with returns a map that has what both have; the second's values count.
func with(m, more map[string]string) map[string]string {
	if len(more) == 0 {
		return m
	}
	all := maps.Clone(m)
	if all == nil {
		all = map[string]string{}
	}
	maps.Copy(all, more)
	return all
}
