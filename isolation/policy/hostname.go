package policy

import (
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"
)

// What one tenant may ask for: all tenants' hostnames are decided about together, and
// they stand in an annotation.
const (
	// MaxHostnames is how many hostnames a tenant has at most.
	MaxHostnames = 500
	// MaxHostnamesOfOne is how many one object of a tenant may ask for.
	MaxHostnamesOfOne = 100
)

// IsHostname says whether a name is a DNS name in lower case (RFC 1123) or one with a
// wildcard for its first label. An address is none.
func IsHostname(name string) bool {
	if strings.HasPrefix(name, "*.") {
		return len(validation.IsWildcardDNS1123Subdomain(name)) == 0
	}
	return len(validation.IsDNS1123Subdomain(name)) == 0 && len(validation.IsValidIP(nil, name)) > 0
}

// HostnamesOverlap says whether there is a name that both of two hostnames serve. A
// wildcard serves everything below it, at any depth: controllers differ in that, and
// what one of them would mix up is kept apart.
func HostnamesOverlap(a, b string) bool { return covers(a, b) || covers(b, a) }

// covers says whether the hostname a serves all that b does.
func covers(a, b string) bool {
	suffix, wild := strings.CutPrefix(a, "*")
	return a == b || wild && strings.HasSuffix(strings.TrimPrefix(b, "*"), suffix)
}

// HostnameAllowed says whether a plan with these hostnames allows one to a tenant of
// that name: see v1alpha1.IngressTerms.
func HostnameAllowed(name, tenantName string, allowed []string) bool {
	return IsHostname(name) && slices.ContainsFunc(allowed, func(pattern string) bool {
		return pattern == "*" || covers(strings.ReplaceAll(pattern, "{tenant}", tenantName), name)
	})
}
