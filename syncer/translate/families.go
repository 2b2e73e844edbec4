package translate

import (
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
)

// owns says whether an address is of the tenant's parts of the host's service ranges.
func (t Translation) owns(address string) bool {
	a, err := netip.ParseAddr(address)
	return err == nil && t.Tenant.OwnsService(a)
}

// isDual says whether a Service has an address of each family.
func isDual(s *corev1.ServiceSpec) bool { return len(s.ClusterIPs) == 2 }

// ForeignSecond returns the second address of a tenant's Service if it is not from the
// tenant's part of the host's ranges, and "" otherwise. Such a one is not on the host.
func (t Translation) ForeignSecond(tenantService *corev1.Service) string {
	if s := &tenantService.Spec; isDual(s) && s.Type != corev1.ServiceTypeExternalName && !t.owns(s.ClusterIPs[1]) {
		return s.ClusterIPs[1]
	}
	return ""
}

// addSecond gives a host Service that has the first address of a tenant's the second
// one, too. With one address, the families are the host's to conclude from it; whatever
// policy the tenant's Service has, the host has nothing left to choose.
func (t Translation) addSecond(hostSpec, tenantSpec *corev1.ServiceSpec) {
	if !isDual(tenantSpec) || tenantSpec.ClusterIPs[0] != tenantSpec.ClusterIP || !t.owns(tenantSpec.ClusterIP) || !t.owns(tenantSpec.ClusterIPs[1]) {
		return
	}
	hostSpec.ClusterIPs = slices.Clone(tenantSpec.ClusterIPs)
	hostSpec.IPFamilies = []corev1.IPFamily{family(tenantSpec.ClusterIPs[0]), family(tenantSpec.ClusterIPs[1])}
	hostSpec.IPFamilyPolicy = new(corev1.IPFamilyPolicyRequireDualStack)
}

// family returns the family of an address.
func family(address string) corev1.IPFamily {
	if a, err := netip.ParseAddr(address); err == nil && a.Is4() {
		return corev1.IPv4Protocol
	}
	return corev1.IPv6Protocol
}

// mergeSecond gives a host Service the second address of want, or takes it away. Those
// without addresses are left as the host made them.
func mergeSecond(h, w *corev1.ServiceSpec) bool {
	switch {
	case isDual(w):
		changed := set(&h.ClusterIPs, slices.Clone(w.ClusterIPs))
		changed = set(&h.IPFamilies, slices.Clone(w.IPFamilies)) || changed
		return set(&h.IPFamilyPolicy, w.IPFamilyPolicy) || changed
	case isDual(h):
		h.ClusterIPs, h.IPFamilies = h.ClusterIPs[:1], h.IPFamilies[:min(1, len(h.IPFamilies))]
		h.IPFamilyPolicy = new(corev1.IPFamilyPolicySingleStack)
		return true
	}
	return false
}
