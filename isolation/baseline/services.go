package baseline

import (
	admissionv1 "k8s.io/api/admissionregistration/v1"

	"sublet.dev/isolation/tenant"
)

// servicesName names the admission policy of tenants' Services and its binding.
const servicesName = "sublet-tenant-services"

// Services returns the policy that restates the hard rules of Services in the host's API
// server, for every writer, in every namespace that is a tenant's. It fails closed. It is
// not one with that of pods ([Admission]), as a rule that cannot hold of a pod costs every
// pod something even so.
func Services() (*admissionv1.ValidatingAdmissionPolicy, *admissionv1.ValidatingAdmissionPolicyBinding) {
	return inTenants(servicesName, covers("", "services"), []admissionv1.Variable{
		{Name: "annotations", Expression: "has(object.metadata.annotations) ? object.metadata.annotations.map(k, k) : []"},
		{Name: "had", Expression: "request.operation != 'CREATE' && has(oldObject.metadata.annotations) ? oldObject.metadata.annotations : {}"},
		{Name: "byTenant", Expression: byTenant},
		{Name: "balancerClasses", Expression: fromNamespace(tenant.AnnotationLoadBalancerClasses, "','")},
		{Name: "forced", Expression: fromNamespace(tenant.AnnotationForced, `"\n"`)},
	}, serviceRules())
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
