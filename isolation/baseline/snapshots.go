package baseline

import (
	"slices"
	"strings"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"

	"sublet.dev/api/v1alpha1"
	"sublet.dev/isolation/policy"
	"sublet.dev/isolation/tenant"
)

// snapshotVersion is the version of the kinds of snapshots that cross.
const snapshotVersion = "v1"

// snapshotRules are the rules of a plan that offers classes of snapshots; none of one
// that does not. A snapshot is of a claim in its own namespace and of a class of the
// plan; what is on the storage already cannot be named. Of a class a tenant sees its
// name and what becomes of snapshots that are deleted: its driver and its parameters,
// which name Secrets, are the host's.
func snapshotRules(p v1alpha1.PlanSpec) []v1alpha1.CustomResourceRule {
	if len(p.SnapshotClasses) == 0 {
		return nil
	}
	return []v1alpha1.CustomResourceRule{
		{
			Group: policy.SnapshotGroup, Version: snapshotVersion, Kind: policy.SnapshotKind, Resource: policy.SnapshotResource,
			Direction: v1alpha1.ToHost, OtherFields: v1alpha1.RefuseOthers,
			Fields: []v1alpha1.CustomResourceField{
				{Path: "spec.source.persistentVolumeClaimName", Reference: "PersistentVolumeClaim"},
				{Path: "spec.volumeSnapshotClassName", Values: slices.Clone(p.SnapshotClasses)},
			},
			Status: []string{"status.boundVolumeSnapshotContentName", "status.creationTime", "status.error.message", "status.error.time", "status.readyToUse", "status.restoreSize"},
		},
		{
			Group: policy.SnapshotGroup, Version: snapshotVersion, Kind: policy.SnapshotClassKind, Resource: policy.SnapshotClasses,
			Direction: v1alpha1.FromHost, Select: &v1alpha1.HostSelection{Names: slices.Clone(p.SnapshotClasses)},
			Fields: []v1alpha1.CustomResourceField{
				{Path: "deletionPolicy"},
				{Path: "driver", Value: &apiextensionsv1.JSON{Raw: []byte(`"` + tenant.StorageDriver + `"`)}},
			},
		},
	}
}

// snapshotsName names the admission policy of tenants' snapshots and its binding.
const snapshotsName = "sublet-tenant-snapshots"

// Snapshots returns the policy that restates in the host's API server what a snapshot
// of a tenant may be, in every namespace that is a tenant's: of a claim there, and of a
// class of the tenant's plan. It fails closed, and is idle on a host without snapshots.
func Snapshots() (*admissionv1.ValidatingAdmissionPolicy, *admissionv1.ValidatingAdmissionPolicyBinding) {
	return inTenants(snapshotsName, covers(policy.SnapshotGroup, policy.SnapshotResource), []admissionv1.Variable{
		{Name: "isNew", Expression: "request.operation == 'CREATE'"},
		{Name: "classes", Expression: fromNamespace(tenant.AnnotationSnapshotClasses, "','")},
	}, snapshotChecks())
}

// snapshotChecks are the hard rules of snapshots. A class that is taken out of a plan
// keeps the snapshots that it has.
func snapshotChecks() []admissionv1.Validation {
	keys := "['" + strings.Join(tenant.Keys(), "', '") + "']"
	check := func(message, expression string) admissionv1.Validation {
		return admissionv1.Validation{Expression: expression, Message: "tenants' snapshots " + message}
	}
	const class = "volumeSnapshotClassName"
	return []admissionv1.Validation{
		check("are of a class of their tenant's plan", "has(object.spec."+class+") && (object.spec."+class+" in variables.classes ||"+
			" (!variables.isNew && has(oldObject.spec."+class+") && oldObject.spec."+class+" == object.spec."+class+"))"),
		check("are of a claim in their namespace", "has(object.spec.source.persistentVolumeClaimName) && !has(object.spec.source.volumeSnapshotContentName)"),
		check("carry their tenant's mark", "has(object.metadata.labels) && '"+tenant.LabelTenant+"' in object.metadata.labels &&"+
			" object.metadata.labels['"+tenant.LabelTenant+"'] == namespaceObject.metadata.labels['"+tenant.LabelTenant+"']"),
		check("carry only Sublet's own keys", "!variables.isNew || ((!has(object.metadata.annotations) || object.metadata.annotations.all(k, k in "+keys+")) &&"+
			" object.metadata.labels.all(k, k in "+keys+"))"),
	}
}
