package translate

import (
	"reflect"
	"strings"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"sublet.dev/isolation/policy"
	"sublet.dev/isolation/tenant"
	"sublet.dev/syncer/engine"
)

// StorageDriver is the provisioner that a tenant sees behind its storage classes and
// volumes: the host's own is nothing of the tenant's. A class or volume of that
// driver is a view, and the syncer's.
const StorageDriver = tenant.StorageDriver

// VolumeName returns the tenant's name of the volume of a claim of the tenant's: as
// upstream derives it, from a UID that no other claim has.
func VolumeName(tenantClaim types.UID) string { return "pvc-" + string(tenantClaim) }

// Claim returns the host claim of a tenant's, or the reasons for which it gets no
// volume, when that is what the tenant's plan offers. The host makes a volume of that
// class and size for it, empty or as a snapshot of the tenant's, and nothing else that
// the tenant wrote gets there.
func (t Translation) Claim(tenantClaim *corev1.PersistentVolumeClaim, offer policy.ClaimOffer) (*corev1.PersistentVolumeClaim, []policy.Refusal) {
	asked := tenantClaim.Spec.DeepCopy()
	if found := policy.CheckClaim(asked, VolumeName(tenantClaim.UID), offer); len(found) > 0 {
		return nil, found
	}
	asked.VolumeName = ""
	var found []policy.Refusal
	walk(reflect.ValueOf(asked), "spec", &found)
	if len(found) > 0 {
		return nil, found
	}
	mode := corev1.PersistentVolumeFilesystem
	hostClaim := &corev1.PersistentVolumeClaim{
		ObjectMeta: t.hostMeta(tenantClaim, ""),
		Spec: corev1.PersistentVolumeClaimSpec{
			AccessModes:      asked.AccessModes,
			Resources:        size(asked),
			StorageClassName: asked.StorageClassName,
			VolumeMode:       &mode,
			DataSource:       t.source(tenantClaim),
		},
	}
	if found := policy.CheckHostClaim(hostClaim, offer); len(found) > 0 {
		return nil, found
	}
	return hostClaim, nil
}

func size(asked *corev1.PersistentVolumeClaimSpec) corev1.VolumeResourceRequirements {
	return corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{
		corev1.ResourceStorage: asked.Resources.Requests[corev1.ResourceStorage],
	}}
}

// SnapshotOf names the snapshot as which a claim's volume begins; "": it begins empty,
// or is not offered.
func SnapshotOf(tenantClaim *corev1.PersistentVolumeClaim) string {
	if s := tenantClaim.Spec.DataSource; s != nil && s.Kind == policy.SnapshotKind {
		return s.Name
	}
	if s := tenantClaim.Spec.DataSourceRef; s != nil && s.Kind == policy.SnapshotKind && s.Namespace == nil {
		return s.Name
	}
	return ""
}

// source is the host's snapshot for the one that a claim names.
func (t Translation) source(tenantClaim *corev1.PersistentVolumeClaim) *corev1.TypedLocalObjectReference {
	name := SnapshotOf(tenantClaim)
	if name == "" {
		return nil
	}
	group := policy.SnapshotGroup
	return &corev1.TypedLocalObjectReference{APIGroup: &group, Kind: policy.SnapshotKind, Name: t.hostName(tenantClaim.Namespace, name)}
}

// MergeClaim is the Merge of host claims: only their size may change.
func MergeClaim(have, want *corev1.PersistentVolumeClaim) (*corev1.PersistentVolumeClaim, engine.Difference) {
	merged := have.DeepCopy()
	changed := mergeMeta(&merged.ObjectMeta, want.ObjectMeta)
	asked, has := want.Spec.Resources.Requests[corev1.ResourceStorage], merged.Spec.Resources.Requests[corev1.ResourceStorage]
	if asked.Cmp(has) != 0 {
		merged.Spec.Resources = *want.Spec.Resources.DeepCopy()
		changed = true
	}
	return merged, difference(changed)
}

// The annotations with which upstream marks a claim that its controller has bound
// (k8s.io/component-helpers/storage/volume).
const (
	annBindCompleted     = "pv.kubernetes.io/bind-completed"
	annBoundByController = "pv.kubernetes.io/bound-by-controller"
)

// BindClaim returns the tenant's claim with its volume, once the host's has one, and
// whether that changed anything. A tenant's own choice of a volume is left alone: it
// gets none (see Claim).
func BindClaim(hostClaim, tenantClaim *corev1.PersistentVolumeClaim) (*corev1.PersistentVolumeClaim, bool) {
	if hostClaim.Status.Phase != corev1.ClaimBound || tenantClaim.Spec.VolumeName != "" {
		return tenantClaim, false
	}
	merged := tenantClaim.DeepCopy()
	merged.Spec.VolumeName = VolumeName(tenantClaim.UID)
	metav1.SetMetaDataAnnotation(&merged.ObjectMeta, annBindCompleted, "yes")
	metav1.SetMetaDataAnnotation(&merged.ObjectMeta, annBoundByController, "yes")
	return merged, true
}

// claimConditions are the conditions of a claim that a tenant sees.
var claimConditions = map[corev1.PersistentVolumeClaimConditionType]bool{
	corev1.PersistentVolumeClaimResizing:                true,
	corev1.PersistentVolumeClaimFileSystemResizePending: true,
	corev1.PersistentVolumeClaimControllerResizeError:   true,
	corev1.PersistentVolumeClaimNodeResizeError:         true,
}

// ClaimStatus returns the tenant's claim with the status of the host's, and whether
// that changed anything. Texts of the host stay there: they name its objects.
func ClaimStatus(hostClaim, tenantClaim *corev1.PersistentVolumeClaim) (*corev1.PersistentVolumeClaim, bool) {
	merged := tenantClaim.DeepCopy()
	from := hostClaim.DeepCopy().Status
	status := corev1.PersistentVolumeClaimStatus{Phase: corev1.ClaimPending}
	if tenantClaim.Spec.VolumeName == VolumeName(tenantClaim.UID) {
		status.Phase, status.AccessModes, status.Capacity = from.Phase, from.AccessModes, from.Capacity
		status.AllocatedResources, status.AllocatedResourceStatuses = from.AllocatedResources, from.AllocatedResourceStatuses
		for _, c := range from.Conditions {
			if claimConditions[c.Type] {
				status.Conditions = append(status.Conditions, corev1.PersistentVolumeClaimCondition{
					Type: c.Type, Status: c.Status, Reason: c.Reason, LastProbeTime: c.LastProbeTime, LastTransitionTime: c.LastTransitionTime,
				})
			}
		}
	}
	return merged, set(&merged.Status, status)
}

// LoseClaim returns the tenant's claim when its volume is no longer there.
func LoseClaim(tenantClaim *corev1.PersistentVolumeClaim) *corev1.PersistentVolumeClaim {
	merged := tenantClaim.DeepCopy()
	merged.Status = corev1.PersistentVolumeClaimStatus{Phase: corev1.ClaimLost}
	return merged
}

// Volume returns the tenant's view of the volume of a host claim of the tenant's: its
// size, and whose it is. Where it lies is the host's. Nil: there is none yet.
func (t Translation) Volume(hostClaim *corev1.PersistentVolumeClaim) *corev1.PersistentVolume {
	owner, err := tenant.ReadOwner(hostClaim.Name, hostClaim.Labels, hostClaim.Annotations)
	if err != nil || owner.Tenant != t.Tenant.ID || hostClaim.Status.Phase != corev1.ClaimBound {
		return nil
	}
	name := VolumeName(types.UID(owner.UID))
	view := &corev1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{Name: name, Annotations: map[string]string{"pv.kubernetes.io/provisioned-by": StorageDriver}},
		Spec: corev1.PersistentVolumeSpec{
			Capacity:                      hostClaim.Status.Capacity.DeepCopy(),
			AccessModes:                   append([]corev1.PersistentVolumeAccessMode(nil), hostClaim.Spec.AccessModes...),
			PersistentVolumeReclaimPolicy: corev1.PersistentVolumeReclaimDelete,
			VolumeMode:                    hostClaim.Spec.VolumeMode,
			PersistentVolumeSource: corev1.PersistentVolumeSource{CSI: &corev1.CSIPersistentVolumeSource{
				Driver: StorageDriver, VolumeHandle: name}},
			ClaimRef: &corev1.ObjectReference{APIVersion: "v1", Kind: "PersistentVolumeClaim",
				Namespace: owner.Name.Namespace, Name: owner.Name.Name, UID: types.UID(owner.UID)},
		},
	}
	if class := hostClaim.Spec.StorageClassName; class != nil {
		view.Spec.StorageClassName = *class
	}
	return view
}

// MergeVolume is the Merge of views of volumes: whatever the tenant changed is
// restored.
func MergeVolume(have, want *corev1.PersistentVolume) (*corev1.PersistentVolume, engine.Difference) {
	merged := have.DeepCopy()
	spec := want.Spec.DeepCopy()
	spec.ClaimRef.ResourceVersion = ""
	if have.Spec.ClaimRef != nil {
		spec.ClaimRef.ResourceVersion = have.Spec.ClaimRef.ResourceVersion
	}
	if have.Spec.CSI == nil || !equality.Semantic.DeepEqual(have.Spec.CSI, want.Spec.CSI) {
		return merged, engine.Immutable // the API lets nobody change where a volume lies
	}
	return merged, difference(set(&merged.Spec, *spec))
}

// VolumeStatus returns the view of a volume with its phase, and whether that changed
// anything.
func VolumeStatus(hostClaim *corev1.PersistentVolumeClaim, view *corev1.PersistentVolume) (*corev1.PersistentVolume, bool) {
	merged := view.DeepCopy()
	phase := corev1.VolumeBound
	if hostClaim == nil || hostClaim.DeletionTimestamp != nil {
		phase = corev1.VolumeReleased
	}
	return merged, set(&merged.Status.Phase, phase)
}

// annDefaultClass marks the class of claims that name none
// (k8s.io/kubernetes/pkg/volume/util, IsDefaultStorageClassAnnotation).
const annDefaultClass = "storageclass.kubernetes.io/is-default-class"

// Class returns the tenant's view of a host class: its name, when volumes are made,
// and whether they grow. How they are made is the host's.
func (t Translation) Class(hostClass *storagev1.StorageClass, byDefault bool) *storagev1.StorageClass {
	remove := corev1.PersistentVolumeReclaimDelete
	view := &storagev1.StorageClass{
		ObjectMeta:           metav1.ObjectMeta{Name: hostClass.Name},
		Provisioner:          StorageDriver,
		ReclaimPolicy:        &remove,
		AllowVolumeExpansion: hostClass.AllowVolumeExpansion,
		VolumeBindingMode:    hostClass.VolumeBindingMode,
	}
	if byDefault {
		view.Annotations = map[string]string{annDefaultClass: "true"}
	}
	return view
}

// MergeClass is the Merge of views of classes.
func MergeClass(have, want *storagev1.StorageClass) (*storagev1.StorageClass, engine.Difference) {
	merged := have.DeepCopy()
	fixed := set(&merged.Provisioner, want.Provisioner)
	fixed = set(&merged.Parameters, want.Parameters) || fixed
	fixed = set(&merged.ReclaimPolicy, want.ReclaimPolicy) || fixed
	fixed = set(&merged.VolumeBindingMode, want.VolumeBindingMode) || fixed
	if fixed {
		return have, engine.Immutable // the API lets nobody change these
	}
	changed := set(&merged.Labels, want.Labels)
	changed = set(&merged.Annotations, want.Annotations) || changed
	changed = set(&merged.AllowVolumeExpansion, want.AllowVolumeExpansion) || changed
	changed = set(&merged.MountOptions, want.MountOptions) || changed
	changed = set(&merged.AllowedTopologies, want.AllowedTopologies) || changed
	return merged, difference(changed)
}

// ClaimUse is a claim that a pod mounts.
type ClaimUse struct {
	Name string
	// Ephemeral: the claim is made for the pod, and goes with it.
	Ephemeral bool
}

// Claims lists the claims in its namespace that a pod mounts.
func Claims(tenantPod *corev1.Pod) []ClaimUse {
	var used []ClaimUse
	for _, v := range tenantPod.Spec.Volumes {
		if v.PersistentVolumeClaim != nil {
			used = append(used, ClaimUse{Name: v.PersistentVolumeClaim.ClaimName})
		}
		if v.Ephemeral != nil {
			used = append(used, ClaimUse{Name: ephemeralClaim(tenantPod, v.Name), Ephemeral: true})
		}
	}
	return used
}

// ephemeralClaim is the name of the claim of a generic ephemeral volume
// (k8s.io/component-helpers/storage/ephemeral, VolumeClaimName).
func ephemeralClaim(tenantPod *corev1.Pod, volume string) string {
	return tenantPod.Name + "-" + volume
}

// claimVolume mounts a claim. One of a generic ephemeral volume was made by the
// tenant's own controller: the host mounts it as any other.
func (b *podBuilder) claimVolume(v corev1.Volume) *corev1.PersistentVolumeClaimVolumeSource {
	if c := v.PersistentVolumeClaim; c != nil {
		return &corev1.PersistentVolumeClaimVolumeSource{ClaimName: b.ref(c.ClaimName), ReadOnly: c.ReadOnly}
	}
	return &corev1.PersistentVolumeClaimVolumeSource{ClaimName: b.ref(ephemeralClaim(b.tenantPod, v.Name))}
}

// claimDecisions are the decisions on claims, in pods and by themselves. What
// isolation/policy refuses is refused there first, with a reason of its own.
var claimDecisions = map[string]fields{
	"PersistentVolumeClaimVolumeSource": with(all(translated, "ClaimName"), all(copied, "ReadOnly")),
	"EphemeralVolumeSource":             all(translated, "VolumeClaimTemplate"),
	// The template's metadata is that of the tenant's claim.
	"PersistentVolumeClaimTemplate": with(all(dropped, "ObjectMeta"), all(translated, "Spec")),
	"PersistentVolumeClaimSpec": with(all(copied, "AccessModes", "StorageClassName"), all(translated, "Resources", "DataSource", "DataSourceRef"), fields{
		"VolumeMode":                refuse("raw devices are not offered: use Filesystem", "Filesystem"),
		"Selector":                  refuse(whyOwnVolume),
		"VolumeName":                refuse(whyOwnVolume),
		"VolumeAttributesClassName": refuse("attributes of volumes are the provider's: remove the field"),
	}),
	"TypedLocalObjectReference": with(all(translated, "Name"), fields{
		"APIGroup": refuse(whySource, policy.SnapshotGroup), "Kind": refuse(whySource, policy.SnapshotKind)}),
	"TypedObjectReference": with(all(translated, "Name"), fields{
		"APIGroup": refuse(whySource, policy.SnapshotGroup), "Kind": refuse(whySource, policy.SnapshotKind), "Namespace": refuse(whySource)}),
	"VolumeResourceRequirements": with(all(translated, "Requests"), all(dropped, "Limits")),
}

const (
	whyOwnVolume = "volumes are made for their claims, and one cannot be chosen: remove the field"
	whySource    = "volumes begin empty, or as a VolumeSnapshot of the same namespace was: name one, or copy with a pod"
)

// HadVolume says whether a tenant's claim was bound to its volume.
func HadVolume(tenantClaim *corev1.PersistentVolumeClaim) bool {
	return tenantClaim.Spec.VolumeName == VolumeName(tenantClaim.UID)
}

// Refused is what a tenant is told about a claim.
func Refused(refusals []policy.Refusal) string {
	lines := make([]string, len(refusals))
	for i, r := range refusals {
		lines[i] = r.String()
	}
	return "it gets no volume: " + strings.Join(lines, "; ")
}

// RevealClaim gives a text that the host wrote about a claim the tenant's names.
func (t Translation) RevealClaim(tenantClaim *corev1.PersistentVolumeClaim, hostText string) string {
	names := []string{t.hostName(tenantClaim.Namespace, tenantClaim.Name), tenantClaim.Name, t.Tenant.HostNamespace, tenantClaim.Namespace}
	if snapshot := SnapshotOf(tenantClaim); snapshot != "" {
		names = append(names, t.hostName(tenantClaim.Namespace, snapshot), snapshot)
	}
	return strings.NewReplacer(names...).Replace(hostText)
}
