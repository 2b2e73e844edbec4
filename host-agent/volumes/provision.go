package volumes

import (
	"context"
	"errors"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/sig-storage-lib-external-provisioner/v13/controller"
)

// provisioner is what upstream's controller asks to make and remove volumes.
type provisioner struct{ *Node }

var (
	_ controller.Provisioner   = provisioner{}
	_ controller.Qualifier     = provisioner{}
	_ controller.DeletionGuard = provisioner{}
)

// annSelectedNode is where the scheduler says which node a claim's volume is for
// (k8s.io/component-helpers/storage/volume, AnnSelectedNode).
const annSelectedNode = "volume.kubernetes.io/selected-node"

// ShouldProvision implements controller.Qualifier: other nodes' claims are theirs.
func (p provisioner) ShouldProvision(_ context.Context, claim *corev1.PersistentVolumeClaim) bool {
	return claim.Annotations[annSelectedNode] == p.config.NodeName
}

// ShouldDelete implements controller.DeletionGuard.
func (p provisioner) ShouldDelete(_ context.Context, pv *corev1.PersistentVolume) bool {
	return p.mine(pv)
}

// Provision implements controller.Provisioner. Errors are told in an event on the
// claim.
func (p provisioner) Provision(ctx context.Context, o controller.ProvisionOptions) (*corev1.PersistentVolume, controller.ProvisioningState, error) {
	if o.SelectedNodeName != p.config.NodeName {
		return nil, controller.ProvisioningFinished, &controller.IgnoredError{Reason: "it is for another node"}
	}
	if err := offered(o.PVC); err != nil {
		return nil, controller.ProvisioningFinished, err
	}
	asked := o.PVC.Spec.Resources.Requests[corev1.ResourceStorage]
	size, err := p.store.Create(ctx, o.PVName, asked.Value())
	if errors.Is(err, ErrNoRoom) {
		return nil, controller.ProvisioningFinished, err
	}
	if err != nil {
		p.config.Logger.Error("a volume cannot be made, will retry", "volume", o.PVName, "err", err)
		return nil, controller.ProvisioningFinished, errors.New("the node could not make the volume: its log says why")
	}
	p.config.Logger.Info("a volume was made", "volume", o.PVName, "claim", o.PVC.Namespace+"/"+o.PVC.Name, "bytes", size)
	filesystem := corev1.PersistentVolumeFilesystem
	return &corev1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{Name: o.PVName},
		Spec: corev1.PersistentVolumeSpec{
			Capacity:                      corev1.ResourceList{corev1.ResourceStorage: *resource.NewQuantity(size, resource.BinarySI)},
			AccessModes:                   o.PVC.Spec.AccessModes,
			PersistentVolumeReclaimPolicy: corev1.PersistentVolumeReclaimDelete,
			VolumeMode:                    &filesystem,
			PersistentVolumeSource:        corev1.PersistentVolumeSource{Local: &corev1.LocalVolumeSource{Path: p.store.Path(o.PVName)}},
			NodeAffinity: &corev1.VolumeNodeAffinity{Required: &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{{
				MatchExpressions: []corev1.NodeSelectorRequirement{{Key: corev1.LabelHostname, Operator: corev1.NodeSelectorOpIn, Values: []string{p.config.NodeName}}},
			}}}},
		},
	}, controller.ProvisioningFinished, nil
}

// Delete implements controller.Provisioner.
func (p provisioner) Delete(_ context.Context, pv *corev1.PersistentVolume) error {
	if !p.mine(pv) {
		return &controller.IgnoredError{Reason: "it is another node's"}
	}
	if err := p.store.Remove(pv.Name); err != nil {
		return err
	}
	p.config.Logger.Info("a volume was removed", "volume", pv.Name)
	return nil
}

// offered says why a claim asks for what this node's disk cannot be.
func offered(claim *corev1.PersistentVolumeClaim) error {
	if claim.Spec.Selector != nil || claim.Spec.DataSource != nil || claim.Spec.DataSourceRef != nil {
		return errors.New("volumes of this class begin empty: remove selector and dataSource")
	}
	for _, mode := range claim.Spec.AccessModes {
		if mode != corev1.ReadWriteOnce && mode != corev1.ReadWriteOncePod {
			return fmt.Errorf("volumes of this class are on one node: use %s or %s, not %s", corev1.ReadWriteOnce, corev1.ReadWriteOncePod, mode)
		}
	}
	return nil
}
