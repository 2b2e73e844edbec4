package translate_test

import (
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"sublet.dev/isolation/tenant"
	"sublet.dev/syncer/engine"
	"sublet.dev/syncer/translate"
)

func addressed(addresses ...string) *corev1.Service {
	return &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web", UID: "s1"},
		Spec: corev1.ServiceSpec{Type: corev1.ServiceTypeClusterIP, ClusterIP: addresses[0], ClusterIPs: addresses,
			Ports: []corev1.ServicePort{{Port: 80}}},
	}
}

// onSingleHost is a host Service as a host writes it that has one address.
func onSingleHost(hostService *corev1.Service) *corev1.Service {
	have := hostService.DeepCopy()
	have.Spec.ClusterIPs, have.Spec.IPFamilies = []string{have.Spec.ClusterIP}, []corev1.IPFamily{corev1.IPv4Protocol}
	have.Spec.IPFamilyPolicy = new(corev1.IPFamilyPolicySingleStack)
	return have
}

// A second address comes and goes with the tenant's Service; another one needs a new
// host Service, as another first one does.
func TestMergeOfFamilies(t *testing.T) {
	tr := translation(tenant.GVisor)
	single, dual := tr.Service(addressed("10.96.4.31")), tr.Service(addressed("10.96.4.31", "fd00:96::431"))
	have := onSingleHost(single)
	if _, d := translate.MergeService(have, single); d != engine.Same {
		t.Error("one address: written again")
	}
	both, d := translate.MergeService(have, dual)
	if s := both.Spec; d != engine.Changed || !slices.Equal(s.ClusterIPs, []string{"10.96.4.31", "fd00:96::431"}) ||
		!slices.Equal(s.IPFamilies, []corev1.IPFamily{corev1.IPv4Protocol, corev1.IPv6Protocol}) || *s.IPFamilyPolicy != corev1.IPFamilyPolicyRequireDualStack {
		t.Errorf("a second address comes: %v %+v", d, s)
	}
	if _, d := translate.MergeService(both, dual); d != engine.Same {
		t.Error("two addresses: written again")
	}
	less, d := translate.MergeService(both, single)
	if s := less.Spec; d != engine.Changed || len(s.ClusterIPs) != 1 || len(s.IPFamilies) != 1 || *s.IPFamilyPolicy != corev1.IPFamilyPolicySingleStack {
		t.Errorf("the second address goes: %v %+v", d, s)
	}
	for _, other := range [][]string{{"10.96.4.31", "fd00:96::432"}, {"fd00:96::431", "10.96.4.31"}, {"fd00:96::431"}} {
		if _, d := translate.MergeService(both, tr.Service(addressed(other...))); d != engine.Immutable {
			t.Errorf("%v instead of %v: %v", other, both.Spec.ClusterIPs, d)
		}
	}
	headless := onSingleHost(tr.Service(addressed(corev1.ClusterIPNone)))
	headless.Spec.IPFamilies = []corev1.IPFamily{corev1.IPv4Protocol, corev1.IPv6Protocol} // as a host gives them without a selector
	if _, d := translate.MergeService(headless, tr.Service(addressed(corev1.ClusterIPNone))); d != engine.Same {
		t.Error("headless: written again")
	}
}

// A host without a second range has no second address of any tenant's.
func TestSecondAddressWithoutRange(t *testing.T) {
	tr := translation(tenant.GVisor)
	service := addressed("10.96.4.31", "fd00:96::431")
	if got := tr.ForeignSecond(service); got != "" {
		t.Errorf("with a range: %q is foreign", got)
	}
	tr.Tenant.SecondServiceCIDR = tenant.Tenant{}.SecondServiceCIDR
	host := tr.Service(service)
	if host == nil || len(host.Spec.ClusterIPs) != 0 || host.Spec.IPFamilyPolicy != nil || host.Spec.ClusterIP != "10.96.4.31" {
		t.Errorf("%+v", host)
	}
	if got := tr.ForeignSecond(service); got != "fd00:96::431" {
		t.Errorf("without a range: %q is foreign", got)
	}
	if !tr.ForeignAddress(addressed("fd00:96::431")) {
		t.Error("without a range: an only address of IPv6 is not foreign")
	}
}
