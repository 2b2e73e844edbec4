package policy

import "k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

// The kinds of the Gateway API (https://gateway-api.sigs.k8s.io) that tenants have whose
// plan offers gateway classes, and the versions in which they have them.
const (
	GatewayGroup          = "gateway.networking.k8s.io"
	GatewayVersion        = "v1"
	ReferenceGrantVersion = "v1beta1" // the first that is there everywhere

	GatewayKind        = "Gateway"
	HTTPRouteKind      = "HTTPRoute"
	GatewayClassKind   = "GatewayClass"
	ReferenceGrantKind = "ReferenceGrant"

	gatewayResource      = "gateways"
	routeResource        = "httproutes"
	gatewayClassResource = "gatewayclasses"
	grantResource        = "referencegrants"
)

// The names of their definitions. ReferenceGrants stay in the tenant.
const (
	Gateways        = gatewayResource + "." + GatewayGroup
	HTTPRoutes      = routeResource + "." + GatewayGroup
	GatewayClasses  = gatewayClassResource + "." + GatewayGroup
	ReferenceGrants = grantResource + "." + GatewayGroup
)

// RoutedHostnames returns the hostnames of a host Gateway's listeners, "" for one that
// serves every hostname, or of a host HTTPRoute, which without any serves those of the
// listeners that it attaches to. The object is not changed.
func RoutedHostnames(hostObject map[string]any) []string {
	names, _, _ := unstructured.NestedStringSlice(hostObject, "spec", "hostnames") // of another type there are none
	listeners, _, _ := unstructured.NestedSlice(hostObject, "spec", "listeners")
	for _, l := range listeners {
		listener, _ := l.(map[string]any)
		name, _ := listener["hostname"].(string)
		names = append(names, name)
	}
	return names
}
