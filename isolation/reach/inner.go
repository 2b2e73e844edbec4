package reach

import (
	"net/netip"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"

	"sublet.dev/isolation/policy"
	"sublet.dev/isolation/tenant"
)

// end is one end of a flow as policies see it.
type end struct {
	addr   netip.Addr
	port   uint16
	isPod  bool // of the tenant whose policies are asked
	labels labels.Set
	ports  []corev1.ContainerPort // named ones
}

func (p Pod) end(port uint16) end {
	return end{addr: p.Addr, port: port, isPod: true, labels: p.Labels, ports: p.Ports}
}

// inner asks the tenant's own policies about a flow that the fence allows: the
// sender's, then the receiver's.
func (w World) inner(f Flow, to netip.AddrPort, d Decision) Decision {
	sender, receiver := w.pod(f.Sender), w.pod(to.Addr())
	if !d.Allow || sender.Addr == to.Addr() {
		return d
	}
	if sender.Tenant != "" && !w.leaves(sender, w.names(sender.Tenant, to, d.Rule), f.Proto) {
		return Decision{false, PolicyEgress}
	}
	from := end{addr: f.Sender}
	if sender.Tenant != "" {
		from = sender.end(0)
	}
	if receiver.Tenant != "" && f.Sender.IsValid() && !w.enters(from, receiver, to.Port(), f.Proto) {
		return Decision{false, PolicyIngress}
	}
	return d
}

// names returns what policies know a destination as.
func (w World) names(id tenant.ID, to netip.AddrPort, rule Rule) []end {
	fence := w.fence(id)
	switch plain := (end{addr: to.Addr(), port: to.Port()}); {
	case rule == OwnPod:
		return []end{w.pod(to.Addr()).end(to.Port())}
	case rule == OwnDNS:
		return []end{plain, {addr: tenant.DNSAddress(fence.Services), port: policy.DNSPort, isPod: true, labels: policy.DNSLabels(), ports: policy.DNSPorts()}}
	case rule == OwnAPI:
		return []end{plain, {addr: tenant.APIAddress(fence.Services), port: policy.APIPort}}
	default:
		return []end{plain}
	}
}

// leaves asks the sender's policies whether they allow one of a destination's
// names. A pod that none selects may go anywhere.
func (w World) leaves(sender Pod, to []end, proto Proto) bool {
	isolated := false
	for _, p := range w.Policies[sender.Tenant] {
		if _, egress := policy.Isolates(p); !egress || !selects(&p.Spec.PodSelector, sender.Labels) {
			continue
		}
		isolated = true
		for _, rule := range p.Spec.Egress {
			for _, name := range to {
				if anyPeer(rule.To, name) && anyPort(rule.Ports, name, proto) {
					return true
				}
			}
		}
	}
	return !isolated
}

// enters asks the receiver's policies.
func (w World) enters(from end, receiver Pod, port uint16, proto Proto) bool {
	isolated := false
	for _, p := range w.Policies[receiver.Tenant] {
		if ingress, _ := policy.Isolates(p); !ingress || !selects(&p.Spec.PodSelector, receiver.Labels) {
			continue
		}
		isolated = true
		for _, rule := range p.Spec.Ingress {
			if anyPeer(rule.From, from) && anyPort(rule.Ports, receiver.end(port), proto) {
				return true
			}
		}
	}
	return !isolated
}

// anyPeer says whether a rule's peers hold an end; no peers hold all.
func anyPeer(peers []networkingv1.NetworkPolicyPeer, e end) bool {
	for _, p := range peers {
		switch {
		case p.NamespaceSelector != nil: // host namespaces are the provider's business
		case p.IPBlock != nil && inBlock(p.IPBlock, e.addr):
			return true
		case p.PodSelector != nil && e.isPod && selects(p.PodSelector, e.labels):
			return true
		}
	}
	return len(peers) == 0
}

func inBlock(b *networkingv1.IPBlock, ip netip.Addr) bool {
	within := func(cidr string) bool {
		p, err := netip.ParsePrefix(cidr)
		return err == nil && p.Contains(ip)
	}
	for _, except := range b.Except {
		if within(except) {
			return false
		}
	}
	return within(b.CIDR)
}

// anyPort says whether a rule's ports hold the one at an end; no ports hold all, of
// every protocol.
func anyPort(ports []networkingv1.NetworkPolicyPort, at end, proto Proto) bool {
	for _, p := range ports {
		if string(policy.ProtocolOf(p.Protocol)) == string(proto) && onePort(p, at) {
			return true
		}
	}
	return len(ports) == 0
}

func onePort(p networkingv1.NetworkPolicyPort, at end) bool {
	switch {
	case p.Port == nil:
		return true
	case p.Port.Type == intstr.Int && p.EndPort != nil:
		return int32(at.port) >= p.Port.IntVal && int32(at.port) <= *p.EndPort
	case p.Port.Type == intstr.Int:
		return int32(at.port) == p.Port.IntVal
	}
	for _, named := range at.ports {
		if named.Name == p.Port.StrVal && named.Protocol == policy.ProtocolOf(p.Protocol) && named.ContainerPort == int32(at.port) {
			return true
		}
	}
	return false
}

func selects(s *metav1.LabelSelector, set labels.Set) bool {
	selector, err := metav1.LabelSelectorAsSelector(s)
	return err == nil && selector.Matches(set)
}
