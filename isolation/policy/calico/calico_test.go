package calico_test

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"

	"sublet.dev/isolation/policy"
	"sublet.dev/isolation/policy/calico"
	"sublet.dev/isolation/policy/policytest"
	"sublet.dev/isolation/reach"
	"sublet.dev/isolation/tenant"
)

// randomWorld makes a host with up to four tenants, whose pods Calico may also
// have given addresses outside the known pod ranges.
func randomWorld(r *rand.Rand) reach.World {
	prefix := func(s string) []netip.Prefix { return []netip.Prefix{netip.MustParsePrefix(s)} }
	w := reach.World{Cluster: policy.Cluster{
		PodCIDRs: prefix("10.244.0.0/16"), ServiceCIDRs: prefix("10.96.0.0/12"),
		Nodes: prefix("192.0.2.0/28"), Blocked: policy.Blocked(), Private: policy.Private(),
	}, Policies: map[tenant.ID][]*networkingv1.NetworkPolicy{}}
	used := map[netip.Addr]bool{}
	address := func() netip.Addr {
		for {
			ip := netip.AddrFrom4([4]byte{10, 244, byte(r.IntN(2)), byte(r.IntN(256))})
			if r.IntN(8) == 0 {
				ip = netip.AddrFrom4([4]byte{203, 0, 113, byte(r.IntN(256))})
			}
			if !used[ip] {
				used[ip] = true
				return ip
			}
		}
	}
	for i := range 1 + r.IntN(4) {
		f := policy.Fence{
			Tenant: tenant.ID(fmt.Sprint("tenant-", i)), Namespace: fmt.Sprint("sublet-t-", i), Internet: r.IntN(3) > 0,
			Services: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 96, byte(4 * i), 0}), 22),
			DNS:      []netip.AddrPort{netip.MustParseAddrPort("192.0.2.1:10053"), netip.MustParseAddrPort("192.0.2.2:10053")},
			API:      []netip.AddrPort{netip.AddrPortFrom(netip.MustParseAddr("192.0.2.1"), uint16(7000+i))},
		}
		f.IngressFrom = [][]string{nil, {"ingress"}, {"other", "ingress"}}[r.IntN(3)]
		w.Fences = append(w.Fences, f)
		for range r.IntN(4) {
			draw := policytest.Random{Rand: r}
			w.Pods = append(w.Pods, reach.Pod{Addr: address(), Tenant: f.Tenant, Labels: draw.Labels(), Ports: draw.Ports()})
		}
		if r.IntN(3) > 0 {
			w.Policies[f.Tenant] = policytest.Random{Rand: r}.Policies()
		}
	}
	for range r.IntN(4) {
		w.Pods = append(w.Pods, reach.Pod{Addr: address(), Namespace: []string{"kube-system", "ingress"}[r.IntN(2)]})
	}
	return w
}

// places are where packets may come from and go to, beside pods.
func places(r *rand.Rand, w reach.World) []netip.Addr {
	out := []netip.Addr{}
	for _, s := range []string{"192.0.2.1", "192.0.2.9", "169.254.169.254", "100.100.100.200", "168.63.129.16", "10.244.1.77",
		"10.96.4.10", "10.200.0.1", "172.31.0.1", "192.168.1.1", "8.8.8.8", "203.0.113.5", "224.0.0.1", "2001:db8::1", "fd00:ec2::254"} {
		out = append(out, netip.MustParseAddr(s))
	}
	for _, p := range w.Pods {
		out = append(out, p.Addr)
	}
	r.Shuffle(len(out), func(i, j int) { out[i], out[j] = out[j], out[i] })
	return out
}

// The Calico objects say what reach means, for every sender and receiver of many
// random hosts. Forged sources and the node's own probes are Felix's, not these
// objects'.
func TestSaysWhatReachMeans(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	verdicts := map[reach.Rule]int{}
	for range 100 {
		w := randomWorld(r)
		c := &cluster{endpoints: map[netip.Addr]map[string]string{}, ports: map[netip.Addr][]corev1.ContainerPort{}}
		for _, f := range w.Fences {
			c.add(calico.Render(w.Cluster, f, w.Policies[f.Tenant]...))
		}
		for _, p := range w.Pods {
			namespace := p.Namespace
			if i := slices.IndexFunc(w.Fences, func(f policy.Fence) bool { return f.Tenant == p.Tenant }); i >= 0 {
				namespace = w.Fences[i].Namespace
			}
			// A tenant's labels, if one got there, must not matter.
			c.endpoints[p.Addr] = map[string]string{"projectcalico.org/namespace": namespace, "pcns.sublet.dev/tenant": "tenant-0"}
			maps.Copy(c.endpoints[p.Addr], p.Labels)
			c.ports[p.Addr] = p.Ports
		}
		all := places(r, w)
		for _, from := range all {
			if !from.Is4() {
				continue
			}
			for _, to := range all {
				for _, port := range []uint16{80, 8080, 10053, 7000, 7001} {
					for _, proto := range []reach.Proto{reach.TCP, reach.UDP, reach.ICMP, "SCTP"} {
						want := w.May(reach.Flow{Sender: from, Source: from, To: netip.AddrPortFrom(to, port), Proto: proto})
						if from != to && (isPod(w, from) || isPod(w, to)) {
							verdicts[want.Rule]++
							if got := c.allowed(packet{from, to, port, string(proto)}); got != want.Allow {
								t.Fatalf("%s -> %s:%d %s: Calico allows=%v, reach %v\n%+v", from, to, port, proto, got, want, w)
							}
						}
					}
				}
			}
		}
	}
	for _, rule := range []reach.Rule{reach.OwnPod, reach.OwnAPI, reach.OwnDNS, reach.Internet, reach.Blocked, reach.Node, reach.ForeignPod,
		reach.Service, reach.PrivateRange, reach.Default, reach.Stranger, reach.Ingress, reach.PolicyEgress, reach.PolicyIngress} {
		if verdicts[rule] == 0 {
			t.Errorf("no packet was decided by %s: it is not tested", rule)
		}
	}
}

// What the evaluator does not look at, and Calico would guess or refuse.
func TestObjects(t *testing.T) {
	w := randomWorld(rand.New(rand.NewPCG(3, 4)))
	o := calico.Render(w.Cluster, w.Fences[0])
	if o.Tier.Kind != "Tier" || o.Tier.APIVersion != "projectcalico.org/v3" || *o.Tier.Spec.Order >= 1000 {
		t.Errorf("tier: %+v", o.Tier)
	}
	if len(o.Policy.Spec.Types) != 2 || o.Policy.Spec.NamespaceSelector != "" || o.Policy.Kind != "GlobalNetworkPolicy" {
		t.Errorf("policy: %+v", o.Policy.Spec)
	}
	if want := o.Tier.Name + "."; o.Policy.Name[:len(want)] != want {
		t.Errorf("policy name %q must begin with its tier's", o.Policy.Name)
	}
}

func isPod(w reach.World, ip netip.Addr) bool {
	return slices.ContainsFunc(w.Pods, func(p reach.Pod) bool { return p.Addr == ip })
}
