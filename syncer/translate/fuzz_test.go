package translate

import (
	"net/netip"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation"

	"sublet.dev/isolation/tenant"
)

var testTenant = tenant.Tenant{
	ID: "t1", Name: "acme", HostNamespace: tenant.HostNamespace("acme", "t1"), Sandbox: tenant.GVisor,
	ServiceCIDR: netip.MustParsePrefix("10.96.4.0/22"), SecondServiceCIDR: netip.MustParsePrefix("fd00:96::400/118"),
}

// nothing is an empty world.
type nothing struct{}

func (nothing) HostNode(string) (*corev1.Node, bool)            { return nil, false }
func (nothing) TenantNodes() []*corev1.Node                     { return nil }
func (nothing) HostPodWithIP(string) (*corev1.Pod, bool)        { return nil, false }
func (nothing) RuntimeHandler(string) (string, bool)            { return "", false }
func (nothing) HostPriority(string) (int32, bool)               { return 0, false }
func (nothing) Services(string) []*corev1.Service               { return nil }
func (nothing) Namespaces(labels.Selector) []string             { return nil }
func (nothing) ConfigMap(tenant.Name) (*corev1.ConfigMap, bool) { return nil, false }
func (nothing) Secret(tenant.Name) (*corev1.Secret, bool)       { return nil, false }

// FuzzPod gives pods with hostile names, labels and values: no key of the tenant's
// reaches the host, the name is valid and the pod's own.
func FuzzPod(f *testing.F) {
	f.Add("default", "web", "app", "web", "$(SECRET)", "metadata.labels['app']")
	f.Add("a-b", "c", "pcns.x/y", "v", "169.254.169.254", "spec.nodeName")
	f.Add("a", strings.Repeat("n", 253), "io.katacontainers.config", "x", "", "metadata.annotations['k']")
	f.Add("a", "web:tokens", "sublet.dev/tenant", "other", "x", "metadata.annotations")
	f.Fuzz(func(t *testing.T, namespace, name, key, value, text, path string) {
		pod := plainPod()
		pod.Namespace, pod.Name = namespace, name
		pod.Labels, pod.Annotations = map[string]string{key: value}, map[string]string{key: value}
		pod.Spec.Hostname = text
		pod.Spec.NodeSelector = map[string]string{key: value}
		pod.Spec.Containers[0].Env = []corev1.EnvVar{{Name: "A", ValueFrom: &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: path}}}}
		hostPod, refused := Translation{Tenant: testTenant, Lookup: nothing{}, Data: nothing{}}.Pod(pod)
		if len(refused) > 0 {
			return
		}
		if msgs := validation.IsDNS1123Label(hostPod.Name); len(msgs) > 0 {
			t.Fatalf("host name %q: %v", hostPod.Name, msgs)
		}
		owner, err := tenant.ReadOwner(hostPod.Name, hostPod.Labels, hostPod.Annotations)
		if err != nil || owner.Name != NameOf(pod) || owner.UID != "u1" {
			t.Fatalf("owner %+v, %v", owner, err)
		}
		for _, m := range []map[string]string{hostPod.Labels, hostPod.Annotations} {
			for k := range m {
				if !ours(k) {
					t.Fatalf("key %q on the host", k)
				}
			}
		}
		if k := labels.Set(hostPod.Labels); k[tenant.LabelTenant] != "t1" {
			t.Fatalf("labels %v", k)
		}
	})
}

// FuzzReveal looks for the host's names in what a tenant reads.
func FuzzReveal(f *testing.F) {
	f.Add("worker-1", "pod HOST_NS/HOST_POD on worker-1.")
	f.Add("a", "a banana a")
	f.Fuzz(func(t *testing.T, node, text string) {
		tr := Translation{Tenant: testTenant, Lookup: nothing{}, Data: nothing{}}
		pod := plainPod()
		hostPod := plainPod()
		hostPod.Name, hostPod.Namespace, hostPod.Spec.NodeName = tr.hostName("default", "web"), testTenant.HostNamespace, node
		text = strings.ReplaceAll(strings.ReplaceAll(text, "HOST_POD", hostPod.Name), "HOST_NS", hostPod.Namespace)
		got := tr.Reveal(pod, hostPod).Text(text)
		if strings.Contains(got, hostPod.Name) || strings.Contains(got, testTenant.HostNamespace) {
			t.Fatalf("%q shows the host's names", got)
		}
	})
}

// FuzzNetworkPolicy gives policies with hostile labels, blocks and ports: no key of the
// tenant's reaches the host, no selector leaves the tenant's pods, and whatever is
// refused allows nothing.
func FuzzNetworkPolicy(f *testing.F) {
	f.Add("default", "p", "app", "web", "10.0.0.0/8", "10.1.0.0/16", "http", int32(0), uint8(0))
	f.Add("kube-system", "p", "sublet.dev/tenant", "other", "0.0.0.0/0", "", "", int32(99999), uint8(7))
	f.Add("a", "b", "sublet.dev/namespace", "af5570f5a1810b7af78c", "nonsense", "::/0", "x", int32(-1), uint8(255))
	f.Add("a", "b", "projectcalico.org/namespace", "kube-system", "", "", "", int32(1), uint8(200))
	f.Fuzz(func(t *testing.T, namespace, name, key, value, cidr, except, port string, number int32, shape uint8) {
		selector := &metav1.LabelSelector{MatchLabels: map[string]string{key: value},
			MatchExpressions: []metav1.LabelSelectorRequirement{{Key: key, Operator: metav1.LabelSelectorOperator([]string{"In", "NotIn", "Exists", "DoesNotExist", "?"}[int(shape)%5]), Values: []string{value}}}}
		peers := []networkingv1.NetworkPolicyPeer{
			{PodSelector: selector}, {NamespaceSelector: selector}, {NamespaceSelector: &metav1.LabelSelector{}, PodSelector: selector},
			{IPBlock: &networkingv1.IPBlock{CIDR: cidr, Except: []string{except}}},
		}
		named, end := intstr.FromString(port), number+1
		if shape&1 == 0 {
			named = intstr.FromInt32(number)
		}
		rules := 1 + int(shape)*2
		p := &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, UID: "u1", Labels: map[string]string{key: value}, Annotations: map[string]string{key: value}},
			Spec: networkingv1.NetworkPolicySpec{PodSelector: *selector}}
		for range rules {
			p.Spec.Ingress = append(p.Spec.Ingress, networkingv1.NetworkPolicyIngressRule{From: peers, Ports: []networkingv1.NetworkPolicyPort{{Port: &named, EndPort: &end}}})
		}
		before := p.DeepCopy()
		tr := Translation{Tenant: testTenant, Lookup: nothing{}, Data: nothing{}}
		hostPolicy, refused := tr.NetworkPolicy(p)
		if !equality.Semantic.DeepEqual(before, p) {
			t.Fatal("the tenant's policy was changed")
		}
		if again, _ := tr.NetworkPolicy(p); !equality.Semantic.DeepEqual(again, hostPolicy) {
			t.Fatal("it is another each time")
		}
		if refusedAny, many := len(refused) > 0, rules > maxPolicyRules || rules*6 > maxPolicyItems; refusedAny != many || many && len(hostPolicy.Spec.Ingress)+len(hostPolicy.Spec.Egress) > 0 {
			t.Fatalf("refused %v with %d rules: %+v", refused, rules, hostPolicy.Spec)
		}
		if owner, err := tenant.ReadOwner(hostPolicy.Name, hostPolicy.Labels, hostPolicy.Annotations); err != nil || owner.Name != NameOf(p) {
			t.Fatalf("owner %+v, %v", owner, err)
		}
		selectors := []*metav1.LabelSelector{&hostPolicy.Spec.PodSelector}
		for _, r := range hostPolicy.Spec.Ingress {
			for _, peer := range r.From {
				if peer.NamespaceSelector != nil || peer.PodSelector == nil && peer.IPBlock == nil {
					t.Fatalf("a peer beyond the tenant's pods: %+v", peer)
				}
				if peer.PodSelector != nil {
					selectors = append(selectors, peer.PodSelector)
				}
			}
		}
		for _, s := range selectors {
			checkSelector(t, s)
		}
	})
}

// checkSelector fails for a key that a tenant could have chosen.
func checkSelector(t *testing.T, s *metav1.LabelSelector) {
	t.Helper()
	for k := range s.MatchLabels {
		if !strings.HasPrefix(k, "label."+tenant.Domain+"/") {
			t.Fatalf("the selector has the key %q", k)
		}
	}
	for _, e := range s.MatchExpressions {
		if e.Key == tenant.LabelNamespace && e.Operator != metav1.LabelSelectorOpIn || e.Key != tenant.LabelNamespace && !strings.HasPrefix(e.Key, "label."+tenant.Domain+"/") {
			t.Fatalf("the selector has %+v", e)
		}
	}
}
