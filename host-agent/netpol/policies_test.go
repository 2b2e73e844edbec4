package netpol

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"sublet.dev/host-agent/podnet"
	"sublet.dev/isolation/policy"
	"sublet.dev/isolation/policy/policytest"
	"sublet.dev/isolation/reach"
	"sublet.dev/isolation/tenant"
)

// randomPod draws what policies ask of a pod.
func randomPod(r policytest.Random) Pod { return Pod{Labels: r.Labels(), Ports: r.Ports()} }

// guarded is a node with pods of tenant a that policies are about, and the world as
// reach sees it.
func (l *lab) guarded(pods ...string) (State, reach.World) {
	s, w := l.plug(), testWorld()
	for _, ip := range pods {
		s.Tenants[0].Endpoints = append(s.Tenants[0].Endpoints, podnet.Endpoint{ContainerID: "c-" + ip, Namespace: w.Fences[0].Namespace, Pod: "p-" + ip, Interface: l.pod(ip), Addresses: []netip.Addr{addr(ip)}})
		w.Pods = append(w.Pods, reach.Pod{Addr: addr(ip), Tenant: "a"})
	}
	w.NodePorts = []reach.NodePorts{{Tenant: "a", Proto: reach.TCP, Port: 30080, To: []netip.AddrPort{at(podA2 + ":8080")}},
		{Tenant: "b", Proto: reach.UDP, Port: 30081, To: []netip.AddrPort{at(podB + ":8080")}},
		// what the proxy does and the tenant's Services do not say: another's pod, and a port that none has
		{Tenant: "b", Proto: reach.TCP, Port: 30082, To: []netip.AddrPort{at(podA1 + ":8080")}}, {Tenant: "", Proto: reach.TCP, Port: 30083, To: []netip.AddrPort{at(podA1 + ":8080")}}}
	s.Tenants[0].NodePorts = []policy.NodePort{{Protocol: "TCP", Port: 30080}}
	s.Tenants[1].NodePorts = []policy.NodePort{{Protocol: "UDP", Port: 30081}, {Protocol: "TCP", Port: 30082}}
	w.Balanced = []reach.Balanced{{Tenant: "a", Proto: reach.TCP, At: at(balancer + ":80"), To: []netip.AddrPort{at(podA2 + ":8080")}},
		// as above: another's pod, and a port that no Service of the tenant has
		{Tenant: "b", Proto: reach.TCP, At: at(balancer + ":443"), To: []netip.AddrPort{at(podA1 + ":8080")}}, {Tenant: "", Proto: reach.TCP, At: at(balancer + ":8081"), To: []netip.AddrPort{at(podA2 + ":8080")}}}
	s.Tenants[0].Balanced = []policy.Balanced{{Addr: addr(balancer), NodePort: policy.NodePort{Protocol: "TCP", Port: 80}}}
	s.Tenants[1].Balanced = []policy.Balanced{{Addr: addr(balancer), NodePort: policy.NodePort{Protocol: "TCP", Port: 443}}}
	l.last = addr(podSystem)
	return s, w
}

// draw gives the pods of tenant a labels and ports, and the tenant policies.
func draw(r policytest.Random, s *State, w *reach.World) {
	a := &s.Tenants[0]
	a.Pods, a.Policies = map[netip.Addr]Pod{}, r.Policies()
	w.Policies = map[tenant.ID][]*networkingv1.NetworkPolicy{"a": a.Policies}
	for i, p := range w.Pods {
		if p.Tenant == "a" {
			pod := randomPod(r)
			a.Pods[p.Addr] = pod
			w.Pods[i].Labels, w.Pods[i].Ports = pod.Labels, pod.Ports
		}
	}
}

const (
	podA3 = "10.244.0.7"
	podA4 = "10.244.0.8"
)

// policyFlows are what policies of tenant a decide, and what they must not open.
func policyFlows() (flows []reach.Flow) {
	add := func(from, to string, port uint16, protos ...reach.Proto) {
		for _, proto := range protos {
			f := reach.Flow{To: netip.AddrPortFrom(addr(to), port), Proto: proto}
			if from != "" {
				f.Sender = addr(from)
				f.Source = f.Sender
			}
			flows = append(flows, f)
		}
	}
	own := []string{podA1, podA2, podA3, podA4}
	for _, from := range append([]string{remoteA, podB, internet, ""}, own...) {
		for _, to := range own {
			for _, port := range []uint16{80, 443, 8080} {
				add(from, to, port, reach.TCP, reach.UDP, "SCTP")
			}
			add(from, to, 0, reach.ICMP)
		}
	}
	for _, from := range []string{internet, "192.168.50.1", podA1, podB, podSystem, remoteB} {
		for _, port := range []uint16{30080, 30081, 30082, 30083} {
			add(from, nodeIP, port, reach.TCP, reach.UDP)
		}
		for _, port := range []uint16{80, 443, 8081} {
			add(from, balancer, port, reach.TCP)
		}
	}
	for _, from := range own {
		for _, to := range []string{internet, podB, otherNode, remoteA, "169.254.169.254", "192.168.50.1"} {
			add(from, to, 80, reach.TCP, reach.UDP)
		}
		add(from, internet, 0, reach.ICMP)
		add(from, "10.96.4.10", 53, reach.TCP, reach.UDP) // its DNS
		add(from, "10.96.8.10", 53, reach.UDP)            // another's
		add(from, "10.96.4.1", 443, reach.TCP)            // its API
		add(from, nodeIP, 7001, reach.TCP)
		add(from, nodeIP, 10250, reach.TCP)
		add(from, "10.96.4.20", 80, reach.TCP, reach.UDP) // its Service: port 8080 of podA2
		add(from, "10.96.4.21", 80, reach.TCP)            // of podA1
	}
	return flows
}

// Random policies, real packets: what arrives is what reach says.
func TestPacketsArriveAsPoliciesSay(t *testing.T) {
	l := newLab(t, append([]string{"198.18.0.1"}, elsewhere...)...)
	s, w := l.guarded(podA3, podA4)
	l.proxy(w)
	flows := policyFlows()
	for i, arrived := range l.probe(flows) {
		if !arrived && flows[i].To.Port() != policy.DNSPort { // DNS addresses are led by the table itself
			t.Fatalf("without the fence %s does not arrive: it would prove nothing", describe(flows[i]))
		}
	}
	r := policytest.Random{Rand: rand.New(rand.NewPCG(7, 8))}
	allowed, rules := 0, map[reach.Rule]int{}
	for round := range 25 {
		draw(r, &s, &w)
		l.apply(Render(s))
		l.forgetAll()
		j := judgeOf(s)
		for i, arrived := range l.probe(flows) {
			f := flows[i]
			want := w.May(f)
			if rules[want.Rule]++; want.Allow && len(s.Tenants[0].Policies) > 0 {
				allowed++
			}
			if f.Sender == addr(remoteA) && want.Rule == reach.PolicyEgress || f.To.Addr() == addr(remoteA) && want.Rule == reach.PolicyIngress {
				continue // the other node's to refuse
			}
			if arrived != want.Allow && !(otherNodeDecides(f) && !want.Allow) {
				t.Fatalf("round %d: %s: arrived=%v, reach says %v\n%s", round, describe(f), arrived, want, shown(s, w))
			}
			denied := j.denies(f.Sender, f.To.Addr(), uint8(numbers[f.Proto]), f.To.Port())
			direct := want.Rule == reach.OwnPod || want.Rule == reach.Internet || want.Rule == reach.PolicyEgress || want.Rule == reach.PolicyIngress
			if _, virtual := w.Services[f.To]; direct && !virtual && f.To.Addr() != addr(nodeIP) && f.To.Addr() != addr(balancer) && f.To.Addr() != addr("10.96.4.10") && f.To.Addr() != addr("10.96.4.1") && denied == want.Allow {
				t.Fatalf("round %d: a connection %s that exists is denied=%v, reach says %v\n%s", round, describe(f), denied, want, shown(s, w))
			}
		}
	}
	for _, rule := range []reach.Rule{reach.OwnPod, reach.OwnDNS, reach.OwnAPI, reach.Internet, reach.PolicyEgress, reach.PolicyIngress, reach.ForeignPod, reach.Stranger, reach.Blocked, reach.Host, reach.NodePort, reach.LoadBalancer} {
		if rules[rule] < 10 {
			t.Errorf("%d packets were decided by %s: it is not tested", rules[rule], rule)
		}
	}
	t.Logf("%d packets were allowed; by rule: %v", allowed, rules)
}

// shown prints what a failure was about.
func shown(s State, w reach.World) string {
	out := ""
	for _, p := range w.Pods {
		if p.Tenant == "a" {
			out += fmt.Sprintln(p.Addr, p.Labels, p.Ports)
		}
	}
	for _, p := range s.Tenants[0].Policies {
		out += fmt.Sprintf("%s: %+v\n", p.Name, p.Spec)
	}
	for _, c := range guardsOf(s.Tenants[0]).chains {
		for _, line := range Render(s).Chains {
			if line.Name == c.chain {
				out += fmt.Sprintln(line.Name, line.Rules)
			}
		}
	}
	return out
}

func deny(name string, pods map[string]string, types ...networkingv1.PolicyType) *networkingv1.NetworkPolicy {
	return &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: networkingv1.NetworkPolicySpec{PodSelector: metav1.LabelSelector{MatchLabels: pods}, PolicyTypes: types}}
}

// A pod that the host API has not told of is closed, whatever the fence allows; the
// node reaches it, and nobody else does.
func TestUnknownPodIsClosed(t *testing.T) {
	l := newLab(t, elsewhere...)
	s, _ := l.guarded()
	delete(s.Tenants[0].Pods, addr(podA1))
	l.apply(Render(s))
	l.forgetAll()
	flow := func(from, to string) reach.Flow {
		f := reach.Flow{To: at(to), Proto: reach.UDP}
		if from != "" {
			f.Sender, f.Source = addr(from), addr(from)
		}
		return f
	}
	l.expect([]reach.Flow{
		flow(podA1, podA2+":80"), flow(podA2, podA1+":80"), flow(podA1, internet+":80"), flow(podA1, "10.96.4.10:53"),
		flow("", podA1+":80"), flow(podA2, internet+":80"), flow(podA2, "10.96.4.10:53"),
	}, false, false, false, false, true, true, true)
}

// Policies that are too much for a node close the pods that they select, and those
// alone.
func TestExcessIsClosed(t *testing.T) {
	l := newLab(t, elsewhere...)
	s, _ := l.guarded()
	a := &s.Tenants[0]
	key := tenant.HostLabel("app")
	a.Pods[addr(podA1)] = Pod{Labels: map[string]string{key: "big"}}
	big := deny("big", map[string]string{key: "big"}, "Egress")
	for i := range maxAllows + 1 {
		big.Spec.Egress = append(big.Spec.Egress, networkingv1.NetworkPolicyEgressRule{To: []networkingv1.NetworkPolicyPeer{{IPBlock: &networkingv1.IPBlock{CIDR: netip.AddrFrom4([4]byte{203, byte(i >> 16), byte(i >> 8), byte(i)}).String() + "/32"}}}})
	}
	a.Policies = []*networkingv1.NetworkPolicy{big}
	l.apply(Render(s))
	l.forgetAll()
	flow := func(from, to string) reach.Flow {
		return reach.Flow{Sender: addr(from), Source: addr(from), To: at(to), Proto: reach.UDP}
	}
	l.expect([]reach.Flow{flow(podA1, internet+":80"), flow(podA2, internet+":80"), flow(podA2, podA1+":80")}, false, true, true)
	if got := judgeOf(s).Excess; !slices.Equal(got, []tenant.ID{"a"}) {
		t.Errorf("too much are the policies of %v", got)
	}
	big.Spec.Egress = big.Spec.Egress[:maxAllows]
	if got := judgeOf(s).Excess; len(got) > 0 {
		t.Errorf("too much are also the policies of %v", got)
	}
	var blocks []networkingv1.NetworkPolicyPeer
	for i := range maxElements + 1 { // no two of them meet
		blocks = append(blocks, networkingv1.NetworkPolicyPeer{IPBlock: &networkingv1.IPBlock{CIDR: netip.AddrFrom4([4]byte{203, byte(i >> 15), byte(i >> 7), byte(i << 1)}).String() + "/32"}})
	}
	big.Spec.Egress = []networkingv1.NetworkPolicyEgressRule{{To: blocks}}
	if got := judgeOf(s).Excess; !slices.Equal(got, []tenant.ID{"a"}) {
		t.Errorf("too many addresses, and too much are the policies of %v", got)
	}
}

// Whatever a policy holds that the API would refuse, the table is one that the kernel
// takes: it is everybody's.
func TestNonsenseKeepsNobodyOut(t *testing.T) {
	l := newLab(t, elsewhere...)
	s, _ := l.guarded()
	p := deny("p", nil, "Ingress", "Egress")
	for _, c := range [][3]int32{{8080, 80, 1}, {-5, 70000, 1}, {70000, 70001, 1}, {0, 65535, 1}, {99999, 0, 0}} {
		number, end := intstr.FromInt32(c[0]), c[1]
		port := networkingv1.NetworkPolicyPort{Port: &number}
		if c[2] == 1 {
			port.EndPort = &end
		}
		proto := corev1.Protocol("tcp; drop")
		peers := []networkingv1.NetworkPolicyPeer{{}, {IPBlock: &networkingv1.IPBlock{CIDR: "nonsense"}}, {IPBlock: &networkingv1.IPBlock{CIDR: "203.0.113.0/24", Except: []string{"0.0.0.0/0", "x"}}},
			{IPBlock: &networkingv1.IPBlock{CIDR: "0.0.0.0/0", Except: []string{"0.0.0.0/1", "255.255.255.255/32"}}},
			{PodSelector: &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{Key: "!", Operator: "?"}}}}}
		p.Spec.Egress = append(p.Spec.Egress, networkingv1.NetworkPolicyEgressRule{To: peers, Ports: []networkingv1.NetworkPolicyPort{port, {Protocol: &proto}}})
		p.Spec.Ingress = append(p.Spec.Ingress, networkingv1.NetworkPolicyIngressRule{From: peers, Ports: []networkingv1.NetworkPolicyPort{port, {Protocol: &proto, Port: &number}}})
	}
	s.Tenants[0].Policies = []*networkingv1.NetworkPolicy{p}
	table := Render(s)
	kernel := l.apply(table)
	inside(t, l.node, func() error {
		read, err := kernel.Read(t.Context())
		if got, want := read.Lines(), table.Lines(); !slices.Equal(got, want) {
			t.Errorf("the kernel has %v, rendered was %v", missing(got, want), missing(want, got))
		}
		return err
	})
}
