package policy

import (
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"

	"sublet.dev/isolation/tenant"
)

// A tenant's own NetworkPolicies stand in its host namespace, translated. They are
// asked after the fence, so they can only narrow what it allows. Two places that a
// pod may go to are no pods, and policies know them by more than one name:
//
//   - the tenant's DNS, as a pod of the tenant's kube-system that is labelled
//     k8s-app: kube-dns, at the DNS address of the tenant's slice, ports dns (UDP 53)
//     and dns-tcp (TCP 53);
//   - the tenant's API, as an address without labels: that of the Service
//     default/kubernetes (port 443) and that of its endpoint.
//
// What a policy allows to one of the names is allowed.

// DNSLabels returns the labels by which policies on the host know a tenant's DNS.
// The caller owns the map.
func DNSLabels() map[string]string {
	return map[string]string{
		tenant.LabelNamespace:       tenant.NamespaceValue("kube-system"),
		tenant.HostLabel("k8s-app"): "kube-dns",
	}
}

// DNSPorts returns the named ports of a tenant's DNS. The caller owns the slice.
func DNSPorts() []corev1.ContainerPort {
	return []corev1.ContainerPort{
		{Name: "dns", Protocol: corev1.ProtocolUDP, ContainerPort: DNSPort},
		{Name: "dns-tcp", Protocol: corev1.ProtocolTCP, ContainerPort: DNSPort},
	}
}

// Isolates says in which directions a policy isolates the pods that it selects, by
// the API's defaults when it does not say.
func Isolates(p *networkingv1.NetworkPolicy) (ingress, egress bool) {
	if len(p.Spec.PolicyTypes) == 0 {
		return true, len(p.Spec.Egress) > 0
	}
	return slices.Contains(p.Spec.PolicyTypes, networkingv1.PolicyTypeIngress),
		slices.Contains(p.Spec.PolicyTypes, networkingv1.PolicyTypeEgress)
}

// NamedPorts returns the ports of a pod that policies can name: those with a name,
// of containers that run beside each other. The caller owns the slice.
func NamedPorts(spec *corev1.PodSpec) []corev1.ContainerPort {
	var named []corev1.ContainerPort
	add := func(c *corev1.Container) {
		for _, p := range c.Ports {
			if p.Name != "" {
				named = append(named, corev1.ContainerPort{Name: p.Name, Protocol: ProtocolOf(&p.Protocol), ContainerPort: p.ContainerPort})
			}
		}
	}
	for i := range spec.Containers {
		add(&spec.Containers[i])
	}
	for i := range spec.InitContainers {
		if c := &spec.InitContainers[i]; c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways {
			add(c)
		}
	}
	return named
}

// NodePort is a port of the nodes that leads to a tenant's Service: what comes to it
// from outside the fence lets in.
type NodePort struct {
	Protocol corev1.Protocol
	Port     uint16
}

// NodePortsOf returns the node ports of a host Service.
func NodePortsOf(s *corev1.Service) []NodePort {
	if s.Spec.Type != corev1.ServiceTypeNodePort && s.Spec.Type != corev1.ServiceTypeLoadBalancer {
		return nil
	}
	var ports []NodePort
	for _, p := range s.Spec.Ports {
		if p.NodePort > 0 && p.NodePort <= 65535 {
			ports = append(ports, NodePort{ProtocolOf(&p.Protocol), uint16(p.NodePort)})
		}
	}
	return ports
}

// Balanced is an address and port of a load balancer that leads to a tenant's Service.
// The node's proxy takes packets to it, and the fence lets in what comes so from
// outside.
type Balanced struct {
	Addr netip.Addr
	NodePort
}

// BalancedOf returns the addresses and ports that the host's load balancer has given a
// host Service. Its status is the provider's to write, never the tenant's.
func BalancedOf(s *corev1.Service) []Balanced {
	if s.Spec.Type != corev1.ServiceTypeLoadBalancer {
		return nil
	}
	var all []Balanced
	for _, in := range s.Status.LoadBalancer.Ingress {
		addr, err := netip.ParseAddr(in.IP)
		if err != nil || in.IPMode != nil && *in.IPMode == corev1.LoadBalancerIPModeProxy {
			continue // a name, or a balancer that sends to node ports
		}
		for _, p := range s.Spec.Ports {
			if p.Port > 0 && p.Port <= 65535 {
				all = append(all, Balanced{addr, NodePort{ProtocolOf(&p.Protocol), uint16(p.Port)}})
			}
		}
	}
	return all
}

// ProtocolOf returns a protocol, TCP for none.
func ProtocolOf(p *corev1.Protocol) corev1.Protocol {
	if p == nil || *p == "" {
		return corev1.ProtocolTCP
	}
	return *p
}

// PeersHold says whether the peers of a rule hold an address, which counts as a pod
// with these labels or, for nil, as none. No peers hold everything.
func PeersHold(peers []networkingv1.NetworkPolicyPeer, at netip.Addr, pod map[string]string) bool {
	for _, p := range peers {
		switch {
		case p.NamespaceSelector != nil: // host namespaces are the provider's business
		case p.IPBlock != nil:
			if blockHolds(p.IPBlock, at) {
				return true
			}
		case p.PodSelector != nil && pod != nil:
			selector, err := metav1.LabelSelectorAsSelector(p.PodSelector)
			if err == nil && selector.Matches(labels.Set(pod)) {
				return true
			}
		}
	}
	return len(peers) == 0
}

func blockHolds(b *networkingv1.IPBlock, at netip.Addr) bool {
	within := func(cidr string) bool {
		p, err := netip.ParsePrefix(cidr)
		return err == nil && p.Contains(at)
	}
	return within(b.CIDR) && !slices.ContainsFunc(b.Except, within)
}

// PortsHold says whether the ports of a rule hold one of a protocol, at a place whose
// ports have these names. No ports hold everything.
func PortsHold(ports []networkingv1.NetworkPolicyPort, proto corev1.Protocol, port uint16, names []corev1.ContainerPort) bool {
	holds := func(p networkingv1.NetworkPolicyPort) bool {
		switch {
		case ProtocolOf(p.Protocol) != proto:
			return false
		case p.Port == nil:
			return true
		case p.Port.Type == intstr.String:
			return slices.ContainsFunc(names, func(n corev1.ContainerPort) bool {
				return n.Name == p.Port.StrVal && n.Protocol == proto && n.ContainerPort == int32(port)
			})
		case p.EndPort != nil:
			return p.Port.IntVal <= int32(port) && int32(port) <= *p.EndPort
		}
		return p.Port.IntVal == int32(port)
	}
	return len(ports) == 0 || slices.ContainsFunc(ports, holds)
}
