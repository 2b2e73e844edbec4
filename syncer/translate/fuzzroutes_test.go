package translate_test

import (
	"slices"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/utils/ptr"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"sublet.dev/isolation/tenant"
	"sublet.dev/syncer/translate"
)

// FuzzRoutes holds what the host gets of Gateways and HTTPRoutes against what must hold of
// it whatever a tenant writes: names of the one namespace alone, hostnames that the tenant
// has, nothing that differs from one time to the next.
func FuzzRoutes(f *testing.F) {
	f.Add("web", "shop.example", "other", "PathPrefix", "/", true)
	f.Add("../x", "*.bank.example", "kube-system", "RegularExpression", "`) || Host(`bank.example", false)
	f.Fuzz(func(t *testing.T, name, hostname, namespace, kind, text string, permitted bool) {
		h, ns, n := gatewayv1.Hostname(hostname), gatewayv1.Namespace(namespace), gatewayv1.ObjectName(name)
		m := metav1.ObjectMeta{Namespace: "shop", Name: "web", UID: "u1"}
		all := &gatewayv1.AllowedRoutes{Namespaces: &gatewayv1.RouteNamespaces{From: ptr.To(gatewayv1.NamespacesFromAll)}}
		gateway := &gatewayv1.Gateway{ObjectMeta: m, Spec: gatewayv1.GatewaySpec{GatewayClassName: "public", Listeners: []gatewayv1.Listener{
			{Name: "own", Hostname: ptr.To[gatewayv1.Hostname]("shop.example"), Port: 80, Protocol: "HTTP", AllowedRoutes: all},
			{Name: gatewayv1.SectionName(text), Hostname: &h, Port: 443, Protocol: gatewayv1.ProtocolType(kind), TLS: &gatewayv1.ListenerTLSConfig{
				CertificateRefs: []gatewayv1.SecretObjectReference{{Name: n}, {Name: n, Namespace: &ns}, {Name: n, Kind: ptr.To(gatewayv1.Kind(kind))}}}},
		}}}
		path := gatewayv1.PathMatchType(kind)
		backend := gatewayv1.BackendObjectReference{Name: n, Namespace: &ns, Port: ptr.To[gatewayv1.PortNumber](80)}
		route := &gatewayv1.HTTPRoute{ObjectMeta: m, Spec: gatewayv1.HTTPRouteSpec{
			CommonRouteSpec: gatewayv1.CommonRouteSpec{ParentRefs: []gatewayv1.ParentReference{{Name: "web"}, {Name: n, Namespace: &ns}, {Name: "web", SectionName: ptr.To(gatewayv1.SectionName(text))}}},
			Hostnames:       []gatewayv1.Hostname{"shop.example", h},
			Rules: []gatewayv1.HTTPRouteRule{{
				Matches:     []gatewayv1.HTTPRouteMatch{{Path: &gatewayv1.HTTPPathMatch{Type: &path, Value: &text}}},
				Filters:     []gatewayv1.HTTPRouteFilter{{Type: "RequestMirror", RequestMirror: &gatewayv1.HTTPRequestMirrorFilter{BackendRef: backend}}},
				BackendRefs: []gatewayv1.HTTPBackendRef{{BackendRef: gatewayv1.BackendRef{BackendObjectReference: backend}}, {BackendRef: gatewayv1.BackendRef{BackendObjectReference: gatewayv1.BackendObjectReference{Name: n, Kind: ptr.To(gatewayv1.Kind(kind))}}}},
			}},
		}}
		r := translate.Routing{Classes: []string{"public"}, Granted: []string{"shop.example"}, Answered: true,
			Gateway: func(n tenant.Name) (*gatewayv1.Gateway, bool) {
				return gateway, n == tenant.Name{Namespace: "shop", Name: "web"} || n.Name == name
			}}
		if permitted {
			for _, from := range []gatewayv1.Kind{"Gateway", "HTTPRoute"} {
				r.Grants = append(r.Grants, &gatewayv1.ReferenceGrant{ObjectMeta: metav1.ObjectMeta{Namespace: namespace}, Spec: gatewayv1.ReferenceGrantSpec{
					From: []gatewayv1.ReferenceGrantFrom{{Group: gatewayv1.GroupName, Kind: from, Namespace: "shop"}}, To: []gatewayv1.ReferenceGrantTo{{Kind: "Service"}, {Kind: "Secret"}}}})
			}
		}
		gatewayBefore, routeBefore := gateway.DeepCopy(), route.DeepCopy()
		hostGateway, _ := one.Gateway(gateway, r)
		routed := one.HTTPRoute(route, r)
		again, _ := one.Gateway(gateway, r)
		if !equality.Semantic.DeepEqual(hostGateway, again) || !equality.Semantic.DeepEqual(routed, one.HTTPRoute(route, r)) {
			t.Fatal("it is another each time")
		}
		one.GatewayStatus(gateway, nil, r, metav1.Time{})
		one.RouteStatus(route, nil, r, metav1.Time{})
		if !equality.Semantic.DeepEqual(gateway, gatewayBefore) || !equality.Semantic.DeepEqual(route, routeBefore) {
			t.Fatal("the tenant's object was changed")
		}
		if hostGateway == nil {
			t.Fatal("the tenant's own listener is not on the host")
		}
		checkGateway(t, hostGateway)
		if routed.Spec != nil {
			checkRoute(t, routed.Spec)
		}
	})
}

func checkGateway(t *testing.T, spec *gatewayv1.GatewaySpec) {
	for _, l := range spec.Listeners {
		if *l.Hostname != "shop.example" || l.Protocol != "HTTP" && l.Protocol != "HTTPS" || *l.AllowedRoutes.Namespaces.From != gatewayv1.NamespacesFromSame {
			t.Fatalf("the listener %+v", l)
		}
		if l.TLS == nil {
			continue
		}
		for _, c := range l.TLS.CertificateRefs {
			if c.Namespace != nil || c.Kind != nil || c.Group != nil || !isHostName(string(c.Name)) {
				t.Fatalf("the certificate %+v", c)
			}
		}
	}
}

func checkRoute(t *testing.T, spec *gatewayv1.HTTPRouteSpec) {
	if !slices.Equal(spec.Hostnames, []gatewayv1.Hostname{"shop.example"}) && !slices.Equal(spec.Hostnames, []gatewayv1.Hostname{"shop.example", "shop.example"}) {
		t.Fatalf("the hostnames %v", spec.Hostnames)
	}
	for _, p := range spec.ParentRefs {
		if p.Namespace != nil || p.Kind != nil || p.Group != nil || !isHostName(string(p.Name)) {
			t.Fatalf("the parent %+v", p)
		}
	}
	for _, rule := range spec.Rules {
		refs := []gatewayv1.BackendObjectReference{rule.Filters[0].RequestMirror.BackendRef}
		for _, b := range rule.BackendRefs {
			refs = append(refs, b.BackendObjectReference)
		}
		for _, b := range refs {
			if b.Namespace != nil || b.Kind != nil || b.Group != nil || !isHostName(string(b.Name)) {
				t.Fatalf("the backend %+v", b)
			}
		}
		if v := *rule.Matches[0].Path.Value; strings.ContainsAny(v, "`\"${}\\\n") || *rule.Matches[0].Path.Type == gatewayv1.PathMatchRegularExpression {
			t.Fatalf("the path %q", v)
		}
	}
}

func isHostName(name string) bool { return len(validation.IsDNS1035Label(name)) == 0 }
