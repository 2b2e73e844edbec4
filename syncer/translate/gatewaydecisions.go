package translate

const (
	whyExperimental = "this field is not of the standard Gateway API: remove it"
	whyInfra        = "how and where the provider's controller runs is the provider's: remove the field"
	whyExtension    = "what a controller makes of its own objects is the provider's affair: remove it"
	whyRegex        = "regular expressions are not the same to every controller: use another type"
	whyProtocol     = "only HTTP and HTTPS that ends at the gateway are offered: use one of them"
	whyFilter       = "this filter is not offered: remove it"
	whyClients      = "certificates of clients and of backends are not offered at gateways: remove the field"
)

// gatewayDecisions are the decisions on the fields of Gateways and HTTPRoutes.
var gatewayDecisions = map[string]fields{
	"GatewaySpec": with(all(copied, "GatewayClassName"), all(translated, "Listeners"), fields{
		"Addresses": refuse(whyInfra), "Infrastructure": refuse(whyInfra), "AllowedListeners": refuse("ListenerSets are not offered: remove the field"),
		"TLS": refuse(whyClients), "DefaultScope": refuse(whyExperimental, "None"),
	}),
	"Listener":              with(all(copied, "Name", "Hostname", "Port"), all(translated, "TLS", "AllowedRoutes"), fields{"Protocol": refuse(whyProtocol, "HTTP", "HTTPS")}),
	"ListenerTLSConfig":     with(all(translated, "CertificateRefs"), fields{"Mode": refuse(whyProtocol, "Terminate"), "Options": refuse(whyExtension)}),
	"SecretObjectReference": all(translated, "Group", "Kind", "Name", "Namespace"),
	"AllowedRoutes":         all(translated, "Namespaces", "Kinds"),
	"RouteNamespaces":       all(translated, "From", "Selector"),
	"RouteGroupKind":        all(translated, "Group", "Kind"),

	"HTTPRouteSpec":   with(all(translated, "CommonRouteSpec", "Rules"), all(copied, "Hostnames")),
	"CommonRouteSpec": with(all(translated, "ParentRefs"), fields{"UseDefaultGateways": refuse(whyExperimental, "None")}),
	"ParentReference": all(translated, "Group", "Kind", "Namespace", "Name", "SectionName", "Port"),
	"HTTPRouteRule": with(all(copied, "Name", "Matches", "Timeouts"), all(translated, "Filters", "BackendRefs"),
		fields{"Retry": refuse(whyExperimental), "SessionPersistence": refuse(whyExperimental)}),
	"HTTPRouteTimeouts":       all(copied, "Request", "BackendRequest"),
	"HTTPRouteMatch":          all(copied, "Path", "Headers", "QueryParams", "Method"),
	"HTTPPathMatch":           with(all(copied, "Value"), fields{"Type": refuse(whyRegex, "Exact", "PathPrefix")}),
	"HTTPHeaderMatch":         with(all(copied, "Name", "Value"), fields{"Type": refuse(whyRegex, "Exact")}),
	"HTTPQueryParamMatch":     with(all(copied, "Name", "Value"), fields{"Type": refuse(whyRegex, "Exact")}),
	"HTTPBackendRef":          all(translated, "BackendRef", "Filters"),
	"BackendRef":              with(all(translated, "BackendObjectReference"), all(copied, "Weight")),
	"BackendObjectReference":  with(all(translated, "Group", "Kind", "Name", "Namespace"), all(copied, "Port")),
	"HTTPRequestMirrorFilter": with(all(translated, "BackendRef"), all(copied, "Percent", "Fraction")),
	"Fraction":                all(copied, "Numerator", "Denominator"),
	"HTTPRouteFilter": with(all(copied, "RequestHeaderModifier", "ResponseHeaderModifier", "RequestRedirect", "URLRewrite", "CORS"), all(translated, "RequestMirror"), fields{
		"Type":         refuse(whyFilter, "RequestHeaderModifier", "ResponseHeaderModifier", "RequestMirror", "RequestRedirect", "URLRewrite", "CORS"),
		"ExternalAuth": refuse(whyExperimental), "ExtensionRef": refuse(whyExtension),
	}),
	"HTTPHeaderFilter":          all(copied, "Set", "Add", "Remove"),
	"HTTPRequestRedirectFilter": all(copied, "Scheme", "Hostname", "Path", "Port", "StatusCode"),
	"HTTPURLRewriteFilter":      all(copied, "Hostname", "Path"),
	"HTTPPathModifier":          all(copied, "Type", "ReplaceFullPath", "ReplacePrefixMatch"),
	"HTTPCORSFilter":            all(copied, "AllowOrigins", "AllowCredentials", "AllowMethods", "AllowHeaders", "ExposeHeaders", "MaxAge"),
}
