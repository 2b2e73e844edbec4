// Package reach is the meaning of the fence between tenants in the plainest code
// possible: may this pod send that packet there? It is what the renderings of
// package policy to nftables and to Calico are held against, and what explains a
// verdict to people.
//
// The flow: [World.May] translates the destination as the proxy of Services does,
// asks the sender's side of the fence, then the receiver's, then the tenant's own
// policies (inner.go), and names the rule that decided.
//
// It knows nothing of kernels and APIs and is slow on purpose: no indexes, no
// caches.
package reach

import (
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"

	"sublet.dev/isolation/policy"
	"sublet.dev/isolation/tenant"
)

// Proto is a transport protocol.
type Proto string

// The protocols that the fence tells apart; any other value is another one.
const (
	TCP  Proto = "TCP"
	UDP  Proto = "UDP"
	ICMP Proto = "ICMP"
)

// Rule names what decided.
type Rule string

// The rules, in the order in which they are asked.
const (
	Itself       Rule = "itself"      // never leaves the pod
	Forged       Rule = "forged"      // the source address is not the sender's
	Host         Rule = "host"        // the node speaks to its own pods
	OwnPod       Rule = "own-pod"     // between pods of one tenant
	OwnDNS       Rule = "own-dns"     // the tenant's DNS
	OwnAPI       Rule = "own-api"     // the tenant's API
	Blocked      Rule = "blocked"     // link-local, metadata and the like
	Node         Rule = "node"        // a node or the host's control plane
	ForeignPod   Rule = "foreign-pod" // a pod that is not the tenant's, or no pod yet
	Service      Rule = "service"     // a virtual address without own pods behind it
	PrivateRange Rule = "private"     // a private network
	Internet     Rule = "internet"    // allowed by plan
	// The tenant's own policies do not allow it, at the sender or at the receiver.
	PolicyEgress  Rule = "policy-egress"
	PolicyIngress Rule = "policy-ingress"
	Default       Rule = "default"       // nothing allowed it
	NodePort      Rule = "node-port"     // from elsewhere by a node port of the tenant's
	LoadBalancer  Rule = "load-balancer" // from elsewhere by a load balancer of the tenant's
	Stranger      Rule = "stranger"      // from elsewhere to a tenant's pod
	Ingress       Rule = "ingress"       // an ingress controller of the provider's that serves the tenant
	System        Rule = "system"        // a pod of the provider to anything but tenants
)

// Decision is a verdict with the rule that decided.
type Decision struct {
	Allow bool
	Rule  Rule
}

// Pod is a pod with an address. Tenant is "" for the provider's own.
type Pod struct {
	Addr   netip.Addr
	Tenant tenant.ID
	// Namespace is the host namespace of a pod of the provider's.
	Namespace string
	// Labels are the host pod's, Ports those that have names: what policies ask of
	// a tenant's pod.
	Labels map[string]string
	Ports  []corev1.ContainerPort
}

// World is everything that a verdict depends on.
type World struct {
	Cluster policy.Cluster
	Fences  []policy.Fence
	Pods    []Pod
	// Services maps virtual addresses to where the proxy leads, for TCP and UDP.
	// Those of the tenants' DNS and API need not be in it.
	Services map[netip.AddrPort][]netip.AddrPort
	// NodePorts are the tenants', with where the proxy leads.
	NodePorts []NodePorts
	// Balanced are the tenants' addresses of load balancers, with where the proxy leads.
	Balanced []Balanced
	// Policies are those in the tenants' host namespaces.
	Policies map[tenant.ID][]*networkingv1.NetworkPolicy
}

// NodePorts is a port of all nodes that leads to a tenant's pods.
type NodePorts struct {
	Tenant tenant.ID
	Proto  Proto
	Port   uint16
	To     []netip.AddrPort
}

// Balanced is an address and port of a load balancer that leads to a tenant's pods.
type Balanced struct {
	Tenant tenant.ID
	Proto  Proto
	At     netip.AddrPort
	To     []netip.AddrPort
}

// Flow is the first packet of a conversation.
type Flow struct {
	// Sender is the address of the pod that sends. An address that is no pod's
	// stands for somebody elsewhere, the invalid one for the pods' own node.
	Sender netip.Addr
	// Source is the source address that the packet claims.
	Source netip.Addr
	To     netip.AddrPort
	Proto  Proto
}

// May says whether a flow is allowed. Where the proxy may lead to several places,
// it is allowed only if all of them are.
func (w World) May(f Flow) Decision {
	if f.Sender.IsValid() && f.To.Addr() == f.Sender {
		return Decision{true, Itself}
	}
	if f.Sender.IsValid() && f.Source != f.Sender {
		return Decision{false, Forged}
	}
	decision := Decision{false, Service}
	for i, to := range w.translate(f) {
		d := w.inner(f, to, w.direct(f, to))
		if i == 0 || !d.Allow {
			decision = d
		}
		if !d.Allow {
			break
		}
	}
	return decision
}

// translate returns where the proxy leads a flow: to the places behind a virtual
// address, of which there may be none, or just where it wants to go.
func (w World) translate(f Flow) []netip.AddrPort {
	if f.Proto == TCP || f.Proto == UDP {
		if to, ok := w.Services[f.To]; ok {
			return to
		}
	}
	if n, ok := w.nodePort(f); ok {
		return n.To
	}
	if b, ok := w.balanced(f); ok {
		return b.To
	}
	if f.Proto == TCP || f.Proto == UDP {
		for _, fence := range w.Fences {
			own := w.pod(f.Sender).Tenant == fence.Tenant
			if f.To == netip.AddrPortFrom(tenant.APIAddress(fence.Services), policy.APIPort) && f.Proto == TCP {
				return fence.API
			}
			if f.To == netip.AddrPortFrom(tenant.DNSAddress(fence.Services), policy.DNSPort) && own {
				return fence.DNS
			}
		}
	}
	return []netip.AddrPort{f.To}
}

// direct judges a flow to a real address.
func (w World) direct(f Flow, to netip.AddrPort) Decision {
	if !f.Sender.IsValid() {
		return Decision{true, Host}
	}
	sender, receiver := w.pod(f.Sender), w.pod(to.Addr())
	var leaves Decision
	switch fence := w.fence(sender.Tenant); {
	case sender.Tenant == "" && receiver.Tenant == "":
		return Decision{true, System}
	case sender.Tenant == "" && f.Proto == TCP && w.serves(sender, receiver.Tenant):
		return Decision{true, Ingress}
	case sender.Tenant == "" && !sender.Addr.IsValid() && w.byNodePort(f, receiver.Tenant):
		return Decision{true, NodePort}
	case sender.Tenant == "" && !sender.Addr.IsValid() && w.byBalancer(f, receiver.Tenant):
		return Decision{true, LoadBalancer}
	case sender.Tenant == "":
		return Decision{false, Stranger}
	case fence == nil:
		return Decision{false, Default}
	default:
		leaves = w.egress(*fence, f.Proto, to)
	}
	if leaves.Allow && receiver.Tenant != "" && receiver.Tenant != sender.Tenant {
		return Decision{false, Stranger}
	}
	return leaves
}

// serves says whether a pod of the provider's is of an ingress controller that a
// tenant's fence lets in.
func (w World) serves(sender Pod, to tenant.ID) bool {
	fence := w.fence(to)
	return fence != nil && sender.Addr.IsValid() && slices.Contains(fence.IngressFrom, sender.Namespace)
}

// nodePort returns the node port that a flow goes to.
func (w World) nodePort(f Flow) (NodePorts, bool) {
	for _, n := range w.NodePorts {
		if n.Proto == f.Proto && n.Port == f.To.Port() && in(f.To.Addr(), w.Cluster.Nodes) {
			return n, true
		}
	}
	return NodePorts{}, false
}

func (w World) byNodePort(f Flow, to tenant.ID) bool {
	n, ok := w.nodePort(f)
	return ok && n.Tenant == to
}

// balanced returns the load balancer's address that a flow goes to.
func (w World) balanced(f Flow) (Balanced, bool) {
	for _, b := range w.Balanced {
		if b.Proto == f.Proto && b.At == f.To {
			return b, true
		}
	}
	return Balanced{}, false
}

func (w World) byBalancer(f Flow, to tenant.ID) bool {
	b, ok := w.balanced(f)
	return ok && b.Tenant == to
}

// egress is the sender's side: the tenant's fence.
func (w World) egress(fence policy.Fence, proto Proto, to netip.AddrPort) Decision {
	ip := to.Addr()
	switch {
	case w.pod(ip).Tenant == fence.Tenant:
		return Decision{true, OwnPod}
	case (proto == TCP || proto == UDP) && slices.Contains(fence.DNS, to):
		return Decision{true, OwnDNS}
	case proto == TCP && slices.Contains(fence.API, to):
		return Decision{true, OwnAPI}
	case in(ip, w.Cluster.Blocked):
		return Decision{false, Blocked}
	case in(ip, w.Cluster.Nodes):
		return Decision{false, Node}
	case in(ip, w.Cluster.PodCIDRs) || slices.ContainsFunc(w.Pods, func(p Pod) bool { return p.Addr == ip }):
		return Decision{false, ForeignPod}
	case in(ip, w.Cluster.ServiceCIDRs):
		return Decision{false, Service}
	case in(ip, w.Cluster.Private):
		return Decision{false, PrivateRange}
	case fence.Internet && ip.Is4() && (proto == TCP || proto == UDP || proto == ICMP):
		return Decision{true, Internet}
	}
	return Decision{false, Default}
}

// pod returns the pod with an address, or the zero Pod.
func (w World) pod(ip netip.Addr) Pod {
	for _, p := range w.Pods {
		if p.Addr == ip {
			return p
		}
	}
	return Pod{}
}

func (w World) fence(id tenant.ID) *policy.Fence {
	for i := range w.Fences {
		if w.Fences[i].Tenant == id {
			return &w.Fences[i]
		}
	}
	return nil
}

func in(ip netip.Addr, ranges []netip.Prefix) bool {
	return slices.ContainsFunc(ranges, func(p netip.Prefix) bool { return p.Contains(ip) })
}
