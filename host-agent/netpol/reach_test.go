package netpol

import (
	"context"
	"fmt"
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/vishvananda/netns"

	"sublet.dev/host-agent/nft"
	"sublet.dev/host-agent/podnet"
	"sublet.dev/isolation/policy"
	"sublet.dev/isolation/reach"
	"sublet.dev/isolation/tenant"
)

const (
	otherNode = "198.51.100.7"
	internet  = "203.0.113.10"
	podA1     = "10.244.0.2"
	podA2     = "10.244.0.3"
	podB      = "10.244.0.4"
	podSystem = "10.244.0.5"
	podOrphan = "10.244.0.6"
	// Ingress controllers, here and on another node, that serve a.
	podIngress    = "10.244.0.9"
	remoteIngress = "10.244.1.7"
	remoteA       = "10.244.1.5" // a's and b's pods on another node
	remoteB       = "10.244.1.6"
)

// elsewhere are addresses of the world.
var elsewhere = []string{internet, otherNode, "169.254.169.254", "100.100.100.200", "168.63.129.16", "192.168.50.1", "172.20.1.1", "10.99.0.1", remoteA, remoteB, remoteIngress}

func addr(s string) netip.Addr   { return netip.MustParseAddr(s) }
func at(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }
func cidrs(s ...string) (out []netip.Prefix) {
	for _, p := range s {
		out = append(out, netip.MustParsePrefix(p))
	}
	return out
}

func fenceOf(id, slice, api string) policy.Fence {
	return policy.Fence{Tenant: tenant.ID(id), Namespace: tenant.HostNamespace(id, tenant.ID(id)), Services: netip.MustParsePrefix(slice),
		DNS: []netip.AddrPort{at(nodeIP + ":10053")}, API: []netip.AddrPort{at(api)}, Internet: true}
}

// testCluster has pods and services outside of the private ranges, so that the
// rules about them are not covered by those about these.
func testCluster() policy.Cluster {
	private := slices.DeleteFunc(policy.Private(), func(p netip.Prefix) bool { return p.Contains(addr(podA1)) })
	return policy.Cluster{PodCIDRs: cidrs("10.244.0.0/16"), ServiceCIDRs: cidrs("10.96.0.0/12"),
		Nodes: cidrs(nodeIP+"/32", otherNode+"/32"), Blocked: policy.Blocked(), Private: private}
}

// testWorld is what reach is asked about; testServices are in it as kube-proxy
// would lead them.
func testWorld() reach.World {
	w := reach.World{Cluster: testCluster(), Fences: []policy.Fence{fenceOf("a", "10.96.4.0/22", nodeIP+":7001"), fenceOf("b", "10.96.8.0/22", otherNode+":7002")},
		Services: map[netip.AddrPort][]netip.AddrPort{
			at("10.96.4.20:80"): {at(podA2 + ":8080")},
			at("10.96.4.21:80"): {at(podA1 + ":8080")}, // itself, for one
			at("10.96.4.22:80"): {at(podB + ":8080")},  // a slice with somebody else's pod
			at("10.96.4.23:80"): {at("169.254.169.254:80")},
			at("10.96.8.20:80"): {at(podB + ":8080")},
		}}
	for ip, id := range map[string]tenant.ID{podA1: "a", podA2: "a", remoteA: "a", podB: "b", remoteB: "b", podSystem: "", podOrphan: "gone"} {
		w.Pods = append(w.Pods, reach.Pod{Addr: addr(ip), Tenant: id})
	}
	w.Fences[0].IngressFrom = []string{"ingress"}
	for _, ip := range []string{podIngress, remoteIngress} {
		w.Pods = append(w.Pods, reach.Pod{Addr: addr(ip), Namespace: "ingress"})
	}
	return w
}

// plug plugs the pods in and returns the state that a node has with them.
func (l *lab) plug() State {
	w := testWorld()
	endpoint := func(ip, namespace string) podnet.Endpoint {
		return podnet.Endpoint{ContainerID: "c-" + ip, Namespace: namespace, Pod: "p-" + ip, Interface: l.pod(ip), Addresses: []netip.Addr{addr(ip)}}
	}
	a, b := w.Fences[0], w.Fences[1]
	return State{
		Cluster: w.Cluster, NodePods: cidrs("10.244.0.0/24"), DNS: at(nodeIP + ":10053"),
		Tenants: []Tenant{
			{Fence: a, Endpoints: []podnet.Endpoint{endpoint(podA1, a.Namespace), endpoint(podA2, a.Namespace)}, Remote: []netip.Addr{addr(remoteA)},
				Ingress: []netip.Addr{addr(podIngress), addr(remoteIngress)},
				Pods:    map[netip.Addr]Pod{addr(podA1): {}, addr(podA2): {}, addr(remoteA): {}}},
			{Fence: b, Endpoints: []podnet.Endpoint{endpoint(podB, b.Namespace)}, Remote: []netip.Addr{addr(remoteB)},
				Pods: map[netip.Addr]Pod{addr(podB): {}, addr(remoteB): {}}},
		},
		System:  []podnet.Endpoint{endpoint(podSystem, "kube-system"), endpoint(podIngress, "ingress")},
		Orphans: []podnet.Endpoint{endpoint(podOrphan, tenant.HostNamespace("gone", "gone"))},
	}
}

// proxy does in its own table what kube-proxy does: lead virtual addresses to
// backends, and hide a pod that reaches itself behind the node's address.
func (l *lab) proxy(w reach.World) {
	var rules strings.Builder
	lead := func(from, to netip.AddrPort) {
		for _, proto := range []string{"tcp", "udp"} {
			fmt.Fprintf(&rules, "ip daddr %s %s dport %d dnat ip to %s\n", from.Addr(), proto, from.Port(), to)
		}
	}
	for vip, backends := range w.Services {
		lead(vip, backends[0])
	}
	for _, n := range w.NodePorts {
		fmt.Fprintf(&rules, "ip daddr %s %s dport %d dnat ip to %s\n", nodeIP, strings.ToLower(string(n.Proto)), n.Port, n.To[0])
	}
	for _, b := range w.Balanced {
		fmt.Fprintf(&rules, "ip daddr %s %s dport %d dnat ip to %s\n", b.At.Addr(), strings.ToLower(string(b.Proto)), b.At.Port(), b.To[0])
	}
	for _, f := range w.Fences {
		lead(netip.AddrPortFrom(tenant.APIAddress(f.Services), policy.APIPort), f.API[0])
	}
	hairpin := ""
	for _, ip := range []string{podA1, podA2, podB} {
		hairpin += fmt.Sprintf("ip saddr %[1]s ip daddr %[1]s masquerade\n", ip)
	}
	l.nft("table ip proxy {\nchain pre { type nat hook prerouting priority dstnat;\n" + rules.String() +
		"}\nchain post { type nat hook postrouting priority srcnat;\n" + hairpin + "}\n}\n")
}

// nft runs a script on the node.
func (l *lab) nft(script string) {
	l.t.Helper()
	inside(l.t, l.node, func() error {
		cmd := exec.Command("nft", "-f", "-")
		cmd.Stdin = strings.NewReader(script)
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("nft: %w: %s", err, out)
		}
		return nil
	})
}

// flows are the matrix: everybody to everything, and forged sources.
func matrix() []reach.Flow {
	var senders []netip.Addr
	for _, s := range []string{podA1, podA2, podB, podSystem, podOrphan, podIngress, remoteA, remoteB, remoteIngress, internet, "192.168.50.1"} {
		senders = append(senders, addr(s))
	}
	senders = append(senders, netip.Addr{}) // the node
	var targets []netip.AddrPort
	for _, s := range append([]string{podA1, podA2, podB, podSystem, podOrphan, podIngress, nodeIP}, elsewhere...) {
		targets = append(targets, netip.AddrPortFrom(addr(s), 8080))
	}
	for _, s := range []string{nodeIP + ":10250", nodeIP + ":7001", nodeIP + ":7002", nodeIP + ":10053", otherNode + ":7002", otherNode + ":7001", otherNode + ":10053"} {
		targets = append(targets, at(s))
	}
	var virtual []netip.AddrPort
	for vip := range testWorld().Services {
		virtual = append(virtual, vip)
	}
	virtual = append(virtual, at("10.96.4.1:443"), at("10.96.8.1:443"))
	var flows []reach.Flow
	for _, from := range senders {
		source := from
		if !from.IsValid() {
			source = addr(gateway)
		}
		for _, proto := range []reach.Proto{reach.TCP, reach.UDP, reach.ICMP, "SCTP", "GRE"} {
			// GRE has no ports: behind one masqueraded address all senders' would
			// be one connection.
			if proto == "GRE" && !slices.Contains([]string{podA1, podA2, podB, podOrphan}, from.String()) {
				continue
			}
			for _, to := range targets {
				flows = append(flows, reach.Flow{Sender: from, Source: source, To: to, Proto: proto})
			}
		}
		for _, to := range virtual {
			// The node reaches Services by output, which is not ours; the world
			// does not take packets back that it sent.
			backend := testWorld().Services[to]
			if from.IsValid() && !(isElsewhere(from) && (len(backend) == 0 || isElsewhere(backend[0].Addr()))) {
				flows = append(flows, reach.Flow{Sender: from, Source: source, To: to, Proto: reach.TCP})
			}
		}
	}
	for _, from := range []string{podA1, podSystem, podOrphan} {
		for _, forged := range []string{podA2, podB, podSystem, "10.244.1.99", "203.0.113.99", "169.254.1.1"} { // whom the world takes for real
			for _, to := range []string{podA2, podB, nodeIP, "198.18.0.1", otherNode} {
				if from != forged && to != forged {
					flows = append(flows, reach.Flow{Sender: addr(from), Source: addr(forged), To: netip.AddrPortFrom(addr(to), 8080), Proto: reach.UDP},
						reach.Flow{Sender: addr(from), Source: addr(forged), To: netip.AddrPortFrom(addr(to), 8080), Proto: reach.TCP})
				}
			}
		}
	}
	return flows
}

// otherNodeDecides says whether a refusal is another node's matter: what somebody
// there sends to anybody but this node's tenants, and what this node's system pods,
// which nobody fences, send to pods there.
func otherNodeDecides(f reach.Flow) bool {
	if isElsewhere(f.Sender) {
		return !slices.Contains([]string{podA1, podA2, podB, podOrphan}, f.To.Addr().String())
	}
	return (f.Sender == addr(podSystem) || f.Sender == addr(podIngress)) && isElsewhere(f.To.Addr())
}

func isElsewhere(a netip.Addr) bool { return slices.Contains(elsewhere, a.String()) }

// from returns the namespace that a flow's sender is in.
func (l *lab) from(f reach.Flow) netns.NsHandle {
	if ns, ok := l.pods[f.Sender]; ok {
		return ns
	}
	if !f.Sender.IsValid() {
		return l.node
	}
	return l.world
}

// probe sends each flow's first packet, then one that is allowed, and returns which
// flows' packets arrived once that one has.
func (l *lab) probe(flows []reach.Flow) []bool {
	l.t.Helper()
	bySender := map[netns.NsHandle][][]byte{}
	numbers := make([]uint32, len(flows))
	for i, f := range flows {
		l.sent++
		numbers[i] = l.sent
		bySender[l.from(f)] = append(bySender[l.from(f)], packet(f, l.sent))
	}
	for ns, packets := range bySender {
		send(ns, l, packets)
	}
	l.sent++
	sender := l.last
	if !sender.IsValid() {
		sender = addr(podA1)
	}
	last := reach.Flow{Sender: sender, Source: sender, To: netip.AddrPortFrom(addr(internet), 9), Proto: reach.UDP}
	send(l.pods[last.Sender], l, [][]byte{packet(last, l.sent)})
	arrived := l.arrived()
	for !arrived[l.sent] {
		if l.t.Context().Err() != nil {
			l.t.Fatal("the last packet, which is allowed, did not arrive")
		}
		for n := range l.arrived() {
			arrived[n] = true
		}
	}
	for n := range l.arrived() { // what came just before the last one, elsewhere
		arrived[n] = true
	}
	out := make([]bool, len(flows))
	for i, n := range numbers {
		out[i] = arrived[n]
	}
	return out
}

// apply puts a table into the node's kernel.
func (l *lab) apply(table nft.Table) *nft.Kernel {
	l.t.Helper()
	var kernel *nft.Kernel
	inside(l.t, l.node, func() (err error) {
		if kernel, err = nft.Open(TableName); err != nil {
			return err
		}
		return kernel.Apply(l.t.Context(), table)
	})
	return kernel
}

// Real packets, from everybody to everything: with the table exactly those arrive
// that reach allows; without it all do, so that none was lost for another reason.
func TestPacketsArriveAsReachSays(t *testing.T) {
	l := newLab(t, append([]string{"198.18.0.1"}, elsewhere...)...)
	state, w, flows := l.plug(), testWorld(), matrix()
	l.proxy(w)
	for i, arrived := range l.probe(flows) {
		if !arrived {
			t.Errorf("without the fence %s does not arrive: it would prove nothing", describe(flows[i]))
		}
	}
	kernel := l.apply(Render(state))
	l.forgetAll()
	rules := map[reach.Rule]int{}
	for i, arrived := range l.probe(flows) {
		want := w.May(flows[i])
		rules[want.Rule]++
		if !want.Allow && otherNodeDecides(flows[i]) {
			continue
		}
		if arrived != want.Allow {
			t.Errorf("%s: arrived=%v, reach says %v", describe(flows[i]), arrived, want)
		}
	}
	for _, rule := range []reach.Rule{reach.Itself, reach.Forged, reach.Host, reach.OwnPod, reach.OwnDNS, reach.OwnAPI, reach.Blocked, reach.Node, reach.ForeignPod,
		reach.Service, reach.PrivateRange, reach.Internet, reach.Default, reach.Stranger, reach.Ingress, reach.System} {
		if rules[rule] == 0 {
			t.Errorf("no packet was decided by %s: it is not tested", rule)
		}
	}
	inside(t, l.node, func() error { return kernel.Delete(context.WithoutCancel(t.Context())) })
	l.forgetAll()
	if again := l.probe(flows); slices.Contains(again, false) {
		t.Error("without the table again, not all packets arrive")
	}
}

// forgetAll makes the node forget all connections: protocols without ports have
// one for all probes between two addresses.
func (l *lab) forgetAll() {
	l.t.Helper()
	inside(l.t, l.node, func() error { return forgetConnections(func(netip.Addr) bool { return true }) })
}

func describe(f reach.Flow) string {
	return fmt.Sprintf("%s -> %s %s (as %s)", f.Sender, f.To, f.Proto, f.Source)
}

// The DNS address leads to the node's DNS for the tenant it belongs to, and for
// nobody else.
func TestDNSAddressIsTheTenantsOwn(t *testing.T) {
	l := newLab(t, elsewhere...)
	l.apply(Render(l.plug()))
	ask := func(from, vip string, port uint16, proto reach.Proto) reach.Flow {
		return reach.Flow{Sender: addr(from), Source: addr(from), To: netip.AddrPortFrom(addr(vip), port), Proto: proto}
	}
	flows := []reach.Flow{
		ask(podA1, "10.96.4.10", 53, reach.UDP), ask(podA1, "10.96.4.10", 53, reach.TCP), ask(podB, "10.96.8.10", 53, reach.UDP),
		ask(podA1, "10.96.8.10", 53, reach.UDP), ask(podB, "10.96.4.10", 53, reach.TCP), ask(podA1, "10.96.4.10", 54, reach.UDP),
		ask(podSystem, "10.96.4.10", 53, reach.UDP), ask(podOrphan, "10.96.4.10", 53, reach.UDP),
	}
	for i, arrived := range l.probe(flows) {
		want := i < 3
		if arrived != want || w(flows[i]) != want && flows[i].Sender != addr(podSystem) {
			t.Errorf("%s: arrived=%v, want %v", describe(flows[i]), arrived, want)
		}
	}
}

func w(f reach.Flow) bool { return testWorld().May(f).Allow }
