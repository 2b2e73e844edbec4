package translate

import (
	"fmt"
	"reflect"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"sublet.dev/isolation/policy"
	"sublet.dev/isolation/tenant"
)

// The rules of refusals of Gateways and HTTPRoutes.
const (
	ruleGatewayField     = "gateway-fields"
	ruleGatewayHostname  = "gateway-hostnames"
	ruleGatewayReference = "gateway-references"
)

// The ends of the tenant's names of what asks for the hostnames of a Gateway and of an
// HTTPRoute.
const (
	SuffixGatewayHostnames = ":gateway-hostnames"
	SuffixRouteHostnames   = ":route-hostnames"
)

// Routing is what the translation of a Gateway or an HTTPRoute depends on beside it.
type Routing struct {
	// Classes are the gateway classes of the plan.
	Classes []string
	// Granted are those of the object's hostnames that the tenant has, Taken those that
	// another has; Answered says that this is the last word.
	Granted, Taken []string
	Answered       bool
	// Gateway returns the tenant's Gateway of a name. It is shared.
	Gateway func(tenant.Name) (*gatewayv1.Gateway, bool)
	// Grants are the tenant's ReferenceGrants, all of them.
	Grants []*gatewayv1.ReferenceGrant
	// Unknown are the fields of the object that the linked version of the API has not.
	Unknown []string
}

// unknown are the refusals of fields that nobody here knows.
func (r Routing) unknown() []policy.Refusal {
	var found []policy.Refusal
	for _, field := range r.Unknown {
		found = append(found, policy.Refusal{Rule: ruleGatewayField, Field: field, Reason: "the field is not known here: remove it"})
	}
	return found
}

// Serves says whether a Gateway is the host's to serve. One of any other class is a
// controller's of the tenant's own.
func (r Routing) Serves(tenantGateway *gatewayv1.Gateway) bool {
	return slices.Contains(r.Classes, string(tenantGateway.Spec.GatewayClassName))
}

// reference is one object that refers to another of the tenant's.
type reference struct {
	group, kind, namespace       string // of what refers
	toGroup, toKind, toNamespace string
	toName                       string
}

// permits says whether a tenant lets an object refer to another: to one of its own
// namespace, or as a ReferenceGrant in the other's namespace has it.
func (r Routing) permits(ref reference) bool {
	if ref.namespace == ref.toNamespace {
		return true
	}
	return slices.ContainsFunc(r.Grants, func(g *gatewayv1.ReferenceGrant) bool {
		return g.Namespace == ref.toNamespace && g.DeletionTimestamp == nil &&
			slices.ContainsFunc(g.Spec.From, func(f gatewayv1.ReferenceGrantFrom) bool {
				return string(f.Group) == ref.group && string(f.Kind) == ref.kind && string(f.Namespace) == ref.namespace
			}) && slices.ContainsFunc(g.Spec.To, func(to gatewayv1.ReferenceGrantTo) bool {
			return string(to.Group) == ref.toGroup && string(to.Kind) == ref.toKind && (to.Name == nil || *to.Name == "" || string(*to.Name) == ref.toName)
		})
	})
}

// or is what p points to, or what its absence means.
func or[T any](p *T, absent T) T {
	if p == nil {
		return absent
	}
	return *p
}

// fieldRefusals lists the fields of a spec that the table of decisions refuses.
func fieldRefusals(spec any) []policy.Refusal {
	var found []policy.Refusal
	walk(reflect.ValueOf(spec), "spec", &found)
	for i := range found {
		found[i].Rule = ruleGatewayField
	}
	return found
}

// Never are those of the refusals of a Gateway or an HTTPRoute that nothing else can
// change.
func Never(refusals []policy.Refusal) []policy.Refusal {
	return slices.DeleteFunc(slices.Clone(refusals), func(r policy.Refusal) bool { return r.Rule != ruleGatewayField })
}

// CheckGateway returns what of a Gateway the host never serves, whatever else there is.
func CheckGateway(tenantGateway *gatewayv1.Gateway) []policy.Refusal {
	return fieldRefusals(&tenantGateway.Spec)
}

// GatewayHostnames lists the hostnames that a Gateway asks for.
func GatewayHostnames(tenantGateway *gatewayv1.Gateway) []string {
	var names []string
	for _, l := range tenantGateway.Spec.Listeners {
		names = append(names, string(or(l.Hostname, "")))
	}
	return askable(names)
}

// askable are the hostnames among names, each once: what is no hostname is not asked
// for, nor are more than [policy.MaxHostnamesOfOne].
func askable(names []string) []string {
	names = slices.DeleteFunc(slices.Clone(names), func(n string) bool { return !policy.IsHostname(n) })
	slices.Sort(names)
	names = slices.Compact(names)
	return names[:min(len(names), policy.MaxHostnamesOfOne)]
}

// Asks returns the ConfigMap by which an object asks for hostnames.
func (t Translation) Asks(tenantObject metav1.Object, suffix string, names []string) *corev1.ConfigMap {
	asks := &corev1.ConfigMap{ObjectMeta: t.hostMeta(tenantObject, suffix), Data: map[string]string{tenant.HostnamesKey: strings.Join(names, "\n")}}
	asks.Labels[tenant.LabelHostnames] = "true"
	return asks
}

// Gateway returns the spec of the host Gateway of a tenant's, of a class of its plan,
// with the listeners whose hostnames the tenant has. Certificates are the tenant's
// Secrets. On the host routes of the one namespace may attach: which of the tenant's do,
// its own Gateway says (see HTTPRoute). Listeners that cannot be so are left out, and
// the refusals say why. The result is nil when nothing is left, when another field than
// a listener's is refused, or when it is not the host's to serve.
func (t Translation) Gateway(tenantGateway *gatewayv1.Gateway, r Routing) (*gatewayv1.GatewaySpec, []policy.Refusal) {
	if !r.Serves(tenantGateway) {
		return nil, nil
	}
	refused := append(CheckGateway(tenantGateway), r.unknown()...)
	whole := slices.ContainsFunc(refused, func(f policy.Refusal) bool { return !strings.HasPrefix(f.Field, "spec.listeners[") })
	hostSpec := &gatewayv1.GatewaySpec{GatewayClassName: tenantGateway.Spec.GatewayClassName}
	for i := range tenantGateway.Spec.Listeners {
		at := listenerAt(i)
		bad := slices.ContainsFunc(refused, func(f policy.Refusal) bool { return strings.HasPrefix(f.Field, at+".") })
		hostListener, more := t.listener(tenantGateway, &tenantGateway.Spec.Listeners[i], r, at)
		if refused = append(refused, more...); !bad && len(more) == 0 {
			hostSpec.Listeners = append(hostSpec.Listeners, hostListener)
		}
	}
	if whole || len(hostSpec.Listeners) == 0 {
		return nil, refused
	}
	return hostSpec, refused
}

func listenerAt(i int) string { return fmt.Sprintf("spec.listeners[%d]", i) }

// listener translates a listener.
func (t Translation) listener(of *gatewayv1.Gateway, from *gatewayv1.Listener, r Routing, at string) (gatewayv1.Listener, []policy.Refusal) {
	same := gatewayv1.NamespacesFromSame
	to := gatewayv1.Listener{
		Name: from.Name, Hostname: from.Hostname, Port: from.Port, Protocol: from.Protocol,
		AllowedRoutes: &gatewayv1.AllowedRoutes{Namespaces: &gatewayv1.RouteNamespaces{From: &same}, Kinds: []gatewayv1.RouteGroupKind{routeKind()}},
	}
	var refused []policy.Refusal
	hostname := string(or(from.Hostname, ""))
	if hostname == "" {
		refused = append(refused, policy.Refusal{Rule: ruleGatewayHostname, Field: at + ".hostname", Reason: "it serves every hostname: name one that is yours"})
	} else if refusal, no := r.lacks(hostname, at+".hostname"); no {
		refused = append(refused, refusal)
	}
	if k := from.AllowedRoutes; k != nil && len(k.Kinds) > 0 && !slices.ContainsFunc(k.Kinds, isRouteKind) {
		refused = append(refused, policy.Refusal{Rule: ruleGatewayField, Field: at + ".allowedRoutes.kinds", Reason: "only HTTPRoutes are offered: add them"})
	}
	if from.TLS == nil {
		return to, refused
	}
	to.TLS = &gatewayv1.ListenerTLSConfig{Mode: from.TLS.Mode}
	for i, c := range from.TLS.CertificateRefs {
		name, refusal := t.certificate(of, c, r, fmt.Sprintf("%s.tls.certificateRefs[%d]", at, i))
		if refusal != nil {
			refused = append(refused, *refusal)
			continue
		}
		to.TLS.CertificateRefs = append(to.TLS.CertificateRefs, gatewayv1.SecretObjectReference{Name: gatewayv1.ObjectName(t.hostName(name.Namespace, name.Name))})
	}
	return to, refused
}

func routeKind() gatewayv1.RouteGroupKind {
	group := gatewayv1.Group(gatewayv1.GroupName)
	return gatewayv1.RouteGroupKind{Group: &group, Kind: policy.HTTPRouteKind}
}

func isRouteKind(k gatewayv1.RouteGroupKind) bool {
	return k.Kind == policy.HTTPRouteKind && or(k.Group, gatewayv1.GroupName) == gatewayv1.GroupName
}

// lacks says whether the tenant has not a hostname, and why.
func (r Routing) lacks(hostname, at string) (policy.Refusal, bool) {
	refusal := policy.Refusal{Rule: ruleGatewayHostname, Field: at}
	switch {
	case slices.Contains(r.Granted, hostname):
		return refusal, false
	case slices.Contains(r.Taken, hostname):
		refusal.Reason = "the hostname " + hostname + " is another's, or overlaps one that is: choose another"
	case !r.Answered:
		refusal.Reason = "whether the hostname " + hostname + " is to be had is not decided yet"
	default:
		refusal.Reason = fmt.Sprintf("your plan does not allow the hostname %s, or not so many: %d in one object, %d in all", hostname, policy.MaxHostnamesOfOne, policy.MaxHostnames)
	}
	return refusal, true
}

// certificate returns the Secret of the tenant's that a listener refers to, or why it may
// not.
func (t Translation) certificate(of *gatewayv1.Gateway, ref gatewayv1.SecretObjectReference, r Routing, at string) (tenant.Name, *policy.Refusal) {
	name := tenant.Name{Namespace: string(or(ref.Namespace, gatewayv1.Namespace(of.Namespace))), Name: string(ref.Name)}
	if or(ref.Group, "") != "" || or(ref.Kind, "Secret") != "Secret" {
		return name, &policy.Refusal{Rule: ruleGatewayReference, Field: at, Reason: "it is no Secret: use one"}
	}
	if !r.permits(reference{gatewayv1.GroupName, policy.GatewayKind, of.Namespace, "", "Secret", name.Namespace, name.Name}) {
		return name, &policy.Refusal{Rule: ruleGatewayReference, Field: at, Reason: "it is in another namespace, where no ReferenceGrant permits it"}
	}
	return name, nil
}

// Certificates lists the Secrets that a Gateway refers to and may.
func (t Translation) Certificates(tenantGateway *gatewayv1.Gateway, r Routing) []tenant.Name {
	var names []tenant.Name
	for _, l := range tenantGateway.Spec.Listeners {
		if l.TLS == nil {
			continue
		}
		for _, c := range l.TLS.CertificateRefs {
			if name, refusal := t.certificate(tenantGateway, c, r, ""); refusal == nil {
				names = append(names, name)
			}
		}
	}
	return names
}

// NamedSecrets lists the Secrets that a Gateway names, whether it may or not.
func NamedSecrets(tenantGateway *gatewayv1.Gateway) []tenant.Name {
	var names []tenant.Name
	for _, l := range tenantGateway.Spec.Listeners {
		if l.TLS != nil {
			for _, c := range l.TLS.CertificateRefs {
				names = append(names, tenant.Name{Namespace: string(or(c.Namespace, gatewayv1.Namespace(tenantGateway.Namespace))), Name: string(c.Name)})
			}
		}
	}
	return names
}

// GatewayFates is Fates for a Gateway. One of a class that the plan does not have stays
// in the tenant.
func (t Translation) GatewayFates(tenantGateway *gatewayv1.Gateway, r Routing) []Fate {
	if !r.Serves(tenantGateway) {
		var fates fateList
		fates.add(true, "spec", dropped)
		return fates
	}
	fates := tableFates(reflect.ValueOf(&tenantGateway.Spec))
	_, refused := t.Gateway(tenantGateway, r)
	for _, f := range refused {
		fates = withRefusal(fates, f)
	}
	return fates
}
