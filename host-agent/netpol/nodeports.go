package netpol

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"sublet.dev/host-agent/nft"
	"sublet.dev/isolation/policy"
	"sublet.dev/isolation/tenant"
)

// Way leads from a node port of a tenant's Service to the pods behind it, for the
// tenant's own pods: the addresses of nodes that they know are masks, at which nobody
// listens. The proxy of Services never sees these packets.
type Way struct {
	policy.NodePort
	// Sticky leads a client to the same pod every time, as long as the pods are the same.
	Sticky bool
	// To are pods with their ports, sorted, each once. What is not the tenant's own is
	// refused by the boundary like everything else.
	To []netip.AddrPort
}

// maxTargets is how many pods a node port is spread over: each is an element in the
// kernel's table, which is replaced as a whole.
const maxTargets = 64

// affinitySeed makes the choice of sticky ways the same each time that the table is made.
const affinitySeed = "0x5ab1e7ed"

// ways renders what leads from the node ports of a tenant to its pods, and returns how
// its interfaces get there; "" if there is nothing.
func (r *renderer) ways(t Tenant) (verdict string) {
	masks := nft.Set{Name: prefix(t.Fence) + "masks", Type: "ipv4_addr"}
	for _, a := range t.Masks {
		masks.Elements = append(masks.Elements, a.String())
	}
	chain := nft.Chain{Name: chainName(t, "node_ports")}
	for _, w := range t.Ways {
		if len(w.To) > 0 {
			chain.Rules = append(chain.Rules, fmt.Sprintf("ip daddr @%s %s dport %d dnat ip to %s", masks.Name, strings.ToLower(string(w.Protocol)), w.Port, w.target()))
		}
	}
	if len(chain.Rules) == 0 || len(masks.Elements) == 0 {
		return ""
	}
	r.table.Sets = append(r.table.Sets, set(masks.Name, masks.Type, masks.Elements))
	r.table.Chains = append(r.table.Chains, chain)
	return "goto " + chain.Name
}

// target is where a packet goes: to one of the pods, as nft prints it.
func (w Way) target() string {
	if len(w.To) == 1 {
		return w.To[0].String()
	}
	elements := make([]string, len(w.To))
	for i, to := range w.To {
		elements[i] = fmt.Sprintf("%d : %s . %d", i, to.Addr(), to.Port())
	}
	choice := fmt.Sprintf("numgen random mod %d", len(w.To))
	if w.Sticky {
		choice = fmt.Sprintf("jhash ip saddr mod %d seed %s", len(w.To), affinitySeed)
	}
	return choice + " map { " + strings.Join(elements, ", ") + " }"
}

// masks returns the addresses under which a tenant knows the nodes, sorted, each once.
func (w world) masks(id tenant.ID) []netip.Addr {
	var all []netip.Addr
	for _, name := range w.nodeNames {
		all = append(all, tenant.NodeAddress(id.NodeName(name)))
	}
	slices.SortFunc(all, netip.Addr.Compare)
	return slices.Compact(all)
}

// addWays notes where the node ports of a tenant's Service lead, by its slices.
func (w *world) addWays(s *corev1.Service, of []*discoveryv1.EndpointSlice) {
	if len(policy.NodePortsOf(s)) == 0 {
		return
	}
	for _, p := range s.Spec.Ports {
		if p.NodePort <= 0 || p.NodePort > 65535 {
			continue
		}
		w.ways[s.Namespace] = append(w.ways[s.Namespace], Way{
			NodePort: policy.NodePort{Protocol: policy.ProtocolOf(&p.Protocol), Port: uint16(p.NodePort)},
			Sticky:   s.Spec.SessionAffinity == corev1.ServiceAffinityClientIP,
			To:       targets(of, p.Name),
		})
	}
	slices.SortFunc(w.ways[s.Namespace], func(a, b Way) int {
		return cmp.Or(cmp.Compare(a.Port, b.Port), cmp.Compare(a.Protocol, b.Protocol))
	})
}

// targets returns the pods behind a port of a Service as the proxy chooses them: those
// that are ready, or else those that still serve while they end.
func targets(of []*discoveryv1.EndpointSlice, port string) []netip.AddrPort {
	var ready, ending []netip.AddrPort
	for _, s := range of {
		for _, p := range s.Ports {
			if p.Port == nil || *p.Port <= 0 || *p.Port > 65535 || (p.Name == nil && port != "") || (p.Name != nil && *p.Name != port) {
				continue
			}
			for _, e := range s.Endpoints {
				to, ok := target(e, uint16(*p.Port))
				switch c := e.Conditions; {
				case !ok:
				case c.Ready == nil || *c.Ready:
					ready = append(ready, to)
				case c.Serving != nil && *c.Serving && c.Terminating != nil && *c.Terminating:
					ending = append(ending, to)
				}
			}
		}
	}
	if len(ready) == 0 {
		ready = ending
	}
	slices.SortFunc(ready, netip.AddrPort.Compare)
	ready = slices.Compact(ready)
	return ready[:min(len(ready), maxTargets)]
}

func target(e discoveryv1.Endpoint, port uint16) (netip.AddrPort, bool) {
	if len(e.Addresses) == 0 {
		return netip.AddrPort{}, false
	}
	a, err := netip.ParseAddr(e.Addresses[0])
	return netip.AddrPortFrom(a, port), err == nil && a.Is4()
}
