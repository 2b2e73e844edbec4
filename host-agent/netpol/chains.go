package netpol

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"sublet.dev/host-agent/nft"
	"sublet.dev/isolation/policy"
	"sublet.dev/isolation/tenant"
)

// prefix begins the name of everything that is one tenant's.
func prefix(f policy.Fence) string { return "t_" + f.Tenant.Short() + "_" }

func chainName(t Tenant, direction string) string { return prefix(t.Fence) + direction }

func dnsAddress(f policy.Fence) netip.Addr { return tenant.DNSAddress(f.Services) }

// tenant makes a tenant's set of pods and its three chains: out of its pods, into
// them, and from them to this node. Each verdict has a counter.
func (r *renderer) tenant(t Tenant) {
	p := prefix(t.Fence)
	own := nft.Set{Name: p + "pods", Type: "ipv4_addr"}
	for _, a := range t.addresses() {
		own.Elements = append(own.Elements, a.String())
	}
	own = set(own.Name, own.Type, own.Elements)
	r.table.Sets = append(r.table.Sets, own)
	r.table.Chains = append(r.table.Chains,
		nft.Chain{Name: p + "out", Rules: r.out(t)},
		nft.Chain{Name: p + "in", Rules: r.in(t)},
		nft.Chain{Name: p + "node", Rules: r.node(t)},
	)
}

// in is the receiver's side of the boundary: the tenant's own pods, the ingress controllers
// that serve it, and what came from elsewhere to one of its node ports or load balancers. The node itself is not asked.
func (r *renderer) in(t Tenant) []string {
	rules := []string{fmt.Sprintf("ip saddr @%spods %s return", prefix(t.Fence), r.count(t, "in_own"))}
	if len(t.Ingress) > 0 {
		s := nft.Set{Name: prefix(t.Fence) + "ingress", Type: "ipv4_addr"}
		for _, a := range t.Ingress {
			s.Elements = append(s.Elements, a.String())
		}
		s = set(s.Name, s.Type, s.Elements)
		r.table.Sets = append(r.table.Sets, s)
		rules = append(rules, fmt.Sprintf("ip saddr @%s meta l4proto tcp %s return", s.Name, r.count(t, "in_ingress")))
	}
	byProto := map[string][]string{}
	for _, p := range t.NodePorts {
		proto := strings.ToLower(string(p.Protocol))
		byProto[proto] = append(byProto[proto], fmt.Sprint(p.Port))
	}
	for _, proto := range slices.Sorted(maps.Keys(byProto)) {
		s := set(prefix(t.Fence)+"nodeports_"+proto, "inet_service", byProto[proto])
		r.table.Sets = append(r.table.Sets, s)
		rules = append(rules, fmt.Sprintf("iifname != @interfaces ct status dnat ct original ip daddr @nodes meta l4proto %s ct original proto-dst @%s %s return", proto, s.Name, r.count(t, "in_node_port")))
	}
	rules = append(rules, r.balanced(t)...)
	return append(rules, r.count(t, "in_stranger")+" drop")
}

// balanced lets in what came from elsewhere to an address that a load balancer gave one
// of the tenant's Services, and to no other port of it.
func (r *renderer) balanced(t Tenant) []string {
	byProto := map[string][]string{}
	for _, b := range t.Balanced {
		if b.Addr.Is4() {
			proto := strings.ToLower(string(b.Protocol))
			byProto[proto] = append(byProto[proto], fmt.Sprintf("%s . %d", b.Addr, b.Port))
		}
	}
	var rules []string
	for _, proto := range slices.Sorted(maps.Keys(byProto)) {
		s := set(prefix(t.Fence)+"balanced_"+proto, "ipv4_addr . inet_service", byProto[proto])
		r.table.Sets = append(r.table.Sets, s)
		rules = append(rules, fmt.Sprintf("iifname != @interfaces ct status dnat meta l4proto %s ct original ip daddr . ct original proto-dst @%s %s return", proto, s.Name, r.count(t, "in_balanced")))
	}
	return rules
}

// count makes a counter of a tenant and returns the statement that counts.
func (r *renderer) count(t Tenant, what string) string {
	name := prefix(t.Fence) + what
	r.table.Counters = append(r.table.Counters, name)
	return fmt.Sprintf("counter name %q", name)
}

// out is the sender's side of the boundary: return goes on to the sender's policies,
// then to the receiver's side.
func (r *renderer) out(t Tenant) []string {
	rules := []string{fmt.Sprintf("ip daddr @%spods %s return", prefix(t.Fence), r.count(t, "own"))}
	for _, at := range t.Fence.DNS {
		for _, proto := range []string{"udp", "tcp"} {
			rules = append(rules, fmt.Sprintf("ip daddr %s %s dport %d %s return", at.Addr(), proto, at.Port(), r.count(t, "dns")))
		}
	}
	for _, at := range t.Fence.API {
		rules = append(rules, fmt.Sprintf("ip daddr %s tcp dport %d %s return", at.Addr(), at.Port(), r.count(t, "api")))
	}
	for _, deny := range []struct{ set, counter string }{
		{"blocked", "blocked"}, {"nodes", "node"}, {"pods", "foreign_pod"}, {"services", "service"}, {"private", "private"},
	} {
		rules = append(rules, fmt.Sprintf("ip daddr @%s %s goto refuse", deny.set, r.count(t, deny.counter)))
	}
	if t.Fence.Internet {
		rules = append(rules, "meta nfproto ipv4 meta l4proto { icmp, tcp, udp } "+r.count(t, "internet")+" return")
	}
	return append(rules, r.count(t, "default")+" goto refuse")
}

// node is the way to this node: the tenant's DNS and its API, if they are here.
func (r *renderer) node(t Tenant) []string {
	var rules []string
	for _, at := range t.Fence.DNS {
		for _, proto := range []string{"udp", "tcp"} {
			rules = append(rules, fmt.Sprintf("ip daddr %s %s dport %d %s goto node_policy", at.Addr(), proto, at.Port(), r.count(t, "dns")))
		}
	}
	return append(rules,
		"iifname . ip daddr . tcp dport @api "+r.count(t, "api")+" goto node_policy",
		r.count(t, "node")+" goto refuse",
	)
}
