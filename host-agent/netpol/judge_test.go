package netpol

import (
	"encoding/binary"
	"net/netip"
	"os/exec"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"sublet.dev/isolation/reach"
	"sublet.dev/isolation/tenant"
)

// sourcePorts is how many numbers there are between two probes from one port.
const sourcePorts = 40000

// once more: the same connections as in every round before.
func (l *lab) more(round uint32, flows []reach.Flow, want ...bool) {
	l.t.Helper()
	l.sent = round * sourcePorts
	l.expect(flows, want...)
}

// answer sends what makes the connections of a round established.
func (l *lab) answer(flows []reach.Flow) {
	l.t.Helper()
	for i, f := range flows {
		back := reach.Flow{Source: f.To.Addr(), To: netip.AddrPortFrom(f.Source, uint16(20001+i)), Proto: f.Proto}
		b := packet(back, 0)
		binary.BigEndian.PutUint16(b[20:], f.To.Port())
		send(l.pods[f.To.Addr()], l, [][]byte{b})
	}
}

// established counts the connections between two pods that have been answered.
func (l *lab) established(from, to string) (n int) {
	l.t.Helper()
	inside(l.t, l.node, func() error {
		out, err := exec.Command("conntrack", "-L", "-s", from, "-d", to).Output()
		for line := range strings.Lines(string(out)) {
			if !strings.Contains(line, "UNREPLIED") {
				n++
			}
		}
		return err
	})
	return n
}

// A connection that exists is cut by the policy that comes to forbid it, and no other
// is.
func TestPolicyCutsConnections(t *testing.T) {
	l := newLab(t, internet)
	e, r := l.enforcer()
	e.world = knownWorld()
	a := tenant.HostNamespace("a", "a")
	l.attach(e, r, "a1", a, podA1)
	l.attach(e, r, "a2", a, podA2)
	l.attach(e, r, "b1", tenant.HostNamespace("b", "b"), podB)
	l.last = addr(podB)
	e.world.local[podKey{namespace: a, name: "pod-a1"}] = Pod{Labels: map[string]string{"app": "client"}}
	sync := func() {
		t.Helper()
		inside(t, l.node, func() error { return e.Sync(t.Context()) })
	}
	sync()
	var flows []reach.Flow
	for _, port := range []uint16{80, 81} {
		flows = append(flows, reach.Flow{Sender: addr(podA1), Source: addr(podA1), To: netip.AddrPortFrom(addr(podA2), port), Proto: reach.UDP})
	}
	l.more(1, flows, true, true)
	l.answer(flows)
	l.more(2, flows, true, true)
	if n := l.established(podA1, podA2); n != 2 {
		t.Fatalf("%d connections are established, want 2", n)
	}
	port, udp := intstr.FromInt32(81), corev1.ProtocolUDP
	p := deny("p", map[string]string{"app": "client"}, "Egress")
	p.Spec.Egress = []networkingv1.NetworkPolicyEgressRule{{Ports: []networkingv1.NetworkPolicyPort{{Protocol: &udp, Port: &port}}}}
	e.world.policies = map[string][]*networkingv1.NetworkPolicy{a: {p}}
	sync()
	if n := l.established(podA1, podA2); n != 1 {
		t.Errorf("%d connections are left, want 1", n)
	}
	l.more(3, flows, false, true)
	e.world.policies = nil
	sync()
	l.more(4, flows, true, true)
}
