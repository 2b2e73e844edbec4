package syncer

import (
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"sublet.dev/isolation/policy"
	"sublet.dev/isolation/tenant"
	"sublet.dev/syncer/engine"
	"sublet.dev/syncer/translate"
)

// Gateways and HTTPRoutes are custom resources: their rules come with the plan's gateway
// classes (isolation/baseline). What crosses of them is more than a rule can say, so
// their passes are here: each asks for its hostnames first, as an Ingress does, then it
// is mirrored, and its status is written whether it is on the host or not.

// kindAsks is the pass of a rule that asks for hostnames.
func (c *custom) kindAsks() string { return c.rule.Name() + "/hostnames" }

// routes says whether a rule is about Gateways or HTTPRoutes.
func (c *custom) routes() bool {
	return c.kind() == policy.Gateways || c.kind() == policy.HTTPRoutes
}

// ofGateways says whether a definition is one of those that are looked at together.
func ofGateways(definition string) bool {
	return definition == policy.Gateways || definition == policy.HTTPRoutes || definition == policy.ReferenceGrants
}

// suffix ends the tenant's name of what asks for the hostnames of an object.
func (c *custom) suffix() string {
	if c.kind() == policy.HTTPRoutes {
		return translate.SuffixRouteHostnames
	}
	return translate.SuffixGatewayHostnames
}

// decoded is an object as its Go type. The error says what of it the type does not know.
func decoded[T any](o object) (*T, error) {
	known := new(T)
	err := runtime.DefaultUnstructuredConverter.FromUnstructuredWithValidation(o.Object, known, true)
	return known, err
}

// readable is an object as its Go type, with what that knows of it; false: it is none.
func readable[T any](o object) (*T, bool) {
	known, err := decoded[T](o)
	return known, err == nil || runtime.IsStrictDecodingError(err)
}

// works returns the rule for a definition once it has seen both sides.
func (c *customs) works(definition string) (*custom, bool) {
	c.mu.Lock()
	works := c.running[definition]
	c.mu.Unlock()
	return works, works != nil && works.ready()
}

// routing is what the translation of an object depends on; false: not all of it has been
// seen. The tenant's Gateways and ReferenceGrants are part of it.
func (c *customs) routing() (translate.Routing, bool) {
	gateways, seen := c.works(policy.Gateways)
	grants, alsoSeen := c.works(policy.ReferenceGrants)
	if !seen || !alsoSeen {
		return translate.Routing{}, false
	}
	r := translate.Routing{
		Classes: c.served().GatewayClasses,
		Gateway: func(n tenant.Name) (*gatewayv1.Gateway, bool) {
			o, ok := gateways.tenantObject(n)
			if !ok || o.GetDeletionTimestamp() != nil {
				return nil, false
			}
			return readable[gatewayv1.Gateway](o)
		},
	}
	for _, item := range grants.tenantObjects.GetStore().List() {
		if o, ok := item.(object); ok {
			if g, ok := readable[gatewayv1.ReferenceGrant](o); ok {
				r.Grants = append(r.Grants, g)
			}
		}
	}
	return r, true
}

// routed is what becomes of a Gateway or an HTTPRoute.
type routed struct {
	serves   bool     // it is the host's to serve
	asks     []string // for these hostnames
	answered bool     // about all of them
	spec     any      // of the host's; nil: it is not there
	refusals []policy.Refusal
	// status is the object with the status that it has now, and whether that is another.
	status func(hostObject object) (object, bool, error)
	fates  func() []translate.Fate
}

// route says what becomes of an object; false: that is not known yet.
func (c *custom) route(all *customs, tenantObject object) (routed, bool) {
	r, seen := all.routing()
	if !seen {
		return routed{}, false
	}
	if c.kind() == policy.Gateways {
		return c.routeGateway(tenantObject, r), true
	}
	return c.routeHTTP(tenantObject, r), true
}

func (c *custom) routeGateway(tenantObject object, r translate.Routing) routed {
	g, err := decoded[gatewayv1.Gateway](tenantObject)
	if err != nil && !runtime.IsStrictDecodingError(err) || !r.Serves(g) {
		return routed{}
	}
	to := routed{serves: true, asks: translate.GatewayHostnames(g)}
	r.Granted, r.Taken, r.Answered = c.answered(tenantObject, c.suffix(), strings.Join(to.asks, "\n"))
	r.Unknown = unknown(err)
	to.answered = r.Answered
	spec, refusals := c.t.Gateway(g, r)
	if to.refusals = refusals; spec != nil {
		to.spec = spec
	}
	to.status = func(hostObject object) (object, bool, error) {
		return restated(tenantObject, hostObject, func(host *gatewayv1.Gateway) (*gatewayv1.Gateway, bool) {
			return c.t.GatewayStatus(g, host, r, metav1.NewTime(c.config.Clock.Now().Truncate(time.Second)))
		})
	}
	to.fates = func() []translate.Fate { return c.t.GatewayFates(g, r) }
	return to
}

func (c *custom) routeHTTP(tenantObject object, r translate.Routing) routed {
	h, err := decoded[gatewayv1.HTTPRoute](tenantObject)
	if err != nil && !runtime.IsStrictDecodingError(err) {
		return routed{}
	}
	asks := translate.RouteHostnames(h)
	r.Granted, r.Taken, r.Answered = c.answered(tenantObject, c.suffix(), strings.Join(asks, "\n"))
	r.Unknown = unknown(err)
	result := c.t.HTTPRoute(h, r)
	to := routed{serves: len(result.Parents) > 0, asks: asks, answered: r.Answered, refusals: result.Refusals}
	if result.Spec != nil {
		to.spec = result.Spec
	}
	to.status = func(hostObject object) (object, bool, error) {
		return restated(tenantObject, hostObject, func(host *gatewayv1.HTTPRoute) (*gatewayv1.HTTPRoute, bool) {
			return c.t.RouteStatus(h, host, r, metav1.NewTime(c.config.Clock.Now().Truncate(time.Second)))
		})
	}
	to.fates = func() []translate.Fate { return c.t.RouteFates(h, r) }
	return to
}

// unknown lists the fields of a spec that the linked version of the API has not.
func unknown(err error) []string {
	strict, ok := runtime.AsStrictDecodingError(err)
	if !ok {
		return nil
	}
	var fields []string
	for _, e := range strict.Errors() {
		if _, quoted, ok := strings.Cut(e.Error(), `unknown field "`); ok && strings.HasPrefix(quoted, "spec.") {
			fields = append(fields, strings.TrimSuffix(quoted, `"`))
		}
	}
	return fields
}

// restated is a tenant's object with the status that restate gives it.
func restated[T any](tenantObject, hostObject object, restate func(host *T) (*T, bool)) (object, bool, error) {
	var host *T
	if hostObject != nil {
		host, _ = readable[T](hostObject) // what it is not, it does not say
	}
	now, changed := restate(host)
	if !changed {
		return tenantObject, false, nil
	}
	fields, err := runtime.DefaultUnstructuredConverter.ToUnstructured(now)
	if err != nil {
		return nil, false, fmt.Errorf("status of %s: %w", translate.NameOf(tenantObject), err)
	}
	merged := tenantObject.DeepCopy()
	merged.Object["status"] = fields["status"]
	return merged, true, nil
}

// certifies says whether a Gateway of the host's to serve refers to a Secret, and may.
func (c *customs) certifies(tenantSecret *corev1.Secret) bool {
	r, seen := c.routing()
	if !seen {
		return false
	}
	return slices.ContainsFunc(c.gateways(), func(g *gatewayv1.Gateway) bool {
		return r.Serves(g) && slices.Contains(c.t.Certificates(g, r), translate.NameOf(tenantSecret))
	})
}

// aroundRoutes are the keys of what depends on an object of the tenant's: routes on
// Gateways, and both, with the certificates, on ReferenceGrants.
func (c *custom) aroundRoutes(tenantObject object) []engine.Key {
	var all []engine.Key
	if c.kind() == policy.Gateways || c.kind() == policy.ReferenceGrants {
		all = c.customs.routeKeys(policy.HTTPRoutes)
	}
	if c.kind() == policy.Gateways {
		if g, ok := readable[gatewayv1.Gateway](tenantObject); ok {
			for _, n := range translate.NamedSecrets(g) {
				all = append(all, keys(n, kindSecret)...)
			}
		}
	}
	if c.kind() == policy.ReferenceGrants {
		all = append(all, c.customs.routeKeys(policy.Gateways)...)
		for _, item := range c.caches.tenant.secrets.GetStore().List() {
			if s, ok := item.(*corev1.Secret); ok && s.Namespace == tenantObject.GetNamespace() && s.Type == corev1.SecretTypeTLS {
				all = append(all, keys(translate.NameOf(s), kindSecret)...)
			}
		}
	}
	return all
}

// routeKeys are those of all the tenant's objects of a kind.
func (c *customs) routeKeys(definition string) []engine.Key {
	works, seen := c.works(definition)
	if !seen {
		return nil
	}
	var all []engine.Key
	for _, item := range works.tenantObjects.GetStore().List() {
		if o, ok := item.(object); ok {
			all = append(all, keys(translate.NameOf(o), works.kinds()...)...)
		}
	}
	return all
}

// askedFor is the object for whose hostnames something asks, by its name.
func askedFor(asks tenant.Name) (object tenant.Name, definition string, ok bool) {
	for suffix, definition := range map[string]string{translate.SuffixGatewayHostnames: policy.Gateways, translate.SuffixRouteHostnames: policy.HTTPRoutes} {
		if name, ok := strings.CutSuffix(asks.Name, suffix); ok {
			return tenant.Name{Namespace: asks.Namespace, Name: name}, definition, true
		}
	}
	return tenant.Name{}, "", false
}

// gateways are the tenant's.
func (c *customs) gateways() []*gatewayv1.Gateway {
	works, seen := c.works(policy.Gateways)
	if !seen {
		return nil
	}
	var all []*gatewayv1.Gateway
	for _, item := range works.tenantObjects.GetStore().List() {
		if o, ok := item.(object); ok && o.GetDeletionTimestamp() == nil {
			if g, ok := readable[gatewayv1.Gateway](o); ok {
				all = append(all, g)
			}
		}
	}
	return all
}

// certificates are the keys of the Secrets that Gateways name.
func (c *customs) certificates() []engine.Key {
	var all []engine.Key
	for _, g := range c.gateways() {
		for _, n := range translate.NamedSecrets(g) {
			all = append(all, keys(n, kindSecret)...)
		}
	}
	return all
}

// selectsNamespaces says whether it depends on the labels of a namespace which routes a
// Gateway lets attach.
func (c *customs) selectsNamespaces() bool {
	return slices.ContainsFunc(c.gateways(), func(g *gatewayv1.Gateway) bool {
		return slices.ContainsFunc(g.Spec.Listeners, func(l gatewayv1.Listener) bool {
			return l.AllowedRoutes != nil && l.AllowedRoutes.Namespaces != nil && l.AllowedRoutes.Namespaces.Selector != nil
		})
	})
}

// rerouted are the keys of everything that is looked at together with Gateways.
func (c *customs) rerouted() []engine.Key {
	var all []engine.Key
	c.each(func(works *custom) {
		if ofGateways(works.kind()) && works.ready() {
			all = append(all, works.everything()...)
		}
	})
	return all
}

// settled says whether the host has said all that it has to say of its Gateways or
// HTTPRoutes. What changes by itself later, a tenant that sleeps learns when it wakes.
func (c *custom) settled(hostObject object) bool {
	if c.kind() == policy.Gateways {
		g, ok := readable[gatewayv1.Gateway](hostObject)
		return ok && translate.Settled(g)
	}
	h, ok := readable[gatewayv1.HTTPRoute](hostObject)
	return ok && translate.Settled(h)
}
