package translate_test

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"

	"github.com/mattfenwick/cyclonus/pkg/matcher"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/intstr"

	"sublet.dev/isolation/policy"
	"sublet.dev/isolation/reach"
	"sublet.dev/isolation/tenant"
)

// A tenant's policies mean on the host, translated and asked by reach, what
// cyclonus' matcher says that they mean in the tenant: random policies, labels of
// pods and namespaces, ports; every pod to every other, and to addresses outside.
func TestPoliciesMeanWhatCyclonusSays(t *testing.T) {
	r := dice{rand.New(rand.NewPCG(11, 12))}
	verdicts := map[reach.Decision]int{}
	for round := range 150 {
		c := r.cluster()
		w := c.onHost(t)
		theirs := matcher.BuildNetworkPolicies(false, c.policies)
		for _, from := range c.pods {
			for _, to := range append(c.pods, outside()...) {
				if from.ip == to.ip {
					continue
				}
				for _, port := range []uint16{53, 80, 8080} {
					for _, proto := range []corev1.Protocol{"TCP", "UDP", "SCTP"} {
						want := theirs.IsTrafficAllowed(&matcher.Traffic{Source: c.peer(from), Destination: c.peer(to), Protocol: proto,
							ResolvedPort: int(port), ResolvedPortName: to.nameOf(port, proto)}).IsAllowed()
						got := w.May(reach.Flow{Sender: from.ip, Source: from.ip, To: netip.AddrPortFrom(to.ip, port), Proto: reach.Proto(proto)})
						if to.namespace == "" && proto == "SCTP" {
							continue // the fence's own
						}
						if verdicts[got]++; got.Allow != want {
							t.Fatalf("round %d: %+v -> %+v %s %d: reach says %v, cyclonus %v\n%s", round, from, to, proto, port, got, want, c)
						}
					}
				}
			}
		}
	}
	for _, d := range []reach.Decision{{Allow: true, Rule: reach.OwnPod}, {Allow: true, Rule: reach.Internet}, {Rule: reach.PolicyEgress}, {Rule: reach.PolicyIngress}} {
		if verdicts[d] < 300 {
			t.Errorf("%d verdicts were %v: it is not tested", verdicts[d], d)
		}
	}
}

// virtual is a tenant's cluster.
type virtual struct {
	namespaces map[string]map[string]string // with their labels
	pods       []virtualPod
	policies   []*networkingv1.NetworkPolicy
}

type virtualPod struct {
	namespace string // "" is outside
	ip        netip.Addr
	labels    map[string]string
	ports     []corev1.ContainerPort
}

func (p virtualPod) nameOf(port uint16, proto corev1.Protocol) string {
	for _, named := range p.ports {
		if named.ContainerPort == int32(port) && named.Protocol == proto {
			return named.Name
		}
	}
	return ""
}

func (c virtual) String() string {
	out := fmt.Sprintln(c.namespaces)
	for _, p := range c.policies {
		out += fmt.Sprintf("%s/%s %+v\n", p.Namespace, p.Name, p.Spec)
	}
	return out
}

func (c virtual) peer(p virtualPod) *matcher.TrafficPeer {
	peer := &matcher.TrafficPeer{IP: p.ip.String()}
	if p.namespace != "" {
		peer.Internal = &matcher.InternalPeer{Namespace: p.namespace, NamespaceLabels: c.namespaces[p.namespace], PodLabels: p.labels}
	}
	return peer
}

func outside() []virtualPod {
	return []virtualPod{{ip: netip.MustParseAddr("203.0.113.10")}, {ip: netip.MustParseAddr("8.8.8.8")}}
}

// onHost is what the host has of a tenant's cluster.
func (c virtual) onHost(t *testing.T) reach.World {
	t.Helper()
	var objects []runtime.Object
	for name, l := range c.namespaces {
		objects = append(objects, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: l}})
	}
	tr := translation(tenant.GVisor, objects...)
	w := reach.World{
		Cluster: policy.Cluster{PodCIDRs: []netip.Prefix{netip.MustParsePrefix("10.244.0.0/16")}, Blocked: policy.Blocked(), Private: policy.Private()},
		Fences:  []policy.Fence{{Tenant: tr.Tenant.ID, Namespace: tr.Tenant.HostNamespace, Services: tr.Tenant.ServiceCIDR, Internet: true}},
	}
	for _, p := range c.pods {
		pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: p.namespace, Name: "p" + p.ip.String(), UID: "u", Labels: p.labels},
			Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "i", Ports: p.ports}}}}
		hostPod, refused := tr.Pod(pod)
		if len(refused) > 0 {
			t.Fatal(refused)
		}
		w.Pods = append(w.Pods, reach.Pod{Addr: p.ip, Tenant: tr.Tenant.ID, Labels: hostPod.Labels, Ports: policy.NamedPorts(&hostPod.Spec)})
	}
	w.Policies = map[tenant.ID][]*networkingv1.NetworkPolicy{}
	for _, p := range c.policies {
		hostPolicy, refused := tr.NetworkPolicy(p)
		if len(refused) > 0 {
			t.Fatal(refused)
		}
		w.Policies[tr.Tenant.ID] = append(w.Policies[tr.Tenant.ID], hostPolicy)
	}
	return w
}

// dice draws tenants' clusters.
type dice struct{ *rand.Rand }

func (d dice) one(of ...string) string { return of[d.IntN(len(of))] }

// always is a label that everything has.
const always = "always"

func (d dice) labels() map[string]string {
	l := map[string]string{always: d.one("a", "b", "c")}
	for _, key := range []string{"app", "tier"} {
		if d.IntN(3) > 0 {
			l[key] = d.one("a", "b", "c")
		}
	}
	return l
}

func (d dice) selector() *metav1.LabelSelector {
	s := &metav1.LabelSelector{}
	if d.IntN(2) == 0 {
		s.MatchLabels = d.labels()
	}
	if d.IntN(2) == 0 {
		e := metav1.LabelSelectorRequirement{Key: d.one("app", "tier", "none"), Operator: metav1.LabelSelectorOperator(d.one("In", "NotIn", "Exists", "DoesNotExist"))}
		if e.Operator == metav1.LabelSelectorOpIn || e.Operator == metav1.LabelSelectorOpNotIn {
			e.Values = []string{"a", d.one("b", "c")}
		}
		if e.Operator == metav1.LabelSelectorOpNotIn {
			e.Key = always // cyclonus takes a label that is not there for one that is not selected; the API does not
		}
		s.MatchExpressions = append(s.MatchExpressions, e)
	}
	return s
}

func (d dice) cluster() virtual {
	c := virtual{namespaces: map[string]map[string]string{}}
	for _, ns := range []string{"x", "y", "z"} {
		c.namespaces[ns] = d.labels()
		c.namespaces[ns][corev1.LabelMetadataName] = ns
		for range 2 {
			p := virtualPod{namespace: ns, ip: netip.AddrFrom4([4]byte{10, 244, 0, byte(2 + len(c.pods))}), labels: d.labels()}
			if d.IntN(2) == 0 {
				p.ports = []corev1.ContainerPort{{Name: "http", ContainerPort: []int32{80, 8080}[d.IntN(2)], Protocol: corev1.Protocol(d.one("TCP", "UDP", "SCTP"))}}
			}
			c.pods = append(c.pods, p)
		}
	}
	for i := range d.IntN(5) {
		p := &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: d.one("x", "y", "z"), Name: fmt.Sprint("p", i), UID: "u"},
			Spec: networkingv1.NetworkPolicySpec{PodSelector: *d.selector(), PolicyTypes: [][]networkingv1.PolicyType{{"Ingress"}, {"Egress"}, {"Ingress", "Egress"}}[d.IntN(3)]}}
		for range d.IntN(3) {
			p.Spec.Ingress = append(p.Spec.Ingress, networkingv1.NetworkPolicyIngressRule{From: d.peers(), Ports: d.ports()})
		}
		for range d.IntN(3) {
			p.Spec.Egress = append(p.Spec.Egress, networkingv1.NetworkPolicyEgressRule{To: d.peers(), Ports: d.ports()})
		}
		c.policies = append(c.policies, p)
	}
	return c
}

func (d dice) peers() (peers []networkingv1.NetworkPolicyPeer) {
	for range d.IntN(3) {
		switch d.IntN(4) {
		case 0:
			peers = append(peers, networkingv1.NetworkPolicyPeer{PodSelector: d.selector()})
		case 1:
			peers = append(peers, networkingv1.NetworkPolicyPeer{NamespaceSelector: d.selector()})
		case 2:
			s := d.selector()
			if d.IntN(2) == 0 {
				s = &metav1.LabelSelector{MatchLabels: map[string]string{corev1.LabelMetadataName: d.one("x", "y")}}
			}
			peers = append(peers, networkingv1.NetworkPolicyPeer{PodSelector: d.selector(), NamespaceSelector: s})
		default:
			peers = append(peers, networkingv1.NetworkPolicyPeer{IPBlock: &networkingv1.IPBlock{CIDR: d.one("0.0.0.0/0", "10.244.0.0/16", "203.0.113.0/24", "8.0.0.0/8"),
				Except: [][]string{nil, {"10.244.0.2/31", "8.8.8.8/32"}, {"203.0.113.8/30"}}[d.IntN(3)]}})
		}
	}
	return peers
}

func (d dice) ports() (ports []networkingv1.NetworkPolicyPort) {
	for range d.IntN(3) {
		var p networkingv1.NetworkPolicyPort
		if proto := corev1.Protocol(d.one("", "TCP", "UDP", "SCTP")); proto != "" {
			p.Protocol = &proto
		}
		port, end := intstr.FromInt32(int32(50+d.IntN(40))), int32(8080)
		switch d.IntN(5) {
		case 0:
		case 1:
			port = intstr.FromString(d.one("http", "nobody"))
			p.Port = &port
		case 2:
			p.Port, p.EndPort = &port, &end
		default:
			port = intstr.FromInt32([]int32{53, 80, 8080}[d.IntN(3)])
			p.Port = &port
		}
		ports = append(ports, p)
	}
	return ports
}
