package policy

import (
	"slices"
	"strings"

	"sublet.dev/isolation/tenant"
)

// ownGroups are groups with a dot whose kinds are Kubernetes' own, or Sublet's: who
// may write one of them can change rights, or what others run.
var ownGroups = []string{
	tenant.Domain, "admissionregistration.k8s.io", "apiextensions.k8s.io", "apiregistration.k8s.io", "authentication.k8s.io",
	"authorization.k8s.io", "rbac.authorization.k8s.io", "certificates.k8s.io", "coordination.k8s.io", "discovery.k8s.io", "events.k8s.io",
	"flowcontrol.apiserver.k8s.io", "internal.apiserver.k8s.io", "networking.k8s.io", GatewayGroup, "node.k8s.io", "resource.k8s.io", "scheduling.k8s.io",
	"storage.k8s.io", SnapshotGroup, "groupsnapshot.storage.k8s.io", "storagemigration.k8s.io", "metrics.k8s.io", "custom.metrics.k8s.io", "external.metrics.k8s.io",
}

// IsCustomGroup says whether a plan's rules for custom resources may be about kinds
// of a group. Groups without a dot are Kubernetes' own.
func IsCustomGroup(group string) bool {
	return strings.Contains(group, ".") && !strings.ContainsAny(group, "*/") && !slices.Contains(ownGroups, group)
}
