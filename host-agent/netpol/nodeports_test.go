package netpol

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"sublet.dev/isolation/policy"
	"sublet.dev/isolation/reach"
)

// The addresses by which tenants a and b know the node.
const (
	maskA = "198.18.1.1"
	maskB = "198.18.2.2"
)

// withWays gives the tenants of a node a node port each: a's leads to podA2, b's to podB.
func withWays(s State) State {
	a, b := &s.Tenants[0], &s.Tenants[1]
	a.Masks, b.Masks = []netip.Addr{addr(maskA)}, []netip.Addr{addr(maskB)}
	way := func(proto corev1.Protocol, port uint16, to ...string) Way {
		w := Way{NodePort: policy.NodePort{Protocol: proto, Port: port}}
		for _, p := range to {
			w.To = append(w.To, at(p))
		}
		return w
	}
	a.Ways = []Way{way("TCP", 30080, podA2+":8080"), way("UDP", 30080, podA2+":8081"), way("TCP", 30083), way("TCP", 30084, podB+":8080"),
		way("TCP", 30086, "169.254.169.254:80"), way("TCP", 30087, nodeIP+":10250")}
	b.Ways = []Way{way("TCP", 30081, podB+":8080")}
	return s
}

// A tenant's pods reach their own node ports at the addresses that they know nodes by,
// and by them nobody else: not another tenant's ports or addresses, nor what a tenant
// says is behind its own.
func TestNodePortsFromPods(t *testing.T) {
	l := newLab(t, elsewhere...)
	state := withWays(l.plug())
	l.apply(Render(state))
	l.last = addr(podSystem)
	for _, c := range []struct {
		what, from, to string
		proto          reach.Proto
		arrives        bool
	}{
		{"its own port", podA1, maskA + ":30080", reach.TCP, true},
		{"its own port of UDP", podA1, maskA + ":30080", reach.UDP, true},
		{"its own port, which leads to itself", podA2, maskA + ":30080", reach.TCP, true},
		{"the other tenant its own", podB, maskB + ":30081", reach.TCP, true},
		{"another's port at its own address", podA1, maskA + ":30081", reach.TCP, false},
		{"its own port at another's address", podA1, maskB + ":30080", reach.TCP, false},
		{"another's port at another's address", podA1, maskB + ":30081", reach.TCP, false},
		{"a port that no Service has", podA1, maskA + ":30082", reach.TCP, false},
		{"a port without pods", podA1, maskA + ":30083", reach.TCP, false},
		{"another's pod behind its own port", podA1, maskA + ":30084", reach.TCP, false},
		{"metadata behind its own port", podA1, maskA + ":30086", reach.TCP, false},
		{"the kubelet behind its own port", podA1, maskA + ":30087", reach.TCP, false},
		{"the pods' own port", podA1, maskA + ":8080", reach.TCP, false},
		{"a port of TCP by UDP", podA1, maskA + ":30084", reach.UDP, false},
		{"a pod of nobody", podOrphan, maskA + ":30080", reach.TCP, false},
		{"a pod of the provider", podSystem, maskA + ":30080", reach.TCP, false},
	} {
		f := reach.Flow{Sender: addr(c.from), Source: addr(c.from), To: at(c.to), Proto: c.proto}
		if got := l.probe([]reach.Flow{f})[0]; got != c.arrives {
			t.Errorf("%s: arrived=%v", c.what, got)
		}
	}
}

// The tenant's own policies judge what comes by a node port like everything else.
func TestPoliciesAndNodePorts(t *testing.T) {
	l := newLab(t, elsewhere...)
	state := withWays(l.plug())
	f := []reach.Flow{{Sender: addr(podA1), Source: addr(podA1), To: at(maskA + ":30080"), Proto: reach.TCP}}
	l.last = addr(podSystem)
	l.apply(Render(state))
	if !l.probe(f)[0] {
		t.Fatal("without a policy nothing arrives: it would prove nothing")
	}
	state.Tenants[0].Policies = []*networkingv1.NetworkPolicy{{ObjectMeta: metav1.ObjectMeta{Name: "closed"},
		Spec: networkingv1.NetworkPolicySpec{PolicyTypes: []networkingv1.PolicyType{networkingv1.PolicyTypeIngress}}}}
	l.apply(Render(state))
	if l.probe(f)[0] {
		t.Error("a node port leads past a policy")
	}
}

// A node port is spread over its pods; one with session affinity leads a client to the
// same one each time. Of two pods behind it one is another tenant's, so does not answer.
func TestNodePortsChoose(t *testing.T) {
	l := newLab(t, elsewhere...)
	state := l.plug()
	a := &state.Tenants[0]
	a.Masks = []netip.Addr{addr(maskA)}
	for i, sticky := range []bool{false, true} {
		a.Ways = append(a.Ways, Way{NodePort: policy.NodePort{Protocol: "TCP", Port: uint16(30080 + i)}, Sticky: sticky, To: []netip.AddrPort{at(podA2 + ":8080"), at(podB + ":8080")}})
	}
	l.apply(Render(state))
	l.last = addr(podSystem)
	for i, sticky := range []bool{false, true} {
		var flows []reach.Flow
		for range 64 {
			flows = append(flows, reach.Flow{Sender: addr(podA1), Source: addr(podA1), To: at(fmt.Sprintf("%s:%d", maskA, 30080+i)), Proto: reach.TCP})
		}
		arrived := l.probe(flows)
		if some := slices.Contains(arrived, true) && slices.Contains(arrived, false); some == sticky {
			t.Errorf("sticky %v: arrived %v", sticky, arrived)
		}
	}
}

// The pods behind a port are those that the proxy would choose.
func TestTargets(t *testing.T) {
	is := func(ready, serving, terminating bool) discoveryv1.EndpointConditions {
		return discoveryv1.EndpointConditions{Ready: &ready, Serving: &serving, Terminating: &terminating}
	}
	slice := func(port string, n int32, endpoints ...discoveryv1.Endpoint) *discoveryv1.EndpointSlice {
		return &discoveryv1.EndpointSlice{Ports: []discoveryv1.EndpointPort{{Name: &port, Port: ptr.To(n)}}, Endpoints: endpoints}
	}
	at2 := func(c discoveryv1.EndpointConditions, a ...string) discoveryv1.Endpoint {
		return discoveryv1.Endpoint{Addresses: a, Conditions: c}
	}
	ready, ending, away := is(true, true, false), is(false, true, true), is(false, false, true)
	for name, c := range map[string]struct {
		slices []*discoveryv1.EndpointSlice
		want   []netip.AddrPort
	}{
		"none":              {nil, nil},
		"ready ones":        {[]*discoveryv1.EndpointSlice{slice("http", 80, at2(ready, podA2), at2(ending, podA1), at2(discoveryv1.EndpointConditions{}, podB))}, []netip.AddrPort{at(podA2 + ":80"), at(podB + ":80")}},
		"ending ones":       {[]*discoveryv1.EndpointSlice{slice("http", 80, at2(ending, podA1), at2(away, podA2))}, []netip.AddrPort{at(podA1 + ":80")}},
		"another port":      {[]*discoveryv1.EndpointSlice{slice("admin", 81, at2(ready, podA1))}, nil},
		"no port":           {[]*discoveryv1.EndpointSlice{slice("http", 0, at2(ready, podA1))}, nil},
		"port of no number": {[]*discoveryv1.EndpointSlice{{Ports: []discoveryv1.EndpointPort{{Name: ptr.To("http")}}, Endpoints: []discoveryv1.Endpoint{at2(ready, podA1)}}}, nil},
		"IPv6, and nothing": {[]*discoveryv1.EndpointSlice{slice("http", 80, at2(ready, "fd00::1"), at2(ready), at2(ready, "x"))}, nil},
		"the same twice":    {[]*discoveryv1.EndpointSlice{slice("http", 80, at2(ready, podA1)), slice("http", 80, at2(ready, podA1))}, []netip.AddrPort{at(podA1 + ":80")}},
	} {
		if got := targets(c.slices, "http"); !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
	var many []discoveryv1.Endpoint
	for i := range 3 * maxTargets {
		many = append(many, at2(ready, fmt.Sprintf("10.244.%d.%d", i/256, i%256)))
	}
	if n := len(targets([]*discoveryv1.EndpointSlice{slice("http", 80, many...)}, "http")); n != maxTargets {
		t.Errorf("%d targets of %d", n, len(many))
	}
}
