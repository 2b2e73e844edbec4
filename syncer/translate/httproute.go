package translate

import (
	"fmt"
	"reflect"
	"regexp"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"sublet.dev/isolation/policy"
	"sublet.dev/isolation/tenant"
)

// maxParents is how many parents a route has at most, by its definition.
const maxParents = 32

// Routed is what becomes of an HTTPRoute.
type Routed struct {
	// Spec is that of the host's; nil: it is not there.
	Spec *gatewayv1.HTTPRouteSpec
	// Parents are those that are Gateways of classes of the plan; none: the route is
	// not the host's to serve.
	Parents  []RoutedParent
	Refusals []policy.Refusal
}

// RoutedParent is a parent of a route that is the host's to serve.
type RoutedParent struct {
	// Ref is as the tenant wrote it, Hosts are what it is on the host: the Gateway, or
	// those of its listeners that let the route attach.
	Ref   gatewayv1.ParentReference
	Hosts []gatewayv1.ParentReference
	// Reason and Message say why Hosts has none.
	Reason  gatewayv1.RouteConditionReason
	Message string
}

// Whole says whether something is refused for which no part of the route is served.
func (r Routed) Whole() bool {
	return slices.ContainsFunc(r.Refusals, func(f policy.Refusal) bool { return f.Rule == ruleGatewayField })
}

// CheckRoute returns what of an HTTPRoute the host never serves, whatever else there is.
func CheckRoute(tenantRoute *gatewayv1.HTTPRoute) []policy.Refusal {
	refused := fieldRefusals(&tenantRoute.Spec)
	texts(reflect.ValueOf(tenantRoute.Spec.Rules), "spec.rules", func(at, text string) {
		if !plainText.MatchString(text) {
			refused = append(refused, policy.Refusal{Rule: ruleGatewayField, Field: at, Reason: "it has characters that are not offered: leave out control characters and \\`\"${}"})
		}
	})
	for i, rule := range tenantRoute.Spec.Rules {
		for j, m := range rule.Matches {
			if m.Path != nil && !plainPath.MatchString(or(m.Path.Value, "/")) {
				refused = append(refused, policy.Refusal{Rule: ruleGatewayField, Field: fmt.Sprintf("spec.rules[%d].matches[%d].path.value", i, j),
					Reason: "it has characters that are not offered in paths: use letters, digits and /._~@:+,=%!&()*-"})
			}
		}
	}
	return refused
}

// plainText matches texts that no controller can take for parts of its configuration.
var plainText = regexp.MustCompile("^[^\\x00-\\x1f\\x7f\\\\`\"${}]*$")

// texts visits every text below v.
func texts(v reflect.Value, path string, visit func(at, text string)) {
	switch v.Kind() {
	case reflect.Pointer:
		if !v.IsNil() {
			texts(v.Elem(), path, visit)
		}
	case reflect.Slice:
		for i := range v.Len() {
			texts(v.Index(i), fmt.Sprintf("%s[%d]", path, i), visit)
		}
	case reflect.Struct:
		for i := range v.NumField() {
			at := path
			if f := v.Type().Field(i); !f.Anonymous {
				at += "." + jsonName(f)
			}
			texts(v.Field(i), at, visit)
		}
	case reflect.String:
		visit(path, v.String())
	}
}

// RouteHostnames lists the hostnames that an HTTPRoute asks for.
func RouteHostnames(tenantRoute *gatewayv1.HTTPRoute) []string {
	var names []string
	for _, h := range tenantRoute.Spec.Hostnames {
		names = append(names, string(h))
	}
	return askable(names)
}

// HTTPRoute says what becomes of an HTTPRoute. It attaches to the listeners of the
// tenant's own Gateways that allow it, serves those of its hostnames that the tenant has,
// and leads to the tenant's own Services, in other namespaces by their ReferenceGrants.
// A backend that is refused leads to nothing on the host, and to errors for whoever asks
// for it, so that no rule takes over what another should have answered; a field that is
// refused keeps all of the route from the host.
func (t Translation) HTTPRoute(tenantRoute *gatewayv1.HTTPRoute, r Routing) Routed {
	b := routeBuilder{Translation: t, Routing: r, from: tenantRoute}
	for i := range tenantRoute.Spec.ParentRefs {
		b.parent(&tenantRoute.Spec.ParentRefs[i])
	}
	if len(b.to.Parents) == 0 {
		return Routed{}
	}
	b.to.Refusals = append(CheckRoute(tenantRoute), r.unknown()...)
	spec := &gatewayv1.HTTPRouteSpec{}
	for _, p := range b.to.Parents {
		for _, h := range p.Hosts {
			if !slices.ContainsFunc(spec.ParentRefs, func(o gatewayv1.ParentReference) bool { return reflect.DeepEqual(o, h) }) {
				spec.ParentRefs = append(spec.ParentRefs, h)
			}
		}
	}
	if len(spec.ParentRefs) > maxParents {
		b.refuse(ruleGatewayField, "spec.parentRefs", fmt.Sprintf("it attaches to %d listeners of %d at most: name fewer", len(spec.ParentRefs), maxParents))
	}
	for i, h := range tenantRoute.Spec.Hostnames {
		if refusal, no := r.lacks(string(h), fmt.Sprintf("spec.hostnames[%d]", i)); no {
			b.to.Refusals = append(b.to.Refusals, refusal)
			continue
		}
		spec.Hostnames = append(spec.Hostnames, h)
	}
	for i := range tenantRoute.Spec.Rules {
		spec.Rules = append(spec.Rules, b.rule(&tenantRoute.Spec.Rules[i], fmt.Sprintf("spec.rules[%d]", i)))
	}
	if none := len(tenantRoute.Spec.Hostnames) > 0 && len(spec.Hostnames) == 0; len(spec.ParentRefs) > 0 && !none && !b.to.Whole() {
		b.to.Spec = spec
	}
	return b.to
}

type routeBuilder struct {
	Translation
	Routing
	from *gatewayv1.HTTPRoute
	to   Routed
}

func (b *routeBuilder) refuse(rule, field, reason string) {
	b.to.Refusals = append(b.to.Refusals, policy.Refusal{Rule: rule, Field: field, Reason: reason})
}

// parentOf returns the Gateway that a parentRef leads to; false: it is none of a class of
// the plan.
func (r Routing) parentOf(namespace string, ref *gatewayv1.ParentReference) (*gatewayv1.Gateway, bool) {
	if or(ref.Group, gatewayv1.GroupName) != gatewayv1.GroupName || or(ref.Kind, policy.GatewayKind) != policy.GatewayKind {
		return nil, false
	}
	g, ok := r.Gateway(tenant.Name{Namespace: string(or(ref.Namespace, gatewayv1.Namespace(namespace))), Name: string(ref.Name)})
	return g, ok && r.Serves(g)
}

// parent translates a parentRef to a Gateway of the host's to serve.
func (b *routeBuilder) parent(ref *gatewayv1.ParentReference) {
	g, ok := b.parentOf(b.from.Namespace, ref)
	if !ok {
		return
	}
	p := RoutedParent{Ref: *ref.DeepCopy()}
	host := gatewayv1.ParentReference{Name: gatewayv1.ObjectName(b.hostName(g.Namespace, g.Name)), Port: ref.Port}
	meant, allowed := 0, []gatewayv1.ParentReference(nil)
	for _, l := range g.Spec.Listeners {
		if ref.SectionName != nil && *ref.SectionName != l.Name || ref.Port != nil && *ref.Port != l.Port {
			continue
		}
		if meant++; b.allows(g.Namespace, &l) {
			section := host
			section.SectionName = &l.Name
			allowed = append(allowed, section)
		}
	}
	switch {
	case meant == 0:
		p.Reason, p.Message = gatewayv1.RouteReasonNoMatchingParent, "the Gateway has no such listener"
	case len(allowed) == 0:
		p.Reason, p.Message = gatewayv1.RouteReasonNotAllowedByListeners, "the Gateway's listeners allow no HTTPRoutes of this namespace"
	case len(allowed) < meant || ref.SectionName != nil:
		p.Hosts = allowed
	default:
		p.Hosts = []gatewayv1.ParentReference{host}
	}
	b.to.Parents = append(b.to.Parents, p)
}

// allows says whether a listener of a Gateway in a namespace lets the route attach.
func (b *routeBuilder) allows(namespace string, l *gatewayv1.Listener) bool {
	if l.AllowedRoutes == nil {
		return b.from.Namespace == namespace
	}
	if k := l.AllowedRoutes.Kinds; len(k) > 0 && !slices.ContainsFunc(k, isRouteKind) {
		return false
	}
	namespaces := or(l.AllowedRoutes.Namespaces, gatewayv1.RouteNamespaces{})
	switch or(namespaces.From, gatewayv1.NamespacesFromSame) {
	case gatewayv1.NamespacesFromAll:
		return true
	case gatewayv1.NamespacesFromSame:
		return b.from.Namespace == namespace
	case gatewayv1.NamespacesFromSelector:
		selector, err := metav1.LabelSelectorAsSelector(namespaces.Selector)
		return err == nil && slices.Contains(b.Lookup.Namespaces(selector), b.from.Namespace)
	default:
		return false
	}
}

// rule translates a rule. What is copied has been looked at by CheckRoute.
func (b *routeBuilder) rule(from *gatewayv1.HTTPRouteRule, at string) gatewayv1.HTTPRouteRule {
	from = from.DeepCopy()
	to := gatewayv1.HTTPRouteRule{Name: from.Name, Matches: from.Matches, Timeouts: from.Timeouts, Filters: b.filters(from.Filters, at)}
	for i, ref := range from.BackendRefs {
		at := fmt.Sprintf("%s.backendRefs[%d]", at, i)
		to.BackendRefs = append(to.BackendRefs, gatewayv1.HTTPBackendRef{
			BackendRef: gatewayv1.BackendRef{BackendObjectReference: b.backend(ref.BackendObjectReference, at), Weight: ref.Weight},
			Filters:    b.filters(ref.Filters, at),
		})
	}
	return to
}

func (b *routeBuilder) filters(from []gatewayv1.HTTPRouteFilter, at string) []gatewayv1.HTTPRouteFilter {
	var all []gatewayv1.HTTPRouteFilter
	for i, f := range from {
		to := gatewayv1.HTTPRouteFilter{
			Type: f.Type, RequestHeaderModifier: f.RequestHeaderModifier, ResponseHeaderModifier: f.ResponseHeaderModifier,
			RequestRedirect: f.RequestRedirect, URLRewrite: f.URLRewrite, CORS: f.CORS,
		}
		if m := f.RequestMirror; m != nil {
			to.RequestMirror = &gatewayv1.HTTPRequestMirrorFilter{Percent: m.Percent, Fraction: m.Fraction,
				BackendRef: b.backend(m.BackendRef, fmt.Sprintf("%s.filters[%d].requestMirror.backendRef", at, i))}
		}
		all = append(all, to)
	}
	return all
}

// backend translates a backend: a Service of the tenant's. What is refused becomes the
// name of a Service that cannot be.
func (b *routeBuilder) backend(from gatewayv1.BackendObjectReference, at string) gatewayv1.BackendObjectReference {
	namespace, name := string(or(from.Namespace, gatewayv1.Namespace(b.from.Namespace))), string(from.Name)
	switch {
	case or(from.Group, "") != "" || or(from.Kind, "Service") != "Service":
		b.refuse(ruleGatewayReference, at, "it leads to something that is no Service: use one")
		name += ":none"
	case !b.permits(reference{gatewayv1.GroupName, policy.HTTPRouteKind, b.from.Namespace, "", "Service", namespace, name}):
		b.refuse(ruleGatewayReference, at, "it is in another namespace, where no ReferenceGrant permits it")
		name += ":none"
	}
	port := from.Port
	if port == nil {
		port = new(gatewayv1.PortNumber)
		*port = 80 // a Service needs one; what is no Service has none
	}
	return gatewayv1.BackendObjectReference{Name: gatewayv1.ObjectName(b.hostName(namespace, name)), Port: port}
}

// backends lists the Services that a route names.
func backends(tenantRoute *gatewayv1.HTTPRoute) []tenant.Name {
	var names []tenant.Name
	add := func(ref gatewayv1.BackendObjectReference) {
		names = append(names, tenant.Name{Namespace: string(or(ref.Namespace, gatewayv1.Namespace(tenantRoute.Namespace))), Name: string(ref.Name)})
	}
	for _, rule := range tenantRoute.Spec.Rules {
		filters := slices.Clone(rule.Filters)
		for _, ref := range rule.BackendRefs {
			add(ref.BackendObjectReference)
			filters = append(filters, ref.Filters...)
		}
		for _, f := range filters {
			if f.RequestMirror != nil {
				add(f.RequestMirror.BackendRef)
			}
		}
	}
	return names
}

// RouteFates is Fates for an HTTPRoute. One of no Gateway of the plan's classes stays in
// the tenant.
func (t Translation) RouteFates(tenantRoute *gatewayv1.HTTPRoute, r Routing) []Fate {
	routed := t.HTTPRoute(tenantRoute, r)
	if len(routed.Parents) == 0 {
		var fates fateList
		fates.add(true, "spec", dropped)
		return fates
	}
	fates := tableFates(reflect.ValueOf(&tenantRoute.Spec))
	for _, f := range routed.Refusals {
		fates = withRefusal(fates, f)
	}
	for i, ref := range tenantRoute.Spec.ParentRefs {
		for _, p := range routed.Parents {
			if len(p.Hosts) == 0 && reflect.DeepEqual(p.Ref, ref) {
				fates = append(fates, Fate{Field: fmt.Sprintf("spec.parentRefs[%d]", i), Fate: names[refused], Rule: ruleGatewayReference, Reason: p.Message})
			}
		}
	}
	return fates
}
