package baseline

import (
	"strings"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"sublet.dev/isolation/tenant"
)

// claimsName names the admission policy of tenants' claims and its binding.
const claimsName = "sublet-tenant-claims"

// Claims returns the policy that restates in the host's API server what a claim of a
// tenant may be, in every namespace that is a tenant's: a volume of a class of its
// plan that is made for it and begins empty. What the host's own controllers add to
// a claim later, its tenant's identity must leave alone. It fails closed.
func Claims() (*admissionv1.ValidatingAdmissionPolicy, *admissionv1.ValidatingAdmissionPolicyBinding) {
	fail := admissionv1.Fail
	policy := &admissionv1.ValidatingAdmissionPolicy{
		TypeMeta:   typeMeta("admissionregistration.k8s.io/v1", "ValidatingAdmissionPolicy"),
		ObjectMeta: hostMeta(claimsName),
		Spec: admissionv1.ValidatingAdmissionPolicySpec{
			FailurePolicy: &fail,
			MatchConstraints: &admissionv1.MatchResources{
				NamespaceSelector: &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{
					{Key: tenant.LabelTenant, Operator: metav1.LabelSelectorOpExists}}},
				ResourceRules: []admissionv1.NamedRuleWithOperations{covers("", "persistentvolumeclaims")},
			},
			Variables: []admissionv1.Variable{
				{Name: "isNew", Expression: "request.operation == 'CREATE'"},
				{Name: "byTenant", Expression: byTenant},
				{Name: "annotations", Expression: "has(object.metadata.annotations) ? object.metadata.annotations : {}"},
				{Name: "had", Expression: "request.operation != 'CREATE' && has(oldObject.metadata.annotations) ? oldObject.metadata.annotations : {}"},
				{Name: "classes", Expression: "has(namespaceObject.metadata.annotations) && '" + tenant.AnnotationStorageClasses + "' in namespaceObject.metadata.annotations ?" +
					" namespaceObject.metadata.annotations['" + tenant.AnnotationStorageClasses + "'].split(',') : []"},
			},
			Validations: claimRules(),
		},
	}
	binding := &admissionv1.ValidatingAdmissionPolicyBinding{
		TypeMeta:   typeMeta("admissionregistration.k8s.io/v1", "ValidatingAdmissionPolicyBinding"),
		ObjectMeta: hostMeta(claimsName),
		Spec: admissionv1.ValidatingAdmissionPolicyBindingSpec{
			PolicyName:        claimsName,
			ValidationActions: []admissionv1.ValidationAction{admissionv1.Deny},
		},
	}
	return policy, binding
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
		isNew("begin empty", "!has(object.spec.dataSource) && !has(object.spec.dataSourceRef)"),
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
