// Package policytest draws random NetworkPolicies, and labels and ports of pods that
// they are about, for the tests that hold renderings of them against package reach. And
// it lists [Images], for the tests of what a plan says of them.
//
// Policies name the addresses of those tests: pods in 10.244.0.0/16, services in
// 10.96.0.0/12, [Node], and 203.0.113.0/24 for the internet. It is for tests alone.
package policytest

import (
	"fmt"
	"math/rand/v2"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"sublet.dev/isolation/policy"
	"sublet.dev/isolation/tenant"
)

// Node is the address of the tests' node.
const Node = "192.0.2.1"

// Random draws policies, labels and ports as the syncer writes them to the host.
type Random struct{ *rand.Rand }

func (r Random) one(of ...string) string { return of[r.IntN(len(of))] }

// Labels returns those of a host pod.
func (r Random) Labels() map[string]string {
	l := map[string]string{tenant.LabelNamespace: tenant.NamespaceValue(r.one("x", "y"))}
	for _, key := range []string{"app", "tier"} {
		if r.IntN(3) > 0 {
			l[tenant.HostLabel(key)] = r.one("a", "b", "c")
		}
	}
	return l
}

func (r Random) selector() *metav1.LabelSelector {
	s := &metav1.LabelSelector{MatchLabels: map[string]string{}}
	if r.IntN(3) > 0 {
		s.MatchLabels[tenant.HostLabel("app")] = r.one("a", "b")
	}
	if r.IntN(3) == 0 {
		e := metav1.LabelSelectorRequirement{Key: tenant.HostLabel("tier"), Operator: metav1.LabelSelectorOperator(r.one("In", "NotIn", "Exists", "DoesNotExist"))}
		if e.Operator == metav1.LabelSelectorOpIn || e.Operator == metav1.LabelSelectorOpNotIn {
			e.Values = []string{"a", "c"}
		}
		s.MatchExpressions = append(s.MatchExpressions, e)
	}
	if r.IntN(2) == 0 {
		s.MatchExpressions = append(s.MatchExpressions, metav1.LabelSelectorRequirement{Key: tenant.LabelNamespace, Operator: metav1.LabelSelectorOpIn,
			Values: []string{tenant.NamespaceValue(r.one("x", "y", "kube-system"))}})
	}
	return s
}

func (r Random) peers() (peers []networkingv1.NetworkPolicyPeer) {
	for range r.IntN(3) {
		switch r.IntN(4) {
		case 0:
			peers = append(peers, networkingv1.NetworkPolicyPeer{IPBlock: &networkingv1.IPBlock{CIDR: r.one("0.0.0.0/0", "203.0.113.0/24", "10.96.0.0/12", "10.244.0.0/16", Node+"/32", "2001:db8::/32"),
				Except: [][]string{nil, {"203.0.113.0/25", "10.244.0.0/25"}, {"10.244.0.2/31", "10.244.0.4/32", "203.0.113.0/25"}}[r.IntN(3)]}})
		case 1:
			peers = append(peers, networkingv1.NetworkPolicyPeer{PodSelector: &metav1.LabelSelector{MatchLabels: policy.DNSLabels()}})
		default:
			peers = append(peers, networkingv1.NetworkPolicyPeer{PodSelector: r.selector()})
		}
	}
	return peers
}

func (r Random) ports() (ports []networkingv1.NetworkPolicyPort) {
	for range r.IntN(4) {
		var p networkingv1.NetworkPolicyPort
		if proto := corev1.Protocol(r.one("", "TCP", "UDP", "SCTP")); proto != "" {
			p.Protocol = &proto
		}
		switch r.IntN(5) {
		case 0:
		case 1:
			port := intstr.FromString(r.one("http", "dns", "dns-tcp", "nobody"))
			p.Port = &port
		case 2:
			port, end := intstr.FromInt32(int32(r.IntN(100))), int32(8080)
			p.Port, p.EndPort = &port, &end
		default:
			port := intstr.FromInt32([]int32{53, 80, 443, 8080}[r.IntN(4)])
			p.Port = &port
		}
		ports = append(ports, p)
	}
	return ports
}

// Policies returns some that select among the pods that Labels is for, and name them
// among their peers.
func (r Random) Policies() (all []*networkingv1.NetworkPolicy) {
	for i := range 1 + r.IntN(4) {
		p := &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprint("p", i)}, Spec: networkingv1.NetworkPolicySpec{PodSelector: *r.selector()}}
		p.Spec.PolicyTypes = [][]networkingv1.PolicyType{nil, {"Ingress"}, {"Egress"}, {"Ingress", "Egress"}}[r.IntN(4)]
		for range r.IntN(3) {
			p.Spec.Ingress = append(p.Spec.Ingress, networkingv1.NetworkPolicyIngressRule{From: r.peers(), Ports: r.ports()})
		}
		for range r.IntN(3) {
			p.Spec.Egress = append(p.Spec.Egress, networkingv1.NetworkPolicyEgressRule{To: r.peers(), Ports: r.ports()})
		}
		all = append(all, p)
	}
	return all
}

// Ports returns the named ports of a pod.
func (r Random) Ports() []corev1.ContainerPort {
	if r.IntN(3) == 0 {
		return nil
	}
	return []corev1.ContainerPort{{Name: "http", Protocol: corev1.Protocol(r.one("TCP", "UDP", "SCTP")), ContainerPort: []int32{80, 8080}[r.IntN(2)]}}
}
