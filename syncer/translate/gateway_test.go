package translate_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	"sigs.k8s.io/yaml"

	"sublet.dev/isolation/tenant"
	"sublet.dev/syncer/translate"
)

// routing is what a Gateway or an HTTPRoute is translated by: plan.yaml, granted.txt and
// taken.txt as for an Ingress, the Gateways and ReferenceGrants of world.yaml, and in
// unknown.txt fields that nobody knows.
func routing(t *testing.T, tr translate.Translation, given map[string][]byte) translate.Routing {
	t.Helper()
	var plan translate.Ingresses
	if err := yaml.UnmarshalStrict(given["plan.yaml"], &plan); err != nil {
		t.Fatal(err)
	}
	w := tr.Lookup.(world)
	r := translate.Routing{
		Classes: plan.GatewayClasses, Granted: strings.Fields(string(given["granted.txt"])), Taken: strings.Fields(string(given["taken.txt"])),
		Answered: true, Unknown: strings.Fields(string(given["unknown.txt"])),
		Gateway: func(n tenant.Name) (*gatewayv1.Gateway, bool) {
			return find(w, func(g *gatewayv1.Gateway) bool { return translate.NameOf(g) == n })
		},
	}
	for _, o := range w.objects {
		if g, ok := o.(*gatewayv1.ReferenceGrant); ok {
			r.Grants = append(r.Grants, g)
		}
	}
	return r
}

// saidAt is when our own conditions are said.
var saidAt = metav1.NewTime(time.Date(2026, 2, 3, 4, 5, 6, 0, time.UTC))

func runGateway(t *testing.T, tr translate.Translation, tenantGateway *gatewayv1.Gateway, given, got map[string][]byte) {
	r := routing(t, tr, given)
	spec, refused := tr.Gateway(tenantGateway, r)
	if got["host.yaml"] = encode(t, spec); len(refused) > 0 {
		got["refused.txt"] = refusedText(refused)
	}
	var hostGateway *gatewayv1.Gateway
	if status := given["host-status.yaml"]; status != nil {
		hostGateway = decode(t, status)[0].(*gatewayv1.Gateway)
		hostGateway.Annotations = map[string]string{tenant.AnnotationGeneration: fmt.Sprint(tenantGateway.Generation)}
	}
	up, _ := tr.GatewayStatus(tenantGateway, hostGateway, r, saidAt)
	got["up.yaml"] = encode(t, &up.Status)
}

func runRoute(t *testing.T, tr translate.Translation, tenantRoute *gatewayv1.HTTPRoute, given, got map[string][]byte) {
	r := routing(t, tr, given)
	routed := tr.HTTPRoute(tenantRoute, r)
	if got["host.yaml"] = encode(t, routed.Spec); len(routed.Refusals) > 0 {
		got["refused.txt"] = refusedText(routed.Refusals)
	}
	var hostRoute *gatewayv1.HTTPRoute
	if status := given["host-status.yaml"]; status != nil {
		hostRoute = decode(t, status)[0].(*gatewayv1.HTTPRoute)
		hostRoute.Annotations = map[string]string{tenant.AnnotationGeneration: fmt.Sprint(tenantRoute.Generation)}
	}
	up, _ := tr.RouteStatus(tenantRoute, hostRoute, r, saidAt)
	got["up.yaml"] = encode(t, &up.Status)
}
