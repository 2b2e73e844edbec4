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

// How many Gateways and HTTPRoutes a tenant may have on the host. Most controllers start
// pods and a load balancer for each Gateway.
const (
	mostGateways = 10
	mostRoutes   = 200
)

// gatewayRules are the rules of a plan that offers gateway classes; none of one that does
// not. What becomes of Gateways and HTTPRoutes, field by field, the syncer says; the rules
// bring the kinds, and the rights to them. Of a class a tenant sees its name, whether it
// is accepted, and what it can do: its controller and its parameters are the host's.
func gatewayRules(p v1alpha1.PlanSpec) []v1alpha1.CustomResourceRule {
	if len(p.Ingress.GatewayClasses) == 0 {
		return nil
	}
	crossing := func(kind, definition string, most int32) v1alpha1.CustomResourceRule {
		resource, group, _ := strings.Cut(definition, ".")
		return v1alpha1.CustomResourceRule{
			Group: group, Version: policy.GatewayVersion, Kind: kind, Resource: resource,
			Direction: v1alpha1.ToHost, OtherFields: v1alpha1.DropOthers, Max: &most,
			Fields: []v1alpha1.CustomResourceField{{Path: "spec"}},
		}
	}
	classes := crossing(policy.GatewayClassKind, policy.GatewayClasses, 0)
	classes.Direction, classes.Max, classes.OtherFields = v1alpha1.FromHost, nil, ""
	classes.Select = &v1alpha1.HostSelection{Names: slices.Clone(p.Ingress.GatewayClasses)}
	classes.Fields = []v1alpha1.CustomResourceField{
		{Path: "spec.controllerName", Value: &apiextensionsv1.JSON{Raw: []byte(`"` + tenant.GatewayController + `"`)}},
		{Path: "status.conditions[].type"}, {Path: "status.conditions[].status"}, {Path: "status.conditions[].reason"},
		{Path: "status.conditions[].lastTransitionTime"},
		{Path: "status.conditions[].message", Value: &apiextensionsv1.JSON{Raw: []byte(`""`)}},
		{Path: "status.supportedFeatures[].name"},
	}
	grants := crossing(policy.ReferenceGrantKind, policy.ReferenceGrants, 0)
	grants.Direction, grants.Max, grants.OtherFields, grants.Fields = v1alpha1.InTenant, nil, "", nil
	grants.Version = policy.ReferenceGrantVersion
	return []v1alpha1.CustomResourceRule{
		classes, grants,
		crossing(policy.GatewayKind, policy.Gateways, mostGateways), crossing(policy.HTTPRouteKind, policy.HTTPRoutes, mostRoutes),
	}
}

// gatewaysName names the admission policy of tenants' Gateways and HTTPRoutes and its
// binding.
const gatewaysName = "sublet-tenant-gateways"

// Gateways returns the policy that restates in the host's API server what a Gateway and
// an HTTPRoute of a tenant may be, for every writer, in every namespace that is a
// tenant's: of a class of its plan, for hostnames that the tenant has, and with nothing
// that leads out of the namespace. It fails closed, and is idle on a host without them.
func Gateways() (*admissionv1.ValidatingAdmissionPolicy, *admissionv1.ValidatingAdmissionPolicyBinding) {
	every := covers(policy.GatewayGroup, "gateways", "httproutes")
	every.Rule.APIVersions = []string{"*"}
	return inTenants(gatewaysName, every, []admissionv1.Variable{
		{Name: "isGateway", Expression: "request.kind.kind == 'Gateway'"},
		{Name: "annotations", Expression: "has(object.metadata.annotations) ? object.metadata.annotations.map(k, k) : []"},
		{Name: "labels", Expression: "has(object.metadata.labels) ? object.metadata.labels : {}"},
		{Name: "had", Expression: "request.operation != 'CREATE' && has(oldObject.metadata.annotations) ? oldObject.metadata.annotations : {}"},
		{Name: "labelled", Expression: "request.operation != 'CREATE' && has(oldObject.metadata.labels) ? oldObject.metadata.labels : {}"},
		{Name: "byTenant", Expression: byTenant},
		{Name: "forced", Expression: "[]"},
		{Name: "classes", Expression: fromNamespace(tenant.AnnotationGatewayClasses, "','")},
		{Name: "hostnames", Expression: fromNamespace(tenant.AnnotationHostnames, "','")},
		{Name: "listeners", Expression: "variables.isGateway && has(object.spec.listeners) ? object.spec.listeners : []"},
		{Name: "parents", Expression: "!variables.isGateway && has(object.spec.parentRefs) ? object.spec.parentRefs : []"},
		{Name: "rules", Expression: "!variables.isGateway && has(object.spec.rules) ? object.spec.rules : []"},
	}, gatewayChecks())
}

// own holds of a reference in a CEL variable that leads to a kind of a group in its own
// namespace, which are also what is meant when it says nothing.
func own(ref, group, kind string) string {
	return "(!has(" + ref + ".namespace) && (!has(" + ref + ".group) || " + ref + ".group == '" + group + "') && (!has(" + ref + ".kind) || " + ref + ".kind == '" + kind + "'))"
}

// plainFilters holds of the filters of a rule or backend in a CEL variable: none is of
// the controller's own making, and copies of requests go to Services of the namespace.
func plainFilters(of string) string {
	return "(!has(" + of + ".filters) || " + of + ".filters.all(f, f.type in ['RequestHeaderModifier', 'ResponseHeaderModifier', 'RequestMirror', 'RequestRedirect', 'URLRewrite', 'CORS'] &&" +
		" !has(f.extensionRef) && !has(f.externalAuth) && (!has(f.requestMirror) || " + own("f.requestMirror.backendRef", "", "Service") + ")))"
}

// gatewayChecks are the hard rules of Gateways and HTTPRoutes. Updates that leave the
// spec alone are judged by their marks only: what ends must be able to end.
func gatewayChecks() []admissionv1.Validation {
	keys := "['" + strings.Join(tenant.Keys(), "', '") + "']"
	rule := func(message, expression string) admissionv1.Validation {
		return admissionv1.Validation{Expression: expression, Message: "tenants' gateways and routes " + message}
	}
	spec := func(message, expression string) admissionv1.Validation {
		return rule(message, "(request.operation != 'CREATE' && oldObject.spec == object.spec) || ("+expression+")")
	}
	return []admissionv1.Validation{
		spec("are of a class of their tenant's plan", "!variables.isGateway || object.spec.gatewayClassName in variables.classes"),
		spec("serve hostnames that their tenant has", "(!variables.isGateway || variables.listeners.size() > 0) &&"+
			" variables.listeners.all(l, has(l.hostname) && l.hostname in variables.hostnames) &&"+
			" (variables.isGateway || !has(object.spec.hostnames) || object.spec.hostnames.all(h, h in variables.hostnames))"),
		spec("say nothing about the controller's pods, addresses and connections", "!variables.isGateway || (!has(object.spec.addresses) &&"+
			" !has(object.spec.infrastructure) && !has(object.spec.allowedListeners) && !has(object.spec.tls) && !has(object.spec.defaultScope))"),
		spec("are for HTTP and HTTPS, and routes and certificates of their namespace", "variables.listeners.all(l, l.protocol in ['HTTP', 'HTTPS'] &&"+
			" (!has(l.allowedRoutes) || !has(l.allowedRoutes.namespaces) || !has(l.allowedRoutes.namespaces.from) || l.allowedRoutes.namespaces.from == 'Same') &&"+
			" (!has(l.tls) || ((!has(l.tls.mode) || l.tls.mode == 'Terminate') && !has(l.tls.options) &&"+
			" (!has(l.tls.certificateRefs) || l.tls.certificateRefs.all(c, "+own("c", "", "Secret")+")))))"),
		spec("belong to gateways of their namespace", "variables.isGateway || (!has(object.spec.useDefaultGateways) && variables.parents.size() > 0 &&"+
			" variables.parents.all(p, "+own("p", policy.GatewayGroup, "Gateway")+"))"),
		spec("lead to services of their namespace", "variables.rules.all(r, "+plainFilters("r")+" && (!has(r.backendRefs) ||"+
			" r.backendRefs.all(b, "+own("b", "", "Service")+" && "+plainFilters("b")+")))"),
		rule("carry their tenant's mark", "has(object.metadata.labels) && '"+tenant.LabelTenant+"' in object.metadata.labels &&"+
			" object.metadata.labels['"+tenant.LabelTenant+"'] == namespaceObject.metadata.labels['"+tenant.LabelTenant+"']"),
		rule("carry only Sublet's own keys", "!variables.byTenant || ("+onlyForced()+" &&"+
			" variables.labels.all(k, k in "+keys+" || (k in variables.labelled && variables.labelled[k] == variables.labels[k])))"),
	}
}
