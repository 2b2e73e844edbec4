package baseline

import (
	admissionv1 "k8s.io/api/admissionregistration/v1"

	"sublet.dev/isolation/tenant"
)

// ingressesName names the admission policy of tenants' Ingresses and its binding.
const ingressesName = "sublet-tenant-ingresses"

// Ingresses returns the policy that restates in the host's API server what an Ingress
// of a tenant may be, for every writer, in every namespace that is a tenant's: of a class
// of its plan, for hostnames that the tenant has, and of no other, and without
// annotations that configure the controller. It fails closed.
func Ingresses() (*admissionv1.ValidatingAdmissionPolicy, *admissionv1.ValidatingAdmissionPolicyBinding) {
	return inTenants(ingressesName, covers("networking.k8s.io", "ingresses"), []admissionv1.Variable{
		{Name: "annotations", Expression: "has(object.metadata.annotations) ? object.metadata.annotations.map(k, k) : []"},
		{Name: "had", Expression: "request.operation != 'CREATE' && has(oldObject.metadata.annotations) ? oldObject.metadata.annotations : {}"},
		{Name: "byTenant", Expression: byTenant},
		{Name: "classes", Expression: fromNamespace(tenant.AnnotationIngressClasses, "','")},
		{Name: "hostnames", Expression: fromNamespace(tenant.AnnotationHostnames, "','")},
		{Name: "forced", Expression: fromNamespace(tenant.AnnotationForced, `"\n"`)},
		{Name: "rules", Expression: "has(object.spec.rules) ? object.spec.rules : []"},
		{Name: "tls", Expression: "has(object.spec.tls) ? object.spec.tls : []"},
	}, ingressRules())
}

// ingressRules are the hard rules of Ingresses. Updates that leave the spec alone are
// judged by their annotations only: what ends must be able to end.
func ingressRules() []admissionv1.Validation {
	rule := func(message, expression string) admissionv1.Validation {
		return admissionv1.Validation{Expression: expression, Message: "tenants' ingresses " + message}
	}
	spec := func(message, expression string) admissionv1.Validation {
		return rule(message, "(request.operation != 'CREATE' && oldObject.spec == object.spec) || ("+expression+")")
	}
	return []admissionv1.Validation{
		spec("are of a class of their tenant's plan", "has(object.spec.ingressClassName) && object.spec.ingressClassName in variables.classes"),
		spec("serve hostnames that their tenant has", "variables.rules.size() > 0 && variables.rules.all(r, has(r.host) && r.host in variables.hostnames)"),
		spec("serve no other hostname", "!has(object.spec.defaultBackend)"),
		spec("have certificates for their own hostnames", "variables.tls.all(t, has(t.hosts) && t.hosts.size() > 0 && t.hosts.all(h, h in variables.hostnames))"),
		spec("lead to services", "variables.rules.all(r, has(r.http) && r.http.paths.all(p, has(p.backend.service)))"),
		rule("carry their tenant's mark", "has(object.metadata.labels) && '"+tenant.LabelTenant+"' in object.metadata.labels &&"+
			" object.metadata.labels['"+tenant.LabelTenant+"'] == namespaceObject.metadata.labels['"+tenant.LabelTenant+"']"),
		rule("carry only annotations of Sublet and of their tenant's plan", "!variables.byTenant || ("+onlyForced()+")"),
	}
}
