package netpol

import (
	"fmt"
	"net/netip"
	"slices"

	"sublet.dev/host-agent/nft"
	"sublet.dev/host-agent/podnet"
	"sublet.dev/isolation/policy"
)

// TableName names our table, of family inet.
const TableName = "sublet"

// Counters that are not one tenant's.
const (
	counterForged  = "forged"  // a source address that is not the sender's
	counterUnknown = "unknown" // a pod's address that no endpoint has
	counterIPv6    = "ipv6"    // anything of IPv6 from a pod
	counterStray   = "stray"   // to the node, of a connection that it does not know
)

// Render returns the whole table. Equal states give equal tables.
func Render(s State) nft.Table {
	r := &renderer{State: s, guardOut: map[string]string{}, guardIn: map[string]string{}, guardSets: map[string]bool{}, table: nft.Table{Name: TableName, Counters: []string{counterForged, counterUnknown, counterIPv6, counterStray}}}
	r.maps()
	r.sets()
	r.chains()
	for _, t := range s.Tenants {
		r.tenant(t)
		r.guard(t)
	}
	slices.Sort(r.table.Counters)
	r.table.Counters = slices.Compact(r.table.Counters)
	return r.table
}

// Script returns what a tenant's fence is in the language of `nft -f`, for pods at
// these addresses: the same chains that an agent renders for the tenant on its
// node, without the interfaces, which only that agent knows. ingress are the addresses
// of the ingress controllers that the fence lets in.
func Script(c policy.Cluster, f policy.Fence, pods, ingress []netip.Addr) string {
	s := State{Cluster: c, Tenants: []Tenant{{Fence: f, Remote: pods, Ingress: ingress}}}
	if len(f.DNS) > 0 {
		s.DNS = f.DNS[0]
	}
	return Render(s).Script()
}

type renderer struct {
	State
	table nft.Table
	// guardOut and guardIn say by interface what asks the tenants' own policies.
	guardOut, guardIn map[string]string
	guardSets         map[string]bool // by name
}

// sets makes the sets of ranges, and those by which endpoints are known.
func (r *renderer) sets() {
	interfaces, fenced := []string{}, []string{}
	sources, dns, api := []string{}, []string{}, []string{}
	for _, e := range r.endpoints() {
		interfaces = append(interfaces, e.Interface)
		for _, a := range v4(e) {
			sources = append(sources, fmt.Sprintf("%s . %s", e.Interface, a))
		}
	}
	for _, e := range r.Orphans {
		fenced = append(fenced, e.Interface)
	}
	for _, t := range r.Tenants {
		for _, e := range t.Endpoints {
			fenced = append(fenced, e.Interface)
			dns = append(dns, fmt.Sprintf("%s . %s", e.Interface, dnsAddress(t.Fence)))
			for _, at := range t.Fence.API {
				api = append(api, fmt.Sprintf("%s . %s . %d", e.Interface, at.Addr(), at.Port()))
			}
		}
	}
	r.table.Sets = append(r.table.Sets,
		set("interfaces", "ifname", interfaces), // of all endpoints
		set("fenced", "ifname", fenced),         // of tenants' endpoints
		set("sources", "ifname . ipv4_addr", sources),
		set("dns", "ifname . ipv4_addr", dns),
		set("api", "ifname . ipv4_addr . inet_service", api),
		ranges("blocked", r.Cluster.Blocked),
		ranges("nodes", r.Cluster.Nodes),
		ranges("pods", r.Cluster.PodCIDRs),
		ranges("services", r.Cluster.ServiceCIDRs),
		ranges("private", r.Cluster.Private),
		ranges("node_pods", r.NodePods),
	)
}

// maps makes the maps by which an endpoint's packets find their chains.
func (r *renderer) maps() {
	from, to, toNode, denied := map[string]string{}, map[string]string{}, map[string]string{}, map[string]string{}
	ports := map[string]string{}
	for _, e := range r.endpoints() {
		denied[e.Interface] = deniedCounter(e)
		r.table.Counters = append(r.table.Counters, deniedCounter(e))
	}
	for _, e := range r.Orphans {
		from[e.Interface], to[e.Interface] = "goto refuse", "drop"
	}
	for _, t := range r.Tenants {
		ways := r.ways(t)
		for _, e := range t.Endpoints {
			if ways != "" {
				ports[e.Interface] = ways
			}
			from[e.Interface] = "jump " + chainName(t, "out")
			to[e.Interface] = "jump " + chainName(t, "in")
			toNode[e.Interface] = "goto " + chainName(t, "node")
		}
	}
	r.table.Maps = append(r.table.Maps,
		nft.Map{Name: "from_pod", Type: "ifname : verdict", Elements: from},
		nft.Map{Name: "to_pod", Type: "ifname : verdict", Elements: to},
		nft.Map{Name: "to_node", Type: "ifname : verdict", Elements: toNode},
		nft.Map{Name: "node_ports", Type: "ifname : verdict", Elements: ports},
		nft.Map{Name: "guard_out", Type: "ifname : verdict", Elements: r.guardOut},
		nft.Map{Name: "guard_in", Type: "ifname : verdict", Elements: r.guardIn},
		nft.Map{Name: "denied", Type: "ifname : counter", Elements: denied},
	)
}

// chains makes the chains that all endpoints share.
func (r *renderer) chains() {
	hooked := func(name, typ, hook, priority string, rules ...string) {
		r.table.Chains = append(r.table.Chains, nft.Chain{Name: name, Hook: &nft.Hook{Type: typ, Hook: hook, Priority: priority}, Rules: rules})
	}
	hooked("antispoof", "filter", "prerouting", "raw",
		"iifname @interfaces goto source",
		// Nobody else has an address of this node's pods, and no cable without
		// an endpoint may claim an address that is not behind it.
		`ip saddr @node_pods iifname != "lo" counter name "unknown" drop`,
		`iifname "veth*" fib saddr . iif oif missing counter name "unknown" drop`,
	)
	hooked("translate", "nat", "prerouting", "dstnat-10", append(r.dnsRules(), "iifname vmap @node_ports")...)
	hooked("input", "filter", "input", "filter", "iifname @fenced goto pod_to_node")
	hooked("boundary", "filter", "forward", "filter",
		"ct state established,related accept",
		"iifname vmap @from_pod",
		"iifname vmap @guard_out",
		"oifname vmap @to_pod",
		"oifname vmap @guard_in",
		`ip daddr @node_pods oifname != @interfaces counter name "unknown" drop`,
	)
	hooked("leave", "nat", "postrouting", "srcnat", "ip saddr @node_pods ip daddr != @pods masquerade",
		// A pod that a node port led to itself takes no packet from itself.
		"ct status dnat oifname . ip saddr @sources masquerade")
	r.table.Chains = append(r.table.Chains,
		nft.Chain{Name: "source", Rules: []string{
			"iifname . ip saddr @sources accept",
			// Pods have no IPv6; what their kernels say of it by themselves is
			// no attempt of theirs.
			`meta nfproto ipv6 counter name "ipv6" drop`,
			`counter name "forged" goto refuse`,
		}},
		nft.Chain{Name: "pod_to_node", Rules: []string{
			"ct state established,related accept",
			// gVisor goes on about connections (of probes) that the node has
			// forgotten: no attempt of the pod's.
			`tcp flags != syn / fin,syn,rst,ack counter name "stray" drop`,
			"iifname vmap @to_node",
			"goto refuse",
		}},
		nft.Chain{Name: "node_policy", Rules: []string{"iifname vmap @guard_out", "accept"}},
		// Two rules: where a lookup fails, the rest of its rule is skipped.
		nft.Chain{Name: "refuse", Rules: []string{"counter name iifname map @denied", "drop"}},
	)
}

// dnsRules lead the DNS address of an endpoint's tenant to this node's server,
// ahead of the proxy of Services.
func (r *renderer) dnsRules() []string {
	if !r.DNS.IsValid() {
		return nil
	}
	var rules []string
	for _, proto := range []string{"udp", "tcp"} {
		rules = append(rules, fmt.Sprintf("iifname . ip daddr @dns %s dport %d dnat ip to %s", proto, policy.DNSPort, r.DNS))
	}
	return rules
}

func set(name, typ string, elements []string) nft.Set {
	slices.Sort(elements)
	return nft.Set{Name: name, Type: typ, Elements: slices.Compact(elements)}
}

// ranges makes a set of IPv4 ranges. A range within another is left out, for nft
// refuses overlaps.
func ranges(name string, all []netip.Prefix) nft.Set {
	s := nft.Set{Name: name, Type: "ipv4_addr", Interval: true}
	var kept []netip.Prefix
	sorted := slices.Clone(all)
	slices.SortFunc(sorted, func(a, b netip.Prefix) int { return a.Bits() - b.Bits() })
	for _, p := range sorted {
		inside := func(k netip.Prefix) bool { return k.Contains(p.Addr()) }
		if p = p.Masked(); !p.Addr().Is4() || slices.ContainsFunc(kept, inside) {
			continue
		}
		kept = append(kept, p)
		if p.IsSingleIP() {
			s.Elements = append(s.Elements, p.Addr().String())
		} else {
			s.Elements = append(s.Elements, p.String())
		}
	}
	slices.Sort(s.Elements)
	return s
}

func v4(e podnet.Endpoint) []netip.Addr {
	return slices.DeleteFunc(slices.Clone(e.Addresses), func(a netip.Addr) bool { return !a.Is4() })
}

// deniedCounter counts what the fence refused to one endpoint.
func deniedCounter(e podnet.Endpoint) string { return "denied_" + e.Interface }
