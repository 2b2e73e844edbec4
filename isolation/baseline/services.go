package baseline

import (
	admissionv1 "k8s.io/api/admissionregistration/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"sublet.dev/isolation/tenant"
)

// servicesName names the admission policy of tenants' Services and its binding.
const servicesName = "sublet-tenant-services"

// Services returns the policy that restates the hard rules of Services in the host's API
// server, for every writer, in every namespace that is a tenant's. It fails closed. It is
// not one with that of pods ([Admission]), as a rule that cannot hold of a pod costs every
// pod something even so.
func Services() (*admissionv1.ValidatingAdmissionPolicy, *admissionv1.ValidatingAdmissionPolicyBinding) {
	fail := admissionv1.Fail
	policy := &admissionv1.ValidatingAdmissionPolicy{
		TypeMeta:   typeMeta("admissionregistration.k8s.io/v1", "ValidatingAdmissionPolicy"),
		ObjectMeta: hostMeta(servicesName),
		Spec: admissionv1.ValidatingAdmissionPolicySpec{
			FailurePolicy: &fail,
			MatchConstraints: &admissionv1.MatchResources{
				NamespaceSelector: &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{
					{Key: tenant.LabelTenant, Operator: metav1.LabelSelectorOpExists}}},
				ResourceRules: []admissionv1.NamedRuleWithOperations{covers("", "services")},
			},
			Variables: []admissionv1.Variable{
				{Name: "annotations", Expression: "has(object.metadata.annotations) ? object.metadata.annotations.map(k, k) : []"},
				{Name: "had", Expression: "request.operation != 'CREATE' && has(oldObject.metadata.annotations) ? oldObject.metadata.annotations : {}"},
				{Name: "byTenant", Expression: byTenant},
				{Name: "balancerClasses", Expression: fromNamespace(tenant.AnnotationLoadBalancerClasses, "','")},
				{Name: "forced", Expression: fromNamespace(tenant.AnnotationForced, `"\n"`)},
			},
			Validations: serviceRules(),
		},
	}
	binding := &admissionv1.ValidatingAdmissionPolicyBinding{
		TypeMeta:   typeMeta("admissionregistration.k8s.io/v1", "ValidatingAdmissionPolicyBinding"),
		ObjectMeta: hostMeta(servicesName),
		Spec: admissionv1.ValidatingAdmissionPolicyBindingSpec{
			PolicyName:        servicesName,
			ValidationActions: []admissionv1.ValidationAction{admissionv1.Deny},
		},
	}
	return policy, binding
}

// serviceRules are the hard rules of Services.
func serviceRules() []admissionv1.Validation {
	rule := func(message, expression string) admissionv1.Validation {
		return admissionv1.Validation{Expression: expression, Message: "tenants' services " + message}
	}
	return []admissionv1.Validation{
		rule("reach beyond the cluster by node ports and load balancers alone", "object.spec.type in ['ClusterIP', 'NodePort', 'LoadBalancer'] &&"+
			" (!has(object.spec.externalIPs) || object.spec.externalIPs.size() == 0) && (!has(object.spec.loadBalancerIP) || object.spec.loadBalancerIP == '')"),
		rule("have load balancers of a class of their tenant's plan", "object.spec.type != 'LoadBalancer' || (has(object.spec.loadBalancerClass) ?"+
			" object.spec.loadBalancerClass in variables.balancerClasses : variables.balancerClasses.size() == 0) ||"+
			" (request.operation != 'CREATE' && oldObject.spec.type == 'LoadBalancer')"), // a class never changes
		rule("carry only annotations of Sublet and of their tenant's plan", "!variables.byTenant || ("+onlyForced()+")"),
		rule("choose no pods by label", "!has(object.spec.selector) || object.spec.selector.size() == 0"),
	}
}
