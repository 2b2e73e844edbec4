package baseline

import (
	"fmt"
	"strings"

	admissionv1 "k8s.io/api/admissionregistration/v1"

	"sublet.dev/isolation/policy"
	"sublet.dev/isolation/tenant"
)

// claimsName names the admission policy of tenants' claims and its binding.
const claimsName = "sublet-tenant-claims"

// Claims returns the policy that restates in the host's API server what a claim of a
// tenant may be, in every namespace that is a tenant's: a volume of a class of its
// plan that is made for it and begins empty, or as a snapshot in the same namespace. What the host's own controllers add to
// a claim later, its tenant's identity must leave alone. It fails closed.
func Claims() (*admissionv1.ValidatingAdmissionPolicy, *admissionv1.ValidatingAdmissionPolicyBinding) {
	return inTenants(claimsName, covers("", "persistentvolumeclaims"), []admissionv1.Variable{
		{Name: "isNew", Expression: "request.operation == 'CREATE'"},
		{Name: "byTenant", Expression: byTenant},
		{Name: "annotations", Expression: "has(object.metadata.annotations) ? object.metadata.annotations : {}"},
		{Name: "had", Expression: "request.operation != 'CREATE' && has(oldObject.metadata.annotations) ? oldObject.metadata.annotations : {}"},
		{Name: "classes", Expression: fromNamespace(tenant.AnnotationStorageClasses, "','")},
		{Name: "snapshots", Expression: fromNamespace(tenant.AnnotationSnapshotClasses, "','")},
	}, claimRules())
}

// claimRules are the hard rules of claims.
func claimRules() []admissionv1.Validation {
	keys := "['" + strings.Join(tenant.Keys(), "', '") + "']"
	isNew := func(message, expression string) admissionv1.Validation {
		return admissionv1.Validation{Expression: "!variables.isNew || (" + expression + ")", Message: "tenants' claims " + message}
	}
	fromTenant := func(message, expression string) admissionv1.Validation {
		return admissionv1.Validation{Expression: "!variables.byTenant || (" + expression + ")", Message: "tenants' claims " + message}
	}
	return []admissionv1.Validation{
		isNew("are of a class of their tenant's plan", "has(object.spec.storageClassName) && object.spec.storageClassName != '' && object.spec.storageClassName in variables.classes"),
		isNew("choose no volume", "(!has(object.spec.volumeName) || object.spec.volumeName == '') && !has(object.spec.selector)"),
		isNew("begin empty or as a snapshot of their own", fromSnapshot("dataSource")+" && "+fromSnapshot("dataSourceRef")+
			" && (!has(object.spec.dataSourceRef) || !has(object.spec.dataSourceRef.namespace))"),
		isNew("are file systems", "!has(object.spec.volumeMode) || object.spec.volumeMode == 'Filesystem'"),
		isNew("carry their tenant's mark", "has(object.metadata.labels) && '"+tenant.LabelTenant+"' in object.metadata.labels &&"+
			" object.metadata.labels['"+tenant.LabelTenant+"'] == namespaceObject.metadata.labels['"+tenant.LabelTenant+"']"),
		isNew("carry only Sublet's own keys", "variables.annotations.all(k, k in "+keys+") && object.metadata.labels.all(k, k in "+keys+")"),
		fromTenant("are bound by the host", "variables.isNew ||"+
			" (has(object.spec.volumeName) ? object.spec.volumeName : '') == (has(oldObject.spec.volumeName) ? oldObject.spec.volumeName : '')"),
		fromTenant("leave the host's keys alone", "variables.annotations.all(k, k in "+keys+" || (k in variables.had && variables.had[k] == variables.annotations[k])) &&"+
			" variables.had.all(k, k in "+keys+" || k in variables.annotations)"),
	}
}

// fromSnapshot holds of claims whose volumes begin empty, or as a snapshot where the
// plan has any, as one of the two fields says.
func fromSnapshot(field string) string {
	return fmt.Sprintf("(!has(object.spec.%[1]s) || (variables.snapshots.size() > 0 && has(object.spec.%[1]s.apiGroup) &&"+
		" object.spec.%[1]s.apiGroup == '%[2]s' && object.spec.%[1]s.kind == '%[3]s'))", field, policy.SnapshotGroup, policy.SnapshotKind)
}
