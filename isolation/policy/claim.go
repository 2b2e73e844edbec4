package policy

import (
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// CheckClaim returns every reason for which what a tenant asks for in a claim is not
// offered by its plan; none when it is. A volume of a tenant is made for its claim,
// begins empty or as a snapshot of the tenant's, is a file system, and goes with the
// claim: whatever names another volume, or what is in one, is refused. The name of
// the volume that the syncer gave the claim (see bound) is not judged.
func CheckClaim(spec *corev1.PersistentVolumeClaimSpec, bound string, offer ClaimOffer) []Refusal {
	c := &check{}
	switch class, classes := spec.StorageClassName, offer.Classes; {
	case len(classes) == 0:
		c.refuse("storage-class", "spec.storageClassName", "your plan has no persistent storage: use emptyDir")
	case class == nil || *class == "":
		c.refuse("storage-class", "spec.storageClassName", "a claim needs a class that makes volumes: use %s", strings.Join(classes, " or "))
	case !slices.Contains(classes, *class):
		c.refuse("storage-class", "spec.storageClassName", "the class %q is not one of your plan's: use %s", *class, strings.Join(classes, " or "))
	}
	if spec.VolumeName != "" && spec.VolumeName != bound {
		c.refuse("claim-volume", "spec.volumeName", "volumes are made for their claims, and one cannot be chosen: remove the field")
	}
	if spec.Selector != nil {
		c.refuse("claim-volume", "spec.selector", "volumes are made for their claims, and none is looked for: remove the field")
	}
	c.claimSource(spec, offer)
	if spec.VolumeMode != nil && *spec.VolumeMode != corev1.PersistentVolumeFilesystem {
		c.refuse("claim-mode", "spec.volumeMode", "raw devices are not offered: use Filesystem")
	}
	if spec.VolumeAttributesClassName != nil && *spec.VolumeAttributesClassName != "" {
		c.refuse("claim-attributes", "spec.volumeAttributesClassName", "attributes of volumes are the provider's: remove the field")
	}
	return c.refusals
}

// CheckHostClaim returns every reason why a claim must not be on the host for a
// tenant; none when it may. It holds for a claim that is about to be made.
func CheckHostClaim(hostClaim *corev1.PersistentVolumeClaim, offer ClaimOffer) []Refusal {
	c := &check{refusals: CheckClaim(&hostClaim.Spec, "", offer)}
	c.hostKeys(hostClaim)
	return c.refusals
}
