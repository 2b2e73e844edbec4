package calico

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	v3 "github.com/projectcalico/api/pkg/apis/projectcalico/v3"
	"github.com/projectcalico/api/pkg/lib/numorstring"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"sublet.dev/isolation/policy"
	"sublet.dev/isolation/tenant"
)

const (
	// InnerTierName names the tier of the tenants' own policies.
	InnerTierName = "sublet-policies"
	// innerOrder is just after the tenants' fences.
	innerOrder = tierOrder + 1
)

func newTier(name string, order float64) *v3.Tier {
	deny := v3.Deny
	tier := v3.NewTier()
	tier.ObjectMeta = meta(name, nil)
	tier.Spec = v3.TierSpec{Order: &order, DefaultAction: &deny}
	return tier
}

// innerPolicy is one of the tenant's own policies, as it stands in its host
// namespace. Calico would carry that out as it is, but for the tenant's DNS and API,
// which policies know by names that are not where packets go in the end.
func innerPolicy(f policy.Fence, own string, from *networkingv1.NetworkPolicy) *v3.GlobalNetworkPolicy {
	order := float64(100)
	p := v3.NewGlobalNetworkPolicy()
	p.ObjectMeta = meta(InnerTierName+".t-"+f.Tenant.Short()+"-"+from.Name, map[string]string{tenant.LabelTenant: string(f.Tenant)})
	p.Spec = v3.GlobalNetworkPolicySpec{Tier: InnerTierName, Order: &order, Selector: selectorOf(own, &from.Spec.PodSelector)}
	ingress, egress := policy.Isolates(from)
	if ingress {
		p.Spec.Types = append(p.Spec.Types, v3.PolicyTypeIngress)
		for _, r := range from.Spec.Ingress {
			for _, peer := range entities(own, r.From) {
				for _, port := range portsOf(r.Ports) {
					p.Spec.Ingress = append(p.Spec.Ingress, v3.Rule{Action: v3.Allow, Protocol: port.protocol, Source: peer, Destination: v3.EntityRule{Ports: port.ports}})
				}
			}
		}
	}
	if egress {
		p.Spec.Types = append(p.Spec.Types, v3.PolicyTypeEgress)
		for _, r := range from.Spec.Egress {
			for _, peer := range entities(own, r.To) {
				for _, port := range portsOf(r.Ports) {
					peer.Ports = port.ports
					p.Spec.Egress = append(p.Spec.Egress, v3.Rule{Action: v3.Allow, Protocol: port.protocol, Destination: peer})
				}
			}
			p.Spec.Egress = append(p.Spec.Egress, byName(f, r)...)
		}
	}
	return p
}

// byName allows the tenant's DNS and API where they are in the end, if a rule allows
// them by the names that policies know them by.
func byName(f policy.Fence, r networkingv1.NetworkPolicyEgressRule) (rules []v3.Rule) {
	allow := func(proto string) func(v3.Rule) v3.Rule {
		return func(r v3.Rule) v3.Rule { r.Action, r.Protocol = v3.Allow, protocol(proto); return r }
	}
	if policy.PeersHold(r.To, tenant.DNSAddress(f.Services), policy.DNSLabels()) {
		for _, proto := range []corev1.Protocol{corev1.ProtocolUDP, corev1.ProtocolTCP} {
			for _, at := range f.DNS {
				if policy.PortsHold(r.Ports, proto, policy.DNSPort, policy.DNSPorts()) {
					rules = append(rules, allow(string(proto))(passTo(string(proto), at)))
				}
			}
		}
	}
	if policy.PeersHold(r.To, tenant.APIAddress(f.Services), nil) && policy.PortsHold(r.Ports, corev1.ProtocolTCP, policy.APIPort, nil) {
		for _, at := range f.API {
			rules = append(rules, allow(numorstring.ProtocolTCP)(passTo(numorstring.ProtocolTCP, at)))
		}
	}
	return rules
}

// entities are the peers of a rule; one that is everybody for none.
func entities(own string, peers []networkingv1.NetworkPolicyPeer) []v3.EntityRule {
	if len(peers) == 0 {
		return []v3.EntityRule{{}}
	}
	var out []v3.EntityRule
	for _, p := range peers {
		switch {
		case p.NamespaceSelector != nil: // host namespaces are the provider's business
		case p.IPBlock != nil:
			out = append(out, v3.EntityRule{Nets: []string{p.IPBlock.CIDR}, NotNets: p.IPBlock.Except})
		case p.PodSelector != nil:
			out = append(out, v3.EntityRule{Selector: selectorOf(own, p.PodSelector)})
		}
	}
	return out
}

// protocolPorts are ports of one protocol; nil for all.
type protocolPorts struct {
	protocol *numorstring.Protocol
	ports    []numorstring.Port
}

// portsOf groups the ports of a rule by protocol; one that is everything for none.
func portsOf(ports []networkingv1.NetworkPolicyPort) []protocolPorts {
	if len(ports) == 0 {
		return []protocolPorts{{}}
	}
	var out []protocolPorts
	for _, proto := range []corev1.Protocol{corev1.ProtocolTCP, corev1.ProtocolUDP, corev1.ProtocolSCTP} {
		group, all := protocolPorts{protocol: protocol(string(proto))}, false
		for _, p := range ports {
			switch {
			case policy.ProtocolOf(p.Protocol) != proto:
			case p.Port == nil:
				all = true
			case p.Port.Type == intstr.String:
				group.ports = append(group.ports, numorstring.NamedPort(p.Port.StrVal))
			case p.EndPort != nil:
				group.ports = append(group.ports, numorstring.Port{MinPort: uint16(p.Port.IntVal), MaxPort: uint16(*p.EndPort)})
			default:
				group.ports = append(group.ports, numorstring.SinglePort(uint16(p.Port.IntVal)))
			}
		}
		if all {
			group.ports = nil
		}
		if all || len(group.ports) > 0 {
			out = append(out, group)
		}
	}
	return out
}

// selectorOf writes a selector of the tenant's own pods as Calico does. Keys and values
// are those of labels, which have no quotes in them.
func selectorOf(own string, s *metav1.LabelSelector) string {
	terms := []string{own}
	for _, r := range requirements(s) {
		switch r.Operator {
		case metav1.LabelSelectorOpExists:
			terms = append(terms, fmt.Sprintf("has(%s)", r.Key))
		case metav1.LabelSelectorOpDoesNotExist:
			terms = append(terms, fmt.Sprintf("!has(%s)", r.Key))
		case metav1.LabelSelectorOpIn:
			terms = append(terms, fmt.Sprintf("%s in {%s}", r.Key, quoted(r.Values)))
		default:
			terms = append(terms, fmt.Sprintf("%s not in {%s}", r.Key, quoted(r.Values)))
		}
	}
	return strings.Join(terms, " && ")
}

// requirements returns all of a selector, labels first, in the order of their keys.
func requirements(s *metav1.LabelSelector) []metav1.LabelSelectorRequirement {
	var all []metav1.LabelSelectorRequirement
	for _, key := range slices.Sorted(maps.Keys(s.MatchLabels)) {
		all = append(all, metav1.LabelSelectorRequirement{Key: key, Operator: metav1.LabelSelectorOpIn, Values: []string{s.MatchLabels[key]}})
	}
	return append(all, s.MatchExpressions...)
}

func quoted(values []string) string {
	out := make([]string, len(values))
	for i, v := range values {
		out[i] = fmt.Sprintf("%q", v)
	}
	return strings.Join(out, ", ")
}
