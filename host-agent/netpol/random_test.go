package netpol

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"sublet.dev/host-agent/nft"
	"sublet.dev/host-agent/podnet"
	"sublet.dev/isolation/policy"
	"sublet.dev/isolation/policy/policytest"
	"sublet.dev/isolation/tenant"
)

// randomState is a node with up to six tenants and forty pods.
func randomState(r *rand.Rand) State {
	s := State{Cluster: testCluster(), NodePods: cidrs("10.244.0.0/24"), DNS: at(nodeIP + ":10053")}
	n := 0
	endpoints := func(most int) (out []podnet.Endpoint) {
		for range r.IntN(most + 1) {
			n++
			out = append(out, podnet.Endpoint{ContainerID: fmt.Sprint("c", n), Interface: fmt.Sprintf("veth%08x", r.Uint32()),
				Addresses: []netip.Addr{netip.AddrFrom4([4]byte{10, 244, 0, byte(n + 1)})}})
		}
		return out
	}
	for i := range r.IntN(7) {
		f := policy.Fence{Tenant: tenant.ID(fmt.Sprint(r.Uint64())), Services: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 96, byte(4 * i), 0}), 22),
			DNS: []netip.AddrPort{s.DNS}, API: []netip.AddrPort{netip.AddrPortFrom(addr(nodeIP), uint16(20000+i))}, Internet: r.IntN(2) == 0}
		t := Tenant{Fence: f, Endpoints: endpoints(5)}
		for range r.IntN(3) {
			t.Remote = append(t.Remote, netip.AddrFrom4([4]byte{10, 244, 1, byte(r.IntN(256))}))
		}
		for range r.IntN(3) {
			t.NodePorts = append(t.NodePorts, policy.NodePort{Protocol: corev1.Protocol([]string{"TCP", "UDP", "SCTP"}[r.IntN(3)]), Port: uint16(30000 + r.IntN(3))})
		}
		for range r.IntN(3) {
			t.Balanced = append(t.Balanced, policy.Balanced{Addr: netip.AddrFrom4([4]byte{203, 0, 113, byte(r.IntN(3))}),
				NodePort: policy.NodePort{Protocol: corev1.Protocol([]string{"TCP", "UDP", "SCTP"}[r.IntN(3)]), Port: uint16(80 + r.IntN(3))}})
		}
		for i := range r.IntN(4) {
			w := Way{NodePort: policy.NodePort{Protocol: corev1.Protocol([]string{"TCP", "UDP", "SCTP"}[r.IntN(3)]), Port: uint16(30000 + i)}, Sticky: r.IntN(2) == 0}
			for j := range r.IntN(4) {
				w.To = append(w.To, netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 244, byte(j), byte(r.IntN(256))}), uint16(1+r.IntN(65535))))
			}
			t.Ways, t.Masks = append(t.Ways, w), append(t.Masks, netip.AddrFrom4([4]byte{198, 18, 0, byte(r.IntN(3))}))
		}
		for range r.IntN(3) {
			t.Ingress = append(t.Ingress, netip.AddrFrom4([4]byte{10, 244, 2, byte(r.IntN(3))}))
		}
		t.Pods, t.Policies = map[netip.Addr]Pod{}, policytest.Random{Rand: r}.Policies()
		for _, a := range t.addresses() {
			if r.IntN(10) > 0 { // the others are not known
				t.Pods[a] = randomPod(policytest.Random{Rand: r})
			}
		}
		s.Tenants = append(s.Tenants, t)
	}
	s.System, s.Orphans = endpoints(4), endpoints(4)
	return s
}

// From any state to any other in one kernel: what it has is what was rendered.
func TestAnyStateAfterAnyOther(t *testing.T) {
	l := newLab(t)
	r := rand.New(rand.NewPCG(5, 6))
	inside(t, l.node, func() error {
		kernel, err := nft.Open(TableName)
		if err != nil {
			return err
		}
		for i := range 60 {
			table := Render(randomState(r))
			if err := kernel.Apply(t.Context(), table); err != nil {
				return fmt.Errorf("state %d: %w", i, err)
			}
			read, err := kernel.Read(t.Context())
			if err != nil {
				return err
			}
			got, want := read.Lines(), table.Lines()
			if !slices.Equal(got, want) {
				return fmt.Errorf("state %d: the kernel has %d lines, %d were rendered:\n%v\n%v", i, len(got), len(want), missing(got, want), missing(want, got))
			}
			slices.Sort(read.Counters)
			if !slices.Equal(read.Counters, table.Counters) {
				return fmt.Errorf("state %d: counters are %v", i, missing(read.Counters, table.Counters))
			}
		}
		return nil
	})
}
