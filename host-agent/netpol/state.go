package netpol

import (
	"net/netip"
	"slices"

	networkingv1 "k8s.io/api/networking/v1"

	"sublet.dev/host-agent/podnet"
	"sublet.dev/isolation/policy"
)

// State is everything that a table is rendered from.
type State struct {
	Cluster policy.Cluster
	// NodePods is this node's pod range: an address of it that is no endpoint's is
	// dropped.
	NodePods []netip.Prefix
	// DNS is where this node's DNS listens.
	DNS netip.AddrPort
	// Tenants are those to render, whether they have endpoints here or not.
	Tenants []Tenant
	// System are the endpoints of the provider's pods, Orphans those of tenants
	// that are not known any more: they reach nothing.
	System, Orphans []podnet.Endpoint
}

// Tenant is a tenant's fence and pods.
type Tenant struct {
	Fence policy.Fence
	// Endpoints are the tenant's pods on this node.
	Endpoints []podnet.Endpoint
	// Remote are the addresses of its pods on other nodes.
	Remote []netip.Addr
	// Pods are what is known of its pods here and there, by address. An endpoint
	// whose addresses are not in it is one whose pod is not known: it reaches
	// nothing and nobody reaches it.
	Pods map[netip.Addr]Pod
	// NodePorts are those of its Services, sorted, each once.
	NodePorts []policy.NodePort
	// Balanced are the load balancers' addresses of its Services, sorted, each once.
	Balanced []policy.Balanced
	// Masks are the addresses under which the tenant knows the nodes, and Ways where its
	// node ports there lead, sorted.
	Masks []netip.Addr
	Ways  []Way
	// Ingress are the addresses of the ingress controllers' pods, here and there, that
	// its fence lets in, sorted, each once.
	Ingress []netip.Addr
	// Policies are those in its host namespace, sorted by name.
	Policies []*networkingv1.NetworkPolicy
}

// addresses returns the tenant's pods' IPv4 addresses, sorted, each once.
func (t Tenant) addresses() []netip.Addr {
	all := slices.Clone(t.Remote)
	for _, e := range t.Endpoints {
		all = append(all, e.Addresses...)
	}
	all = slices.DeleteFunc(all, func(a netip.Addr) bool { return !a.Is4() })
	slices.SortFunc(all, netip.Addr.Compare)
	return slices.Compact(all)
}

// endpoints returns all of the node's endpoints.
func (s State) endpoints() []podnet.Endpoint {
	all := slices.Concat(s.System, s.Orphans)
	for _, t := range s.Tenants {
		all = append(all, t.Endpoints...)
	}
	return all
}

// owners returns whose each address on this node is: the container and, as long as
// it is known, the tenant. An address whose owner changes loses its connections.
func (s State) owners() map[netip.Addr]string {
	owners := map[netip.Addr]string{}
	note := func(who string, endpoints []podnet.Endpoint) {
		for _, e := range endpoints {
			for _, a := range v4(e) {
				owners[a] = e.ContainerID + " of " + who
			}
		}
	}
	note("the host", s.System)
	note("nobody", s.Orphans)
	for _, t := range s.Tenants {
		note(string(t.Fence.Tenant), t.Endpoints)
	}
	return owners
}
