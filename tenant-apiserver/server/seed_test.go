package server

import (
	"testing"

	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// A new control plane has what nobody can do without as soon as it answers, made as by
// requests.
func TestANewControlPlaneIsComplete(t *testing.T) {
	c := scratch(t, "seeds", 63)
	s := start(t, c)
	defer stop(t, s)
	k := client(t, s.Loopback())
	for _, name := range []string{"default", "kube-system", "kube-public", "kube-node-lease"} {
		ns, err := k.CoreV1().Namespaces().Get(t.Context(), name, metav1.GetOptions{})
		if err != nil {
			t.Error(err)
			continue
		}
		if ns.UID == "" || ns.CreationTimestamp.IsZero() || len(ns.Spec.Finalizers) != 1 || ns.Labels["kubernetes.io/metadata.name"] != name || ns.Status.Phase != "Active" {
			t.Errorf("namespace %s: %v", name, ns)
		}
	}
	r, err := k.NetworkingV1().ServiceCIDRs().Get(t.Context(), "kubernetes", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if !meta.IsStatusConditionTrue(r.Status.Conditions, networkingv1.ServiceCIDRConditionReady) || len(r.Spec.CIDRs) != 1 || r.Spec.CIDRs[0] != c.ServiceCIDR.String() {
		t.Errorf("range of service addresses: %v", r)
	}
}
