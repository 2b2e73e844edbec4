package netpol

import (
	"context"
	"errors"
	"net/netip"
	"testing"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"sublet.dev/host-agent/podnet"
	"sublet.dev/isolation/tenant"
)

// A pod's start waits until that very pod is known here, with its labels and the
// names of its ports.
func TestAwaitsThePod(t *testing.T) {
	h := newHost(t)
	h.node("here", nodeIP, "10.244.0.0/24")
	a := h.tenant("a", "10.96.4.0/22")
	h.until("the node", world.ready)
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: a, Name: "web", UID: "u2", Labels: map[string]string{tenant.LabelTenant: "x", "app": "web"}},
		Spec: corev1.PodSpec{NodeName: "here", Containers: []corev1.Container{{Ports: []corev1.ContainerPort{{ContainerPort: 1}, {Name: "http", ContainerPort: 80}}}}}}
	endpoint := podnet.Endpoint{ContainerID: "c", Namespace: a, Pod: "web", UID: "u2", Interface: "veth0", Addresses: []netip.Addr{addr(podA1)}}
	done := make(chan error, 1)
	go func() { done <- h.e.Await(t.Context(), endpoint) }()
	select {
	case err := <-done:
		t.Fatalf("before the pod was there: %v", err)
	default:
	}
	if _, err := h.typed.CoreV1().Pods(a).Create(t.Context(), pod, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if err := h.e.Registry.(*podnet.Registry).Put(endpoint); err != nil {
		t.Fatal(err)
	}
	h.e.mu.Lock()
	got := h.e.state().Tenants[0].Pods[addr(podA1)]
	h.e.mu.Unlock()
	if got.Labels["app"] != "web" || len(got.Ports) != 1 || got.Ports[0].Name != "http" || got.Ports[0].Protocol != corev1.ProtocolTCP {
		t.Errorf("known is %+v", got)
	}
	before := endpoint
	before.UID = "u1"
	if known, _ := h.e.knows(before, nil); known {
		t.Error("a pod is taken for the one that had its name before")
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := h.e.Await(ended, before); !errors.Is(err, ErrUnknownPod) {
		t.Errorf("got %v", err)
	}
	if err := h.e.Await(ended, podnet.Endpoint{Namespace: "kube-system", Pod: "p"}); err != nil {
		t.Errorf("a pod of the provider: %v", err)
	}
}

// A policy that the API has and that is not known here in that version is waited
// for; one that is gone is not.
func TestAwaitsThePolicies(t *testing.T) {
	at := func(uid, version string) networkingv1.NetworkPolicy {
		return networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{UID: "u", Name: uid, ResourceVersion: version}}
	}
	known, gone := at("p", "99"), at("gone", "5")
	gone.UID = "gone"
	e := &Enforcer{world: world{local: map[podKey]Pod{{"ns", "web", ""}: {}}, policies: map[string][]*networkingv1.NetworkPolicy{"ns": {&known, &gone}}}}
	endpoint := podnet.Endpoint{Namespace: "ns", Pod: "web"}
	other := at("other", "7")
	other.UID = "other"
	for name, c := range map[string]struct {
		policies []networkingv1.NetworkPolicy
		want     bool
	}{
		"none":        {nil, true},
		"known":       {[]networkingv1.NetworkPolicy{at("p", "99")}, true},
		"known later": {[]networkingv1.NetworkPolicy{at("p", "98")}, true},
		"newer":       {[]networkingv1.NetworkPolicy{at("p", "100")}, false},
		"unheard of":  {[]networkingv1.NetworkPolicy{at("p", "99"), other}, false},
	} {
		if got, _ := e.knows(endpoint, c.policies); got != c.want {
			t.Errorf("%s: got %v", name, got)
		}
	}
}

// Policies of a tenant's host namespace are rendered for its pods here; those of
// other namespaces are not.
func TestLearnsPolicies(t *testing.T) {
	h := newHost(t)
	h.node("here", nodeIP, "10.244.0.0/24")
	a, b := h.tenant("a", "10.96.4.0/22"), h.tenant("b", "10.96.8.0/22")
	for _, ns := range []string{a, b} {
		p := deny("deny-"+ns, nil, "Ingress")
		p.Namespace = ns
		if _, err := h.typed.NetworkingV1().NetworkPolicies(ns).Create(t.Context(), p, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	h.until("policies", func(w world) bool { return len(w.fences) == 2 && len(w.policies[a]) == 1 && len(w.policies[b]) == 1 })
	h.pod(a, "web", "here", corev1.PodRunning)
	h.until("the pod", func(w world) bool { _, ok := w.local[podKey{a, "web", ""}]; return ok })
	if err := h.e.Registry.(*podnet.Registry).Put(podnet.Endpoint{ContainerID: "c", Namespace: a, Pod: "web", Interface: "veth0", Addresses: []netip.Addr{addr(podA1)}}); err != nil {
		t.Fatal(err)
	}
	h.e.mu.Lock()
	defer h.e.mu.Unlock()
	s := h.e.state()
	if len(s.Tenants) != 1 || len(s.Tenants[0].Policies) != 1 || s.Tenants[0].Policies[0].Name != "deny-"+a {
		t.Errorf("the state is %+v", s.Tenants)
	}
	if g := guardsOf(s.Tenants[0]); g.in["veth0"] == nil || g.in["veth0"].closed || g.out["veth0"] != nil {
		t.Errorf("the pod has no guard of its policy: %+v", g)
	}
}
