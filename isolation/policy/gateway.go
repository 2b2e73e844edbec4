package policy

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
