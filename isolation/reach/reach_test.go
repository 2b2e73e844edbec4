package reach_test

import (
	"net/netip"
	"testing"

	networkingv1 "k8s.io/api/networking/v1"

	"sublet.dev/isolation/policy"
	"sublet.dev/isolation/reach"
	"sublet.dev/isolation/tenant"
)

func at(s string) netip.AddrPort   { return netip.MustParseAddrPort(s) }
func cidr(s string) []netip.Prefix { return []netip.Prefix{netip.MustParsePrefix(s)} }

// world has tenants a (two pods, a service) and b (a pod, a service), a pod of
// the provider, and pods of a tenant whose fence is not known.
func world() reach.World {
	fence := func(id, slice, api string) policy.Fence {
		return policy.Fence{Tenant: tenant.ID(id), Namespace: "ns-" + id, Services: netip.MustParsePrefix(slice), Internet: true,
			DNS: []netip.AddrPort{at("192.0.2.1:10053")}, API: []netip.AddrPort{at(api)}}
	}
	pod := func(id, ip string) reach.Pod { return reach.Pod{Addr: netip.MustParseAddr(ip), Tenant: tenant.ID(id)} }
	return reach.World{
		Cluster: policy.Cluster{PodCIDRs: cidr("10.244.0.0/16"), ServiceCIDRs: cidr("10.96.0.0/12"), Nodes: cidr("192.0.2.1/32"),
			Blocked: policy.Blocked(), Private: policy.Private()},
		Fences: []policy.Fence{fence("a", "10.96.4.0/22", "192.0.2.1:7001"), fence("b", "10.96.8.0/22", "192.0.2.1:7002")},
		Pods:   []reach.Pod{pod("a", "10.244.0.2"), pod("a", "10.244.0.3"), pod("b", "10.244.0.4"), pod("", "10.244.0.5"), pod("gone", "10.244.0.6")},
		Services: map[netip.AddrPort][]netip.AddrPort{
			at("10.96.4.20:80"): {at("10.244.0.2:8080"), at("10.244.0.3:8080")},
			at("10.96.8.20:80"): {at("10.244.0.4:8080")},
			at("10.96.4.21:80"): {at("10.244.0.2:8080"), at("10.244.0.4:8080")},
			at("10.96.4.22:80"): nil,
		},
	}
}

func TestMay(t *testing.T) {
	for _, c := range []struct {
		from, source, to string
		proto            reach.Proto
		allow            bool
		rule             reach.Rule
	}{
		{"10.244.0.2", "", "10.244.0.3:80", reach.TCP, true, reach.OwnPod},
		{"10.244.0.2", "", "10.244.0.3:80", "SCTP", true, reach.OwnPod},
		{"10.244.0.2", "", "10.244.0.2:80", reach.TCP, true, reach.Itself},
		{"10.244.0.6", "", "10.244.0.6:80", reach.TCP, true, reach.Itself},
		{"10.244.0.2", "", "10.96.4.20:80", reach.TCP, true, reach.OwnPod},
		{"10.244.0.2", "", "10.96.4.1:443", reach.TCP, true, reach.OwnAPI},
		{"10.244.0.2", "", "192.0.2.1:7001", reach.TCP, true, reach.OwnAPI},
		{"10.244.0.2", "", "10.96.4.10:53", reach.UDP, true, reach.OwnDNS},
		{"10.244.0.2", "", "10.96.4.10:53", reach.TCP, true, reach.OwnDNS},
		{"10.244.0.2", "", "8.8.8.8:53", reach.UDP, true, reach.Internet},
		{"10.244.0.2", "", "8.8.8.8:0", reach.ICMP, true, reach.Internet},
		{"10.244.0.5", "", "8.8.8.8:53", reach.UDP, true, reach.System},
		{"", "", "10.244.0.2:80", reach.TCP, true, reach.Host},

		{"10.244.0.2", "10.244.0.4", "10.244.0.4:80", reach.TCP, false, reach.Forged},
		{"10.244.0.2", "8.8.8.8", "10.244.0.3:80", reach.TCP, false, reach.Forged},
		{"10.244.0.2", "", "10.244.0.4:80", reach.TCP, false, reach.ForeignPod},
		{"10.244.0.2", "", "10.244.0.5:80", reach.TCP, false, reach.ForeignPod},
		{"10.244.0.2", "", "10.244.0.99:80", reach.TCP, false, reach.ForeignPod},
		{"10.244.0.2", "", "10.96.8.20:80", reach.TCP, false, reach.ForeignPod},
		{"10.244.0.2", "", "10.96.4.21:80", reach.TCP, false, reach.ForeignPod},
		{"10.244.0.2", "", "10.96.4.22:80", reach.TCP, false, reach.Service},
		{"10.244.0.2", "", "10.96.8.10:53", reach.UDP, false, reach.Service},
		{"10.244.0.2", "", "10.96.8.1:443", reach.TCP, false, reach.Node},
		{"10.244.0.2", "", "192.0.2.1:7002", reach.TCP, false, reach.Node},
		{"10.244.0.2", "", "192.0.2.1:7001", reach.UDP, false, reach.Node},
		{"10.244.0.2", "", "192.0.2.1:10250", reach.TCP, false, reach.Node},
		{"10.244.0.2", "", "169.254.169.254:80", reach.TCP, false, reach.Blocked},
		{"10.244.0.2", "", "100.100.100.200:80", reach.TCP, false, reach.Blocked},
		{"10.244.0.2", "", "[fd00:ec2::254]:80", reach.TCP, false, reach.Blocked},
		{"10.244.0.2", "", "[2001:db8::1]:80", reach.TCP, false, reach.Default},
		{"10.244.0.2", "", "192.168.1.1:80", reach.TCP, false, reach.PrivateRange},
		{"10.244.0.2", "", "8.8.8.8:0", "GRE", false, reach.Default},
		{"10.244.0.5", "", "10.244.0.2:80", reach.TCP, false, reach.Stranger},
		{"8.8.8.8", "", "10.244.0.2:80", reach.TCP, false, reach.Stranger},
		{"10.244.0.6", "", "8.8.8.8:80", reach.TCP, false, reach.Default},
	} {
		f := reach.Flow{To: at(c.to), Proto: c.proto}
		if c.from != "" {
			f.Sender = netip.MustParseAddr(c.from)
			f.Source = f.Sender
		}
		if c.source != "" {
			f.Source = netip.MustParseAddr(c.source)
		}
		if got := world().May(f); got != (reach.Decision{Allow: c.allow, Rule: c.rule}) {
			t.Errorf("%s (as %q) -> %s %s: got %v, want %v by %s", c.from, c.source, c.to, c.proto, got, c.allow, c.rule)
		}
	}
}

// A load balancer's address leads in from elsewhere, to the pods of the tenant whose
// Service has it; pods of others do not get through it.
func TestLoadBalancers(t *testing.T) {
	w := world()
	w.Balanced = []reach.Balanced{{Tenant: "a", Proto: reach.TCP, At: at("203.0.113.80:80"), To: []netip.AddrPort{at("10.244.0.2:8080")}},
		{Tenant: "b", Proto: reach.TCP, At: at("203.0.113.80:81"), To: []netip.AddrPort{at("10.244.0.2:8080")}}}
	for _, c := range []struct {
		from, to string
		proto    reach.Proto
		want     reach.Decision
	}{
		{"8.8.8.8", "203.0.113.80:80", reach.TCP, reach.Decision{Allow: true, Rule: reach.LoadBalancer}},
		{"10.244.0.3", "203.0.113.80:80", reach.TCP, reach.Decision{Allow: true, Rule: reach.OwnPod}},
		{"8.8.8.8", "203.0.113.80:81", reach.TCP, reach.Decision{Rule: reach.Stranger}},
		{"8.8.8.8", "10.244.0.2:8080", reach.TCP, reach.Decision{Rule: reach.Stranger}},
		{"10.244.0.4", "203.0.113.80:80", reach.TCP, reach.Decision{Rule: reach.ForeignPod}},
		{"10.244.0.5", "203.0.113.80:80", reach.TCP, reach.Decision{Rule: reach.Stranger}},
	} {
		from := netip.MustParseAddr(c.from)
		if got := w.May(reach.Flow{Sender: from, Source: from, To: at(c.to), Proto: c.proto}); got != c.want {
			t.Errorf("%s -> %s: got %v, want %v", c.from, c.to, got, c.want)
		}
	}
}

// A pod of an ingress controller reaches the pods of the tenants that let it in, over
// TCP, as far as their own policies allow; another of the provider's does not, nor does
// it get out to it.
func TestIngressControllers(t *testing.T) {
	w := world()
	w.Fences[0].IngressFrom = []string{"ingress"}
	w.Pods = append(w.Pods, reach.Pod{Addr: netip.MustParseAddr("10.244.0.7"), Namespace: "ingress"})
	for _, c := range []struct {
		from, to string
		proto    reach.Proto
		want     reach.Decision
	}{
		{"10.244.0.7", "10.244.0.2:8080", reach.TCP, reach.Decision{Allow: true, Rule: reach.Ingress}},
		{"10.244.0.7", "10.96.4.20:80", reach.TCP, reach.Decision{Allow: true, Rule: reach.Ingress}},
		{"10.244.0.7", "10.244.0.2:8080", reach.UDP, reach.Decision{Rule: reach.Stranger}},
		{"10.244.0.7", "10.244.0.4:8080", reach.TCP, reach.Decision{Rule: reach.Stranger}},
		{"10.244.0.5", "10.244.0.2:8080", reach.TCP, reach.Decision{Rule: reach.Stranger}},
		{"8.8.8.8", "10.244.0.2:8080", reach.TCP, reach.Decision{Rule: reach.Stranger}},
		{"10.244.0.2", "10.244.0.7:8080", reach.TCP, reach.Decision{Rule: reach.ForeignPod}},
	} {
		from := netip.MustParseAddr(c.from)
		if got := w.May(reach.Flow{Sender: from, Source: from, To: at(c.to), Proto: c.proto}); got != c.want {
			t.Errorf("%s -> %s %s: got %v, want %v", c.from, c.to, c.proto, got, c.want)
		}
	}
	w.Policies = map[tenant.ID][]*networkingv1.NetworkPolicy{"a": {{Spec: networkingv1.NetworkPolicySpec{PolicyTypes: []networkingv1.PolicyType{"Ingress"}}}}}
	from := netip.MustParseAddr("10.244.0.7")
	if got := w.May(reach.Flow{Sender: from, Source: from, To: at("10.244.0.2:8080"), Proto: reach.TCP}); got != (reach.Decision{Rule: reach.PolicyIngress}) {
		t.Errorf("under the tenant's own policy: got %v", got)
	}
}

// Without the plan's internet, only what is the tenant's own is left.
func TestNoInternet(t *testing.T) {
	w := world()
	w.Fences[0].Internet = false
	from := netip.MustParseAddr("10.244.0.2")
	if d := w.May(reach.Flow{Sender: from, Source: from, To: at("8.8.8.8:53"), Proto: reach.UDP}); d.Allow {
		t.Errorf("got %v", d)
	}
	if d := w.May(reach.Flow{Sender: from, Source: from, To: at("10.244.0.3:53"), Proto: reach.UDP}); !d.Allow {
		t.Errorf("own pod: got %v", d)
	}
}
