package netpol

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"sublet.dev/host-agent/nft"
)

// The second tier: what a tenant's own NetworkPolicies leave of what its fence
// allows. An endpoint that they isolate has an element in guard_out or guard_in; its
// chain returns what is allowed and ends with what is not. They are asked after the
// fence, with addresses after translation.

// guard adds a tenant's part of the second tier.
func (r *renderer) guard(t Tenant) {
	g := guardsOf(t)
	for _, e := range t.Endpoints {
		if one, ok := g.out[e.Interface]; ok {
			r.guardOut[e.Interface] = one.verdict("goto refuse")
		}
		if one, ok := g.in[e.Interface]; ok {
			r.guardIn[e.Interface] = one.verdict("drop")
		}
	}
	for _, c := range g.chains {
		own := []string{"oifname . ip saddr @sources return"} // what a pod sends to itself
		last := r.count(t, "policy_in") + " drop"
		if c.egress {
			own, last = []string{"iifname . ip daddr @sources return"}, r.count(t, "policy_out")+" goto refuse"
		}
		rules := own
		for _, a := range c.allows {
			rules = append(rules, r.allowed(t, a, c.egress)...)
		}
		r.table.Chains = append(r.table.Chains, nft.Chain{Name: c.chain, Rules: append(once(rules), last)})
	}
}

func (g *guard) verdict(closed string) string {
	if g.closed {
		return closed
	}
	return "jump " + g.chain
}

// allowed renders one thing that is allowed: every way to match the peer with every
// way to match the port.
func (r *renderer) allowed(t Tenant, a allow, egress bool) []string {
	var rules []string
	for _, peer := range r.peerMatches(t, a, egress) {
		for _, port := range r.portMatches(t, a) {
			rules = append(rules, peer+port+"return")
		}
	}
	for _, proto := range a.dns {
		for _, at := range t.Fence.DNS {
			rules = append(rules, fmt.Sprintf("ip daddr %s %s dport %d return", at.Addr(), strings.ToLower(string(proto)), at.Port()))
		}
	}
	if a.api {
		for _, at := range t.Fence.API {
			rules = append(rules, fmt.Sprintf("ip daddr %s tcp dport %d return", at.Addr(), at.Port()))
		}
	}
	return rules
}

func (r *renderer) peerMatches(t Tenant, a allow, egress bool) []string {
	if a.anybody {
		return []string{""}
	}
	end := "saddr"
	if egress {
		end = "daddr"
	}
	var matches []string
	if len(a.pods) > 0 {
		elements := make([]string, len(a.pods))
		for i, ip := range a.pods {
			elements[i] = ip.String()
		}
		matches = append(matches, fmt.Sprintf("ip %s @%s ", end, r.guardSet(t, "ipv4_addr", false, elements)))
	}
	if len(a.blocks) > 0 {
		elements := make([]string, len(a.blocks))
		for i, s := range a.blocks {
			elements[i] = s.String()
		}
		matches = append(matches, fmt.Sprintf("ip %s @%s ", end, r.guardSet(t, "ipv4_addr", true, elements)))
	}
	return matches
}

func (r *renderer) portMatches(t Tenant, a allow) []string {
	if a.everything {
		return []string{""}
	}
	var matches []string
	for _, proto := range []corev1.Protocol{corev1.ProtocolSCTP, corev1.ProtocolTCP, corev1.ProtocolUDP} {
		name := strings.ToLower(string(proto))
		if ports := portList(a.ports, proto); ports == allPorts {
			matches = append(matches, "meta l4proto "+name+" ")
		} else if ports != "" {
			matches = append(matches, name+" dport "+ports+" ")
		}
		var named []string
		for _, at := range a.named {
			if at.proto == proto {
				named = append(named, fmt.Sprintf("%s . %d", at.addr, at.port))
			}
		}
		if len(named) > 0 {
			matches = append(matches, fmt.Sprintf("ip daddr . %s dport @%s ", name, r.guardSet(t, "ipv4_addr . inet_service", false, named)))
		}
	}
	return matches
}

const allPorts = "0-65535"

// portList writes the ports of a protocol as nft does; "" for none.
func portList(spans []portSpan, proto corev1.Protocol) string {
	var parts []string
	for _, s := range spans {
		if s.proto != proto {
			continue
		}
		if s.first == s.last {
			parts = append(parts, fmt.Sprint(s.first))
		} else {
			parts = append(parts, fmt.Sprintf("%d-%d", s.first, s.last))
		}
	}
	if len(parts) > 1 {
		return "{ " + strings.Join(parts, ", ") + " }"
	}
	return strings.Join(parts, "")
}

// guardSet makes a set of a tenant, once for the same content, and returns its name.
func (r *renderer) guardSet(t Tenant, typ string, interval bool, elements []string) string {
	slices.Sort(elements)
	elements = slices.Compact(elements)
	name := fmt.Sprintf("%sset_%s", prefix(t.Fence), digest(fmt.Sprint(typ, interval, elements)))
	if !r.guardSets[name] {
		r.guardSets[name] = true
		r.table.Sets = append(r.table.Sets, nft.Set{Name: name, Type: typ, Interval: interval, Elements: elements})
	}
	return name
}

// once returns the rules without repetitions, in their order.
func once(rules []string) []string {
	seen := map[string]bool{}
	return slices.DeleteFunc(rules, func(rule string) bool {
		again := seen[rule]
		seen[rule] = true
		return again
	})
}
