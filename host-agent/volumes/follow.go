package volumes

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// follow publishes a volume whose PersistentVolume is there, and lets it grow when
// its claim asks for more.
func (n *Node) follow(ctx context.Context, name string) error {
	o, exists, err := n.volumes.GetStore().GetByKey(name)
	pv, ok := o.(*corev1.PersistentVolume)
	if err != nil || !exists || !ok || !n.mine(pv) || pv.DeletionTimestamp != nil {
		return err
	}
	if err := n.store.Publish(name); err != nil {
		return err
	}
	claim, ok := n.claimOf(pv)
	if !ok {
		return nil
	}
	asked, has := claim.Spec.Resources.Requests[corev1.ResourceStorage], claim.Status.Capacity[corev1.ResourceStorage]
	if asked.Cmp(has) <= 0 {
		return nil
	}
	size, err := n.store.Grow(ctx, name, asked.Value())
	if errors.Is(err, ErrInUse) {
		return errors.Join(err, n.status(ctx, claim, has, waiting(claim)))
	}
	if err != nil {
		return err
	}
	return n.grown(ctx, pv, claim, *resource.NewQuantity(size, resource.BinarySI))
}

// mine says whether a PersistentVolume is one of this node's.
func (n *Node) mine(pv *corev1.PersistentVolume) bool {
	return pv.Spec.Local != nil && pv.Spec.Local.Path == n.store.Path(pv.Name)
}

// claimOf returns the claim that a PersistentVolume is bound to.
func (n *Node) claimOf(pv *corev1.PersistentVolume) (*corev1.PersistentVolumeClaim, bool) {
	ref := pv.Spec.ClaimRef
	if ref == nil {
		return nil, false
	}
	o, exists, err := n.claims.GetStore().GetByKey(ref.Namespace + "/" + ref.Name)
	claim, ok := o.(*corev1.PersistentVolumeClaim)
	return claim, err == nil && exists && ok && claim.UID == ref.UID && claim.Spec.VolumeName == pv.Name &&
		claim.Status.Phase == corev1.ClaimBound && claim.DeletionTimestamp == nil
}

// grown writes the size that a volume has now: first on the PersistentVolume, of
// which the kubelet learns, then on the claim.
func (n *Node) grown(ctx context.Context, pv *corev1.PersistentVolume, claim *corev1.PersistentVolumeClaim, size resource.Quantity) error {
	patch, err := json.Marshal(map[string]any{"spec": map[string]any{"capacity": corev1.ResourceList{corev1.ResourceStorage: size}}})
	if err != nil {
		return fmt.Errorf("write the size of volume %s: %w", pv.Name, err)
	}
	if _, err := n.client.CoreV1().PersistentVolumes().Patch(ctx, pv.Name, types.MergePatchType, patch, metav1.PatchOptions{}); err != nil {
		return fmt.Errorf("write the size of volume %s: %w", pv.Name, err)
	}
	n.config.Logger.Info("a volume has grown", "volume", pv.Name, "size", size.String())
	return n.status(ctx, claim, size, without(claim.Status.Conditions))
}

// waiting are the claim's conditions while its volume cannot grow for being in use.
func waiting(claim *corev1.PersistentVolumeClaim) []corev1.PersistentVolumeClaimCondition {
	for _, c := range claim.Status.Conditions {
		if c.Type == corev1.PersistentVolumeClaimFileSystemResizePending && c.Status == corev1.ConditionTrue {
			return claim.Status.Conditions
		}
	}
	return append(without(claim.Status.Conditions), corev1.PersistentVolumeClaimCondition{
		Type: corev1.PersistentVolumeClaimFileSystemResizePending, Status: corev1.ConditionTrue, LastTransitionTime: metav1.Now(),
		Message: "the node cannot let a file system grow that is in use: it grows when no pod uses the claim",
	})
}

// without returns conditions without those that speak of growing.
func without(conditions []corev1.PersistentVolumeClaimCondition) []corev1.PersistentVolumeClaimCondition {
	return slices.DeleteFunc(slices.Clone(conditions), func(c corev1.PersistentVolumeClaimCondition) bool {
		return c.Type == corev1.PersistentVolumeClaimFileSystemResizePending || c.Type == corev1.PersistentVolumeClaimResizing
	})
}

// status writes a claim's status if it differs.
func (n *Node) status(ctx context.Context, claim *corev1.PersistentVolumeClaim, size resource.Quantity, conditions []corev1.PersistentVolumeClaimCondition) error {
	has := claim.Status.Capacity[corev1.ResourceStorage]
	if has.Cmp(size) == 0 && slices.Equal(claim.Status.Conditions, conditions) {
		return nil
	}
	claim = claim.DeepCopy()
	claim.Status.Capacity = corev1.ResourceList{corev1.ResourceStorage: size}
	claim.Status.Conditions = conditions
	if _, err := n.client.CoreV1().PersistentVolumeClaims(claim.Namespace).UpdateStatus(ctx, claim, metav1.UpdateOptions{}); err != nil {
		return fmt.Errorf("write the status of claim %s/%s: %w", claim.Namespace, claim.Name, err)
	}
	return nil
}
