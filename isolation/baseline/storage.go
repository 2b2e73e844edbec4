package baseline

import (
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
)

// LocalProvisioner is the provisioner of volumes on a node's own disk
// (host-agent/volumes), LocalClass the name of its storage class.
const (
	LocalProvisioner = "sublet.dev/local"
	LocalClass       = "local"
)

// LocalStorage returns the storage class of a host whose nodes are ours. A claim's
// volume is made on the node of its first pod.
func LocalStorage() *storagev1.StorageClass {
	late, remove, grows := storagev1.VolumeBindingWaitForFirstConsumer, corev1.PersistentVolumeReclaimDelete, true
	return &storagev1.StorageClass{
		TypeMeta:             typeMeta("storage.k8s.io/v1", "StorageClass"),
		ObjectMeta:           hostMeta(LocalClass),
		Provisioner:          LocalProvisioner,
		ReclaimPolicy:        &remove,
		VolumeBindingMode:    &late,
		AllowVolumeExpansion: &grows,
	}
}
