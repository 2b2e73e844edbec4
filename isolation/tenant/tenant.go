package tenant

import (
	"fmt"
	"net/netip"
)

// Sandbox is what a tenant's pods run in. There is no value that means "the
// best one available": a sandbox is used or the pod does not run.
type Sandbox string

// The sandboxes.
const (
	// GVisor runs pods under gVisor's runsc: the default, for untrusted tenants.
	GVisor Sandbox = "gvisor"
	// RuncUserNS runs pods under runc in a user namespace of their own
	// (KEP-127), with Pod Security level restricted: what they leave open is
	// completed for it.
	RuncUserNS Sandbox = "runc-userns"
)

// Sandboxes lists every sandbox that can be asked for, the default first.
func Sandboxes() []Sandbox { return []Sandbox{GVisor, RuncUserNS} }

// RuntimeClass returns the name of the host RuntimeClass that is forced on pods.
func (s Sandbox) RuntimeClass() string { return "sublet-" + string(s) }

// Handler returns the name of the CRI runtime handler behind the RuntimeClass.
func (s Sandbox) Handler() string {
	if s == RuncUserNS {
		return "runc"
	}
	return "runsc"
}

// NodeLabel returns the key of the label that a node's agent sets to "true" when
// the sandbox works there, and that RuntimeClass scheduling asks for.
func (s Sandbox) NodeLabel() string { return Domain + "/sandbox-" + string(s) }

// Validate returns an error that lists the possible values unless s is one.
func (s Sandbox) Validate() error {
	for _, v := range Sandboxes() {
		if s == v {
			return nil
		}
	}
	return fmt.Errorf("unknown sandbox %q: use %q or %q", s, GVisor, RuncUserNS)
}

// Tenant is what the parts have to know of a tenant to work for it. It is a
// value; nobody changes it once made.
type Tenant struct {
	ID            ID           `json:"id"`
	Name          string       `json:"name"`
	HostNamespace string       `json:"hostNamespace"`
	Sandbox       Sandbox      `json:"sandbox"`
	ServiceCIDR   netip.Prefix `json:"serviceCIDR"`
	// SecondServiceCIDR is the tenant's slice of the host's other service range, of
	// IPv6; the zero value: the host has none.
	SecondServiceCIDR netip.Prefix `json:"secondServiceCIDR,omitzero"`
}

// ServiceRanges returns the tenant's slices of the host's service ranges.
func (t Tenant) ServiceRanges() []netip.Prefix {
	if !t.SecondServiceCIDR.IsValid() {
		return []netip.Prefix{t.ServiceCIDR}
	}
	return []netip.Prefix{t.ServiceCIDR, t.SecondServiceCIDR}
}

// OwnsService says whether an address is of the tenant's slices.
func (t Tenant) OwnsService(a netip.Addr) bool {
	return t.ServiceCIDR.Contains(a) || t.SecondServiceCIDR.Contains(a)
}

// The places of a tenant's own services in its slice of the service range. The
// first is upstream's choice for default/kubernetes
// (k8s.io/kubernetes/pkg/controlplane, ServiceIPRange), the tenth the custom for
// cluster DNS.
const (
	apiIndex = 1
	dnsIndex = 10
)

// APIAddress returns the cluster IP of default/kubernetes in the slice.
func APIAddress(slice netip.Prefix) netip.Addr { return nth(slice, apiIndex) }

// DNSAddress returns the cluster IP of the tenant's DNS in the slice.
func DNSAddress(slice netip.Prefix) netip.Addr { return nth(slice, dnsIndex) }

// nth returns the address n above the slice's first.
func nth(slice netip.Prefix, n int) netip.Addr {
	a := slice.Masked().Addr()
	for range n {
		a = a.Next()
	}
	return a
}

// Writer names the service account, in its host namespace, that a tenant's syncer writes
// as. There is no such object, so that nobody can have a token of it: the tenant's cell
// impersonates it. A service account can be impersonated with a Role of its namespace; a
// user would need a ClusterRoleBinding for each tenant, and Kubernetes looks through all
// of those at every request of anybody
// (k8s.io/kubernetes/pkg/registry/rbac/validation, VisitRulesFor).
const Writer = "sublet-writer"

// accounts begins the names of users that are service accounts, whose namespace and name
// follow with a colon between them (k8s.io/apiserver/pkg/authentication/serviceaccount).
const accounts = "system:serviceaccount:"

// WriteUser returns the host user that the syncer of the tenant with a host namespace
// writes as.
func WriteUser(hostNamespace string) string { return accounts + hostNamespace + ":" + Writer }

// CellUser returns the host user that a cell reads as.
func CellUser(cell string) string { return "sublet:cell:" + cell }
