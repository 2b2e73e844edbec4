package tenant

// AnnotationExternalName holds, on the headless host Service that stands for a
// tenant's Service of type ExternalName, the DNS name that the tenant's Service is
// an alias of, as the tenant chose it.
const AnnotationExternalName = Domain + "/external-name"

// NodeName returns the name under which the tenant knows a host node. It is stable
// and tells neither the host's name nor, to two tenants that compare, that they
// are on the same node.
func (id ID) NodeName(hostNode string) string { return "node-" + digest(8, string(id), hostNode) }
