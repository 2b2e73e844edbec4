package policy

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
)

// The kinds of snapshots of volumes, which a host has with a driver that makes them
// (https://kubernetes.io/docs/concepts/storage/volume-snapshots). What stands for a
// snapshot on the storage itself, VolumeSnapshotContent, is no tenant's.
const (
	SnapshotGroup     = "snapshot.storage.k8s.io"
	SnapshotKind      = "VolumeSnapshot"
	SnapshotResource  = "volumesnapshots"
	SnapshotClassKind = "VolumeSnapshotClass"
	SnapshotClasses   = "volumesnapshotclasses"
)

// Snapshots is the name of the definition of snapshots.
const Snapshots = SnapshotResource + "." + SnapshotGroup

// MayCross says whether objects of a kind may cross between tenants and host by a
// rule: those of a plan's own rules, snapshots, gateways and routes, and the classes of
// both.
func MayCross(group, resource string) bool {
	return IsCustomGroup(group) || group == SnapshotGroup && (resource == SnapshotResource || resource == SnapshotClasses) ||
		group == GatewayGroup && slices.Contains([]string{gatewayResource, routeResource, gatewayClassResource}, resource)
}

// ClaimOffer is what a plan offers to claims.
type ClaimOffer struct {
	// Classes are the storage classes.
	Classes []string
	// Snapshots says that a volume may begin as a snapshot of the claim's namespace.
	Snapshots bool
}

// claimSource refuses what a volume begins with, unless that is a snapshot of the
// claim's own namespace. Without cross-namespace sources, which no tenant's API has,
// the API itself keeps both fields the same.
func (c *check) claimSource(spec *corev1.PersistentVolumeClaimSpec, offer ClaimOffer) {
	reason := "volumes begin empty: copy what is to be in them with a pod"
	if offer.Snapshots {
		reason = "volumes begin empty, or as a VolumeSnapshot of the same namespace was: name one, or copy with a pod"
	}
	if s := spec.DataSource; s != nil && !(offer.Snapshots && isSnapshot(s.APIGroup, s.Kind) && s.Name != "") {
		c.refuse("claim-source", "spec.dataSource", "%s", reason)
	}
	if s := spec.DataSourceRef; s != nil && !(offer.Snapshots && isSnapshot(s.APIGroup, s.Kind) && s.Name != "" && s.Namespace == nil) {
		c.refuse("claim-source", "spec.dataSourceRef", "%s", reason)
	}
	if spec.DataSource != nil && spec.DataSourceRef != nil && spec.DataSource.Name != spec.DataSourceRef.Name {
		c.refuse("claim-source", "spec.dataSourceRef", "it is not what dataSource is: remove one of them")
	}
}

func isSnapshot(group *string, kind string) bool {
	return group != nil && *group == SnapshotGroup && kind == SnapshotKind
}
