package netpol

import (
	"cmp"
	"math"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"

	"sublet.dev/isolation/policy"
	"sublet.dev/isolation/tenant"
)

// Pod is what policies ask of a tenant's pod, wherever it runs.
type Pod struct {
	Labels map[string]string
	Ports  []corev1.ContainerPort // those that have names
}

// allow is one thing that policies allow: whom (the other end of a conversation) and
// which ports of its receiver. It is what rules are rendered from and what
// connections that exist are held against.
type allow struct {
	anybody bool
	pods    []netip.Addr // sorted, each once
	blocks  []span       // sorted, disjoint
	// everything allows all ports of all protocols.
	everything bool
	ports      []portSpan
	named      []portAt // a receiver's port that has a name
	// The tenant's own DNS and API, by the names that policies know them by.
	dns []corev1.Protocol
	api bool
}

// span is a range of IPv4 addresses, ends included.
type span struct{ first, last netip.Addr }

// portSpan is a range of ports, ends included.
type portSpan struct {
	proto       corev1.Protocol
	first, last uint16
}

type portAt struct {
	addr  netip.Addr
	proto corev1.Protocol
	port  uint16
}

// compiler turns the policies of one tenant into what they allow.
type compiler struct {
	tenant Tenant
	// allows and elements are how much has been compiled.
	allows, elements int
	// sorted are the addresses of the tenant's pods that are known.
	sorted []netip.Addr
}

func newCompiler(t Tenant) *compiler {
	c := &compiler{tenant: t}
	for a := range t.Pods {
		if a.Is4() {
			c.sorted = append(c.sorted, a)
		}
	}
	slices.SortFunc(c.sorted, netip.Addr.Compare)
	return c
}

// egress compiles one rule of a policy about what pods may send.
func (c *compiler) egress(r networkingv1.NetworkPolicyEgressRule) allow {
	a := c.peers(r.To)
	a.everything, a.ports = numericPorts(r.Ports)
	a.named = c.namedPorts(r.Ports, c.sorted)
	f := c.tenant.Fence
	if policy.PeersHold(r.To, tenant.DNSAddress(f.Services), policy.DNSLabels()) {
		for _, proto := range []corev1.Protocol{corev1.ProtocolUDP, corev1.ProtocolTCP} {
			if policy.PortsHold(r.Ports, proto, policy.DNSPort, policy.DNSPorts()) {
				a.dns = append(a.dns, proto)
			}
		}
	}
	a.api = policy.PeersHold(r.To, tenant.APIAddress(f.Services), nil) && policy.PortsHold(r.Ports, corev1.ProtocolTCP, policy.APIPort, nil)
	return a
}

// ingress compiles one rule of a policy about what the pods at these addresses may
// get.
func (c *compiler) ingress(r networkingv1.NetworkPolicyIngressRule, receivers []netip.Addr) allow {
	a := c.peers(r.From)
	a.everything, a.ports = numericPorts(r.Ports)
	a.named = c.namedPorts(r.Ports, receivers)
	return a
}

// peers compiles whom a rule names; nobody named means everybody.
func (c *compiler) peers(peers []networkingv1.NetworkPolicyPeer) allow {
	a := allow{anybody: len(peers) == 0}
	for _, p := range peers {
		switch {
		case p.NamespaceSelector != nil: // host namespaces are the provider's business
		case p.IPBlock != nil:
			a.blocks = append(a.blocks, blockSpans(p.IPBlock)...)
		case p.PodSelector != nil:
			a.pods = append(a.pods, c.selected(p.PodSelector)...)
		}
	}
	slices.SortFunc(a.pods, netip.Addr.Compare)
	a.pods, a.blocks = slices.Compact(a.pods), merged(a.blocks)
	return a
}

// selected returns the addresses of the tenant's pods that a selector selects.
func (c *compiler) selected(s *metav1.LabelSelector) []netip.Addr {
	selector, err := metav1.LabelSelectorAsSelector(s)
	if err != nil {
		return nil // the API takes no such selector
	}
	return slices.DeleteFunc(slices.Clone(c.sorted), func(a netip.Addr) bool { return !selector.Matches(labels.Set(c.tenant.Pods[a].Labels)) })
}

// namedPorts returns where the ports are that a rule names.
func (c *compiler) namedPorts(ports []networkingv1.NetworkPolicyPort, at []netip.Addr) []portAt {
	var all []portAt
	for _, p := range ports {
		if p.Port == nil || p.Port.Type != intstr.String {
			continue
		}
		for _, a := range at {
			for _, named := range c.tenant.Pods[a].Ports {
				if named.Name == p.Port.StrVal && named.Protocol == policy.ProtocolOf(p.Protocol) {
					all = append(all, portAt{a, named.Protocol, uint16(named.ContainerPort)})
				}
			}
		}
	}
	slices.SortFunc(all, func(x, y portAt) int {
		return cmp.Or(x.addr.Compare(y.addr), cmp.Compare(x.proto, y.proto), cmp.Compare(x.port, y.port))
	})
	return slices.Compact(all)
}

// numericPorts returns the ports that a rule gives by number; none given means
// everything.
func numericPorts(ports []networkingv1.NetworkPolicyPort) (everything bool, spans []portSpan) {
	for _, p := range ports {
		proto, first, last := policy.ProtocolOf(p.Protocol), int32(0), int32(math.MaxUint16)
		if p.Port != nil {
			first, last = p.Port.IntVal, p.Port.IntVal
			if p.EndPort != nil {
				last = *p.EndPort
			}
		}
		// The API takes no other: what the kernel refuses would keep everybody's rules out.
		if named := p.Port != nil && p.Port.Type == intstr.String; !named && first >= 0 && first <= last && last <= math.MaxUint16 {
			spans = append(spans, portSpan{proto, uint16(first), uint16(last)})
		}
	}
	slices.SortFunc(spans, func(x, y portSpan) int {
		return cmp.Or(cmp.Compare(x.proto, y.proto), cmp.Compare(x.first, y.first), cmp.Compare(x.last, y.last))
	})
	var out []portSpan
	for _, s := range spans {
		last := len(out) - 1
		if last >= 0 && out[last].proto == s.proto && int(s.first) <= int(out[last].last)+1 {
			out[last].last = max(out[last].last, s.last)
			continue
		}
		out = append(out, s)
	}
	return len(ports) == 0, out
}
