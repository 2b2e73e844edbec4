package tenant

import "strings"

// hostNamespacePrefix begins every host namespace of a tenant.
const hostNamespacePrefix = "sublet-"

// IsHostNamespace says whether a host namespace has a name that only a tenant's
// has, whether that tenant is known or not.
func IsHostNamespace(namespace string) bool {
	return strings.HasPrefix(namespace, hostNamespacePrefix)
}
