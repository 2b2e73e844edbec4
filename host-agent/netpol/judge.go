package netpol

import (
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"

	"sublet.dev/isolation/policy"
	"sublet.dev/isolation/tenant"
)

// judge holds connections that exist against the policies of now: the kernel asks
// them for first packets only.
type judge struct {
	Out, In map[netip.Addr]judged
	// Hosts are the addresses that the nodes send from: what they send to their own
	// pods no policy judges.
	Hosts []netip.Prefix
	// NodePods and Pods tell a pod from the node's end of its cable, from which the
	// node may send too.
	NodePods []netip.Prefix
	Pods     map[netip.Addr]bool
	// Excess are the tenants whose policies are too much.
	Excess []tenant.ID
}

// judged is an endpoint that policies isolate.
type judged struct {
	Guard guard
	Fence policy.Fence
}

// judgeOf compiles a state's policies.
func judgeOf(s State) judge {
	j := judge{Out: map[netip.Addr]judged{}, In: map[netip.Addr]judged{}, Hosts: s.Cluster.Nodes, NodePods: s.NodePods, Pods: map[netip.Addr]bool{}}
	for a := range s.owners() {
		j.Pods[a] = true
	}
	for _, t := range s.Tenants {
		g := guardsOf(t)
		if g.excess {
			j.Excess = append(j.Excess, t.Fence.Tenant)
		}
		for _, e := range t.Endpoints {
			for _, a := range v4(e) {
				if one, ok := g.out[e.Interface]; ok {
					j.Out[a] = judged{*one, t.Fence}
				}
				if one, ok := g.in[e.Interface]; ok {
					j.In[a] = judged{*one, t.Fence}
				}
			}
		}
	}
	return j
}

// denies says whether policies forbid what a connection is.
func (j judge) denies(from, to netip.Addr, proto uint8, port uint16) bool {
	if from == to {
		return false
	}
	if one, ok := j.Out[from]; ok && !one.allows(to, to, proto, port) {
		return true
	}
	holds := func(ranges []netip.Prefix) bool {
		return slices.ContainsFunc(ranges, func(p netip.Prefix) bool { return p.Contains(from) })
	}
	host := holds(j.Hosts) || holds(j.NodePods) && !j.Pods[from]
	one, ok := j.In[to]
	return ok && !host && !one.allows(from, to, proto, port)
}

// allows says whether a guard allows a connection with a peer, to a port of its
// receiver.
func (d judged) allows(peer, receiver netip.Addr, number uint8, port uint16) bool {
	proto := protocolNames[number]
	at := netip.AddrPortFrom(receiver, port)
	for _, a := range d.Guard.allows {
		known := a.anybody || slices.Contains(a.pods, peer) || within(a.blocks, peer)
		open := a.everything || slices.Contains(a.named, portAt{receiver, proto, port}) ||
			slices.ContainsFunc(a.ports, func(s portSpan) bool { return s.proto == proto && s.first <= port && port <= s.last })
		if known && open ||
			slices.Contains(a.dns, proto) && slices.Contains(d.Fence.DNS, at) ||
			a.api && proto == corev1.ProtocolTCP && slices.Contains(d.Fence.API, at) {
			return true
		}
	}
	return false
}

var protocolNames = map[uint8]corev1.Protocol{unix.IPPROTO_TCP: corev1.ProtocolTCP, unix.IPPROTO_UDP: corev1.ProtocolUDP, unix.IPPROTO_SCTP: corev1.ProtocolSCTP}

// MatchConntrackFlow implements netlink.CustomConntrackFilter: it selects what is
// denied. A connection goes to where its answers come from.
func (j judge) MatchConntrackFlow(f *netlink.ConntrackFlow) bool {
	from, ok := address4of(f.Forward.SrcIP)
	to, ok2 := address4of(f.Reverse.SrcIP)
	return ok && ok2 && j.denies(from, to, f.Forward.Protocol, f.Reverse.SrcPort)
}

func address4of(ip net.IP) (netip.Addr, bool) {
	a, ok := netip.AddrFromSlice(ip)
	return a.Unmap(), ok
}

// forgetDenied makes the kernel forget the connections that policies forbid by now.
func forgetDenied(j judge) error {
	if len(j.Out)+len(j.In) == 0 {
		return nil
	}
	if _, err := netlink.ConntrackDeleteFilters(netlink.ConntrackTable, unix.AF_INET, j); err != nil {
		return fmt.Errorf("forget the connections that policies forbid: %w", err)
	}
	return nil
}
