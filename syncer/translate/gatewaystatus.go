package translate

import (
	"net/netip"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"sublet.dev/isolation/policy"
	"sublet.dev/isolation/tenant"
)

// The reasons of our own conditions, beside those of the Gateway API.
const (
	reasonHostnameTaken = "HostnameTaken"
	reasonRefused       = "NotOffered"
)

const (
	// maxConditions is how many conditions a status has at most, by the definitions; one
	// is left for ours.
	maxConditions = 8
	// maxMessage is how much of a message a tenant reads, in bytes.
	maxMessage = 4 << 10
	// maxRouted is how many routes a listener of a tenant's can have: more are on no host.
	maxRouted = 1 << 20
)

// waiting is what conditions say as long as the host has said nothing.
const waitingMessage = "the provider's controller has not answered yet"

// teller tells a tenant what the host says of one of its objects.
type teller struct {
	tenant, host int64 // the generations of both objects, that of the tenant's which the host's follows
	generation   int64 // the tenant's now
	names        *strings.Replacer
	now          metav1.Time
}

// tellerOf makes a teller; pairs are the names of the host that may stand in its words,
// and the tenant's. hostObject may be nil.
func (t Translation) tellerOf(tenantObject, hostObject metav1.Object, others []tenant.Name, now metav1.Time) teller {
	name := NameOf(tenantObject)
	pairs := []string{t.hostName(name.Namespace, name.Name), name.Name}
	for _, o := range others {
		shown := o.Name
		if o.Namespace != name.Namespace {
			shown = o.String()
		}
		pairs = append(pairs, t.hostName(o.Namespace, o.Name), shown, t.hostName(o.Namespace, o.Name+":none"), shown)
	}
	pairs = append(pairs, t.Tenant.HostNamespace, name.Namespace)
	told := teller{names: strings.NewReplacer(pairs...), now: now, generation: tenantObject.GetGeneration()}
	if !reflect.ValueOf(hostObject).IsNil() {
		told.host = hostObject.GetGeneration()
		told.tenant, _ = strconv.ParseInt(hostObject.GetAnnotations()[tenant.AnnotationGeneration], 10, 64) // ours; 0 is before all
	}
	return told
}

// conditions are the host's, in the tenant's words. A generation that the host has
// observed is the tenant's when it is the newest, and an older one otherwise.
func (t teller) conditions(from []metav1.Condition) []metav1.Condition {
	var all []metav1.Condition
	for _, c := range from {
		known := c.Status == metav1.ConditionTrue || c.Status == metav1.ConditionFalse || c.Status == metav1.ConditionUnknown
		if len(all) == maxConditions-1 || !known || len(validation.IsQualifiedName(c.Type)) > 0 || c.Reason == "" || meta.FindStatusCondition(all, c.Type) != nil {
			continue
		}
		observed := t.tenant
		if c.ObservedGeneration < t.host {
			observed = max(t.tenant-1, 0)
		}
		message := t.names.Replace(c.Message)
		if len(message) > maxMessage {
			message = strings.ToValidUTF8(message[:maxMessage], "")
		}
		all = append(all, metav1.Condition{Type: c.Type, Status: c.Status, Reason: c.Reason, Message: message, LastTransitionTime: c.LastTransitionTime, ObservedGeneration: observed})
	}
	return all
}

// say puts a condition of ours into to; had are those that the tenant's object has, from
// which the time comes if nothing has changed.
func (t teller) say(to *[]metav1.Condition, had []metav1.Condition, kind string, status metav1.ConditionStatus, reason, message string) {
	c := metav1.Condition{Type: kind, Status: status, Reason: reason, Message: message, ObservedGeneration: t.generation, LastTransitionTime: t.now}
	if before := meta.FindStatusCondition(had, kind); before != nil && before.Status == status && !before.LastTransitionTime.IsZero() {
		c.LastTransitionTime = before.LastTransitionTime
	}
	if at := slices.IndexFunc(*to, func(h metav1.Condition) bool { return h.Type == kind }); at >= 0 {
		(*to)[at] = c
		return
	}
	*to = append(*to, c)
}

// why are the words of refusals, and the reason that stands over them.
func why(refused []policy.Refusal) (reason, message string) {
	reason = reasonRefused
	var lines []string
	for _, r := range refused {
		if r.Rule == ruleGatewayHostname && strings.Contains(r.Reason, "is another's") {
			reason = reasonHostnameTaken
		}
		lines = append(lines, r.String())
	}
	if len(lines) > 8 {
		lines = append(lines[:8], "and "+strconv.Itoa(len(lines)-8)+" more")
	}
	return reason, "not served: " + strings.Join(lines, "; ")
}

// GatewayStatus returns a tenant's Gateway, one of the host's to serve, with the status
// that it has now, and whether that changed anything. hostGateway is nil when it is not
// on the host. What is no address, or not of a listener of the Gateway, is left out.
func (t Translation) GatewayStatus(tenantGateway, hostGateway *gatewayv1.Gateway, r Routing, now metav1.Time) (*gatewayv1.Gateway, bool) {
	_, refused := t.Gateway(tenantGateway, r)
	told := t.tellerOf(tenantGateway, hostGateway, t.Certificates(tenantGateway, r), now)
	had := tenantGateway.Status
	var status gatewayv1.GatewayStatus
	if hostGateway != nil {
		status.Addresses = addresses(hostGateway.Status.Addresses)
		status.Conditions = told.conditions(hostGateway.Status.Conditions)
	}
	for i, l := range tenantGateway.Spec.Listeners {
		var of []policy.Refusal
		for _, f := range refused {
			if strings.HasPrefix(f.Field, listenerAt(i)+".") {
				of = append(of, f)
			}
		}
		status.Listeners = append(status.Listeners, told.listener(l, hostGateway, of, r.Answered, had.Listeners))
	}
	reason, message := why(refused)
	switch accepted := meta.FindStatusCondition(status.Conditions, string(gatewayv1.GatewayConditionAccepted)); {
	case hostGateway == nil && len(refused) > 0 && r.Answered:
		told.say(&status.Conditions, had.Conditions, string(gatewayv1.GatewayConditionAccepted), metav1.ConditionFalse, reason, message)
		told.say(&status.Conditions, had.Conditions, string(gatewayv1.GatewayConditionProgrammed), metav1.ConditionFalse, string(gatewayv1.GatewayReasonInvalid), "it is not on the host")
	case accepted == nil:
		told.say(&status.Conditions, had.Conditions, string(gatewayv1.GatewayConditionAccepted), metav1.ConditionUnknown, string(gatewayv1.GatewayReasonPending), waitingMessage)
		told.say(&status.Conditions, had.Conditions, string(gatewayv1.GatewayConditionProgrammed), metav1.ConditionUnknown, string(gatewayv1.GatewayReasonPending), waitingMessage)
	case accepted.Status == metav1.ConditionTrue && len(refused) > 0 && r.Answered:
		accepted.Reason, accepted.Message = string(gatewayv1.GatewayReasonListenersNotValid), message
	}
	if equality.Semantic.DeepEqual(status, had) {
		return tenantGateway, false
	}
	merged := tenantGateway.DeepCopy()
	merged.Status = status
	return merged, true
}

// listener is the status of a listener; of are the refusals that are about it.
func (t teller) listener(l gatewayv1.Listener, hostGateway *gatewayv1.Gateway, of []policy.Refusal, answered bool, had []gatewayv1.ListenerStatus) gatewayv1.ListenerStatus {
	to := gatewayv1.ListenerStatus{Name: l.Name, SupportedKinds: []gatewayv1.RouteGroupKind{routeKind()}, Conditions: []metav1.Condition{}}
	var before []metav1.Condition
	for _, h := range had {
		if h.Name == l.Name {
			before = h.Conditions
		}
	}
	if len(of) > 0 && answered {
		to.SupportedKinds = []gatewayv1.RouteGroupKind{}
		reason, message := why(of)
		t.say(&to.Conditions, before, string(gatewayv1.ListenerConditionAccepted), metav1.ConditionFalse, reason, message)
		t.say(&to.Conditions, before, string(gatewayv1.ListenerConditionProgrammed), metav1.ConditionFalse, string(gatewayv1.ListenerReasonInvalid), "it is not on the host")
		if slices.ContainsFunc(of, func(f policy.Refusal) bool { return f.Rule == ruleGatewayReference }) {
			t.say(&to.Conditions, before, string(gatewayv1.ListenerConditionResolvedRefs), metav1.ConditionFalse, string(gatewayv1.ListenerReasonRefNotPermitted), message)
		}
		return to
	}
	if hostGateway != nil {
		for _, h := range hostGateway.Status.Listeners {
			if h.Name == l.Name {
				to.AttachedRoutes = min(max(h.AttachedRoutes, 0), maxRouted)
				to.Conditions = append(to.Conditions, t.conditions(h.Conditions)...)
				break
			}
		}
	}
	if len(to.Conditions) == 0 {
		t.say(&to.Conditions, before, string(gatewayv1.ListenerConditionAccepted), metav1.ConditionUnknown, string(gatewayv1.ListenerReasonPending), waitingMessage)
	}
	return to
}

// addresses are those of the host's that are an address or a name.
func addresses(from []gatewayv1.GatewayStatusAddress) []gatewayv1.GatewayStatusAddress {
	var all []gatewayv1.GatewayStatusAddress
	for _, a := range from {
		kind := or(a.Type, gatewayv1.IPAddressType)
		addr, err := netip.ParseAddr(a.Value)
		switch {
		case kind == gatewayv1.IPAddressType && err == nil && addr.Zone() == "":
			all = append(all, gatewayv1.GatewayStatusAddress{Type: &kind, Value: addr.String()})
		case kind == gatewayv1.HostnameAddressType && len(validation.IsDNS1123Subdomain(a.Value)) == 0:
			all = append(all, gatewayv1.GatewayStatusAddress{Type: &kind, Value: a.Value})
		}
	}
	return all
}

// RouteStatus returns a tenant's HTTPRoute with the status that it has now, and whether
// that changed anything. hostRoute is nil when it is not on the host. Of the route's
// parents those are ours that carry our controller's name; what controllers of the
// tenant's own say of others stays.
func (t Translation) RouteStatus(tenantRoute, hostRoute *gatewayv1.HTTPRoute, r Routing, now metav1.Time) (*gatewayv1.HTTPRoute, bool) {
	routed := t.HTTPRoute(tenantRoute, r)
	others := backends(tenantRoute)
	for _, p := range routed.Parents {
		others = append(others, tenant.Name{Namespace: string(or(p.Ref.Namespace, gatewayv1.Namespace(tenantRoute.Namespace))), Name: string(p.Ref.Name)})
	}
	told := t.tellerOf(tenantRoute, hostRoute, others, now)
	parents := []gatewayv1.RouteParentStatus{}
	var had []gatewayv1.RouteParentStatus
	for _, p := range tenantRoute.Status.Parents {
		if p.ControllerName == tenant.GatewayController {
			had = append(had, p)
		} else {
			parents = append(parents, p)
		}
	}
	parents = parents[:min(len(parents), maxParents-min(len(routed.Parents), maxParents))]
	for _, p := range routed.Parents {
		var before []metav1.Condition
		for _, h := range had {
			if reflect.DeepEqual(h.ParentRef, p.Ref) {
				before = h.Conditions
			}
		}
		parents = append(parents, gatewayv1.RouteParentStatus{
			ParentRef: p.Ref, ControllerName: tenant.GatewayController, Conditions: told.parent(p, hostRoute, routed, r.Answered, before),
		})
	}
	if equality.Semantic.DeepEqual(parents, tenantRoute.Status.Parents) {
		return tenantRoute, false
	}
	merged := tenantRoute.DeepCopy()
	merged.Status.Parents = parents
	return merged, true
}

// parent are the conditions of a parent of a route.
func (t teller) parent(p RoutedParent, hostRoute *gatewayv1.HTTPRoute, routed Routed, answered bool, had []metav1.Condition) []metav1.Condition {
	var all []metav1.Condition
	accepted := string(gatewayv1.RouteConditionAccepted)
	var fields, references, hostnames []policy.Refusal
	for _, f := range routed.Refusals {
		switch f.Rule {
		case ruleGatewayReference:
			references = append(references, f)
		case ruleGatewayHostname:
			hostnames = append(hostnames, f)
		default:
			fields = append(fields, f)
		}
	}
	switch {
	case len(p.Hosts) == 0:
		t.say(&all, had, accepted, metav1.ConditionFalse, string(p.Reason), p.Message)
	case len(fields) > 0 || routed.Spec == nil && answered:
		reason, message := why(append(fields, hostnames...))
		t.say(&all, had, accepted, metav1.ConditionFalse, reason, message)
	case hostRoute != nil:
		all = t.conditions(ofParent(p, hostRoute))
	}
	if len(all) == 0 {
		t.say(&all, had, accepted, metav1.ConditionUnknown, string(gatewayv1.RouteReasonPending), waitingMessage)
	}
	if len(references) > 0 {
		_, message := why(references)
		reason := gatewayv1.RouteReasonRefNotPermitted
		if strings.Contains(references[0].Reason, "no Service") {
			reason = gatewayv1.RouteReasonInvalidKind
		}
		t.say(&all, had, string(gatewayv1.RouteConditionResolvedRefs), metav1.ConditionFalse, string(reason), message)
	}
	if len(hostnames) > 0 && routed.Spec != nil && answered {
		reason, message := why(hostnames)
		t.say(&all, had, string(gatewayv1.RouteConditionPartiallyInvalid), metav1.ConditionTrue, reason, message)
	}
	return all
}

// ofParent are the host's conditions of a parent: of one of its listeners that accepts
// the route, if any does.
func ofParent(p RoutedParent, hostRoute *gatewayv1.HTTPRoute) []metav1.Condition {
	var found []metav1.Condition
	for _, s := range hostRoute.Status.Parents {
		if !slices.ContainsFunc(p.Hosts, func(h gatewayv1.ParentReference) bool { return sameParent(h, s.ParentRef) }) {
			continue
		}
		if found == nil || meta.IsStatusConditionTrue(s.Conditions, string(gatewayv1.RouteConditionAccepted)) {
			found = s.Conditions
		}
		if meta.IsStatusConditionTrue(found, string(gatewayv1.RouteConditionAccepted)) {
			break
		}
	}
	return found
}

// sameParent says whether what a controller of the host wrote is a parent as we wrote it.
// Its namespace can only be the route's.
func sameParent(ours, theirs gatewayv1.ParentReference) bool {
	return ours.Name == theirs.Name && or(ours.SectionName, "") == or(theirs.SectionName, "") && or(ours.Port, 0) == or(theirs.Port, 0) &&
		or(theirs.Kind, policy.GatewayKind) == policy.GatewayKind
}

// Settled says whether the host has said all it has to say of a Gateway or a route as it
// is now.
func Settled(hostObject metav1.Object) bool {
	current := func(all []metav1.Condition) bool {
		return len(all) > 0 && !slices.ContainsFunc(all, func(c metav1.Condition) bool {
			return c.ObservedGeneration < hostObject.GetGeneration() || c.Status == metav1.ConditionUnknown
		})
	}
	switch o := hostObject.(type) {
	case *gatewayv1.Gateway:
		return current(o.Status.Conditions)
	case *gatewayv1.HTTPRoute:
		return len(o.Status.Parents) > 0 && !slices.ContainsFunc(o.Status.Parents, func(p gatewayv1.RouteParentStatus) bool { return !current(p.Conditions) })
	default:
		return false
	}
}
