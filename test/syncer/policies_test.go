package syncer

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"sublet.dev/isolation/tenant"
)

// hostPolicy waits for the host's counterpart of a policy.
func hostPolicy(t *testing.T, ns, name, what string, is func(*networkingv1.NetworkPolicy) bool) {
	t.Helper()
	wait(t, what, func() (bool, any) {
		p, err := w.host.NetworkingV1().NetworkPolicies(acme.HostNamespace).Get(t.Context(), hostName(ns, name), metav1.GetOptions{})
		return err == nil && is(p), p
	})
}

// peers are the namespaces' marks that a host policy's first peer selects.
func peers(p *networkingv1.NetworkPolicy) []string {
	if len(p.Spec.Ingress) != 1 || len(p.Spec.Ingress[0].From) != 1 || len(p.Spec.Ingress[0].From[0].PodSelector.MatchExpressions) != 1 {
		return nil
	}
	return p.Spec.Ingress[0].From[0].PodSelector.MatchExpressions[0].Values
}

func policyFrom(ns, name string, namespaces map[string]string) *networkingv1.NetworkPolicy {
	return &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: name}, Spec: networkingv1.NetworkPolicySpec{
		Ingress: []networkingv1.NetworkPolicyIngressRule{{From: []networkingv1.NetworkPolicyPeer{{NamespaceSelector: &metav1.LabelSelector{MatchLabels: namespaces}}}}},
	}}
}

// A policy follows its author, the labels of the namespaces that it selects, and
// heals; the host's goes with the tenant's.
func TestNetworkPolicyFollows(t *testing.T) {
	ns := namespace(t)
	team := "team-" + ns
	policies, onHost := w.tenant.NetworkingV1().NetworkPolicies(ns), w.host.NetworkingV1().NetworkPolicies(acme.HostNamespace)
	if _, err := policies.Create(t.Context(), policyFrom(ns, "only", map[string]string{"team": team}), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	nobody := tenant.NamespaceValue("")
	hostPolicy(t, ns, "only", "nobody is selected", func(p *networkingv1.NetworkPolicy) bool { return slices.Equal(peers(p), []string{nobody}) })
	label := func(value string) {
		t.Helper()
		if _, err := w.tenant.CoreV1().Namespaces().Patch(t.Context(), ns, types.MergePatchType, fmt.Appendf(nil, `{"metadata":{"labels":{"team":%s}}}`, value), metav1.PatchOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	label(`"` + team + `"`)
	own := func(p *networkingv1.NetworkPolicy) bool {
		return slices.Equal(peers(p), []string{tenant.NamespaceValue(ns)})
	}
	hostPolicy(t, ns, "only", "a namespace joins", own)
	if err := onHost.Delete(t.Context(), hostName(ns, "only"), metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	hostPolicy(t, ns, "only", "repair of a deletion", own)
	if _, err := onHost.Patch(t.Context(), hostName(ns, "only"), types.MergePatchType, []byte(`{"spec":{"ingress":[{}]}}`), metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	hostPolicy(t, ns, "only", "repair of a drift", own)
	label("null")
	hostPolicy(t, ns, "only", "a namespace leaves", func(p *networkingv1.NetworkPolicy) bool { return slices.Equal(peers(p), []string{nobody}) })
	if err := policies.Delete(t.Context(), "only", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	wait(t, "end", func() (bool, any) {
		_, err := onHost.Get(t.Context(), hostName(ns, "only"), metav1.GetOptions{})
		return apierrors.IsNotFound(err), err
	})
}

// Whenever a pod is seen on the host, the policies that selected it when it was made
// are there already.
func TestPodComesAfterItsPolicies(t *testing.T) {
	ns := namespace(t)
	for i := range 20 {
		name := fmt.Sprint("web-", i)
		p := policyFrom(ns, name, map[string]string{"a": "b"})
		p.Spec.PodSelector.MatchLabels = map[string]string{"name": name}
		if _, err := w.tenant.NetworkingV1().NetworkPolicies(ns).Create(t.Context(), p, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		pod := simplePod(ns, name)
		pod.Labels = map[string]string{"name": name}
		pod = create(t, pod)
		waitHostPod(t, ns, name, pod.UID)
		if _, err := w.host.NetworkingV1().NetworkPolicies(acme.HostNamespace).Get(t.Context(), hostName(ns, name), metav1.GetOptions{}); err != nil {
			t.Errorf("the pod came before its policy: %v", err)
		}
	}
}

// A policy that is too much closes what it selects, and its author is told.
func TestTooLargePolicyClosesAndSaysSo(t *testing.T) {
	ns := namespace(t)
	p := policyFrom(ns, "large", nil)
	for i := range 200 {
		p.Spec.Ingress = append(p.Spec.Ingress, networkingv1.NetworkPolicyIngressRule{From: []networkingv1.NetworkPolicyPeer{{IPBlock: &networkingv1.IPBlock{CIDR: fmt.Sprintf("203.0.113.%d/32", i)}}}})
	}
	if _, err := w.tenant.NetworkingV1().NetworkPolicies(ns).Create(t.Context(), p, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	hostPolicy(t, ns, "large", "a closed policy", func(p *networkingv1.NetworkPolicy) bool {
		return len(p.Spec.Ingress) == 0 && len(p.Spec.PolicyTypes) == 1
	})
	wait(t, "an event", func() (bool, any) { return said(t.Context(), ns, "large", "allows nothing") })
}

func said(ctx context.Context, ns, object, text string) (bool, any) {
	events, err := w.tenant.CoreV1().Events(ns).List(ctx, metav1.ListOptions{})
	if err != nil {
		return false, err
	}
	for _, e := range events.Items {
		if e.InvolvedObject.Name == object && strings.Contains(e.Message, text) {
			return true, nil
		}
	}
	return false, events.Items
}
