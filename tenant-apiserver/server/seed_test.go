package server

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
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

// The very first request may be one for a Service, at the first start and at every
// other, with an address of its own choice, too: one of those at the range's start, which
// are never given to Services without a choice (KEP-3070).
func TestServicesFromTheFirstRequestOn(t *testing.T) {
	c := scratch(t, "first-service", 62)
	for i := range 4 {
		s := start(t, c)
		services := client(t, s.Loopback()).CoreV1().Services(metav1.NamespaceDefault)
		chosen := c.ServiceCIDR.Addr().Next()
		for range 4 + i {
			chosen = chosen.Next()
		}
		addresses := []string{chosen.String(), ""}
		if i%2 == 0 {
			addresses = []string{"", chosen.String()}
		}
		for n, address := range addresses {
			service := &corev1.Service{
				ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("s-%d-%d", i, n)},
				Spec:       corev1.ServiceSpec{ClusterIP: address, Ports: []corev1.ServicePort{{Port: 80}}},
			}
			made, err := services.Create(t.Context(), service, metav1.CreateOptions{})
			if err != nil {
				t.Errorf("start %d, address %q: %v", i, address, err)
			} else if address != "" && made.Spec.ClusterIP != address {
				t.Errorf("start %d: got %s for %s", i, made.Spec.ClusterIP, address)
			}
		}
		if _, err := services.Create(t.Context(), &corev1.Service{
			ObjectMeta: metav1.ObjectMeta{Name: "elsewhere"},
			Spec:       corev1.ServiceSpec{ClusterIP: "192.0.2.1", Ports: []corev1.ServicePort{{Port: 80}}},
		}, metav1.CreateOptions{}); err == nil {
			t.Error("a Service has an address that is not in the range")
		}
		stop(t, s)
	}
}

// A control plane with one range refuses Services that require both families, and gives
// one address to those that prefer both. Started with a second range, the same one gives
// both, from the first request on.
func TestSecondRangeOfServiceAddresses(t *testing.T) {
	c := scratch(t, "second-range", 61)
	s := start(t, c)
	of := func(name string, p corev1.IPFamilyPolicy) *corev1.Service {
		return &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.ServiceSpec{IPFamilyPolicy: &p, Ports: []corev1.ServicePort{{Port: 80}}}}
	}
	services := client(t, s.Loopback()).CoreV1().Services(metav1.NamespaceDefault)
	if _, err := services.Create(t.Context(), of("both", corev1.IPFamilyPolicyRequireDualStack), metav1.CreateOptions{}); !apierrors.IsInvalid(err) {
		t.Errorf("both families of one range: %v", err)
	}
	prefers, err := services.Create(t.Context(), of("prefers", corev1.IPFamilyPolicyPreferDualStack), metav1.CreateOptions{})
	if err != nil || len(prefers.Spec.ClusterIPs) != 1 {
		t.Errorf("one range: %v, %v", err, prefers)
	}
	stop(t, s)

	c.SecondServiceCIDR = netip.MustParsePrefix("fd00:96::f400/118")
	for i := range 2 {
		s = start(t, c)
		api := client(t, s.Loopback())
		services = api.CoreV1().Services(metav1.NamespaceDefault)
		both, err := services.Create(t.Context(), of(fmt.Sprint("both-", i), corev1.IPFamilyPolicyRequireDualStack), metav1.CreateOptions{})
		if err != nil || len(both.Spec.ClusterIPs) != 2 || !c.ServiceCIDR.Contains(mustAddr(t, both.Spec.ClusterIPs[0])) || !c.SecondServiceCIDR.Contains(mustAddr(t, both.Spec.ClusterIPs[1])) {
			t.Errorf("start %d: %v, %+v", i, err, both)
		}
		await(t, "both ranges", func(ctx context.Context) (bool, error) {
			r, err := api.NetworkingV1().ServiceCIDRs().Get(ctx, "kubernetes", metav1.GetOptions{})
			return err == nil && slices.Equal(r.Spec.CIDRs, []string{c.ServiceCIDR.String(), c.SecondServiceCIDR.String()}) &&
				meta.IsStatusConditionTrue(r.Status.Conditions, networkingv1.ServiceCIDRConditionReady), err
		})
		if i == 0 {
			if prefers, err = services.Get(t.Context(), "prefers", metav1.GetOptions{}); err != nil {
				t.Fatal(err)
			}
			prefers.Spec.IPFamilyPolicy = both.Spec.IPFamilyPolicy
			if prefers, err = services.Update(t.Context(), prefers, metav1.UpdateOptions{}); err != nil || len(prefers.Spec.ClusterIPs) != 2 {
				t.Errorf("a Service from before gets a second address: %v, %v", err, prefers)
			}
		}
		stop(t, s)
	}
}
