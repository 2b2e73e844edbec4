package manager

import (
	"context"
	"fmt"
	"net/netip"

	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// defaultRange is the ServiceCIDR in which an API server says what it was started with
// (k8s.io/kubernetes/pkg/controlplane/controller/defaultservicecidr).
const defaultRange = "kubernetes"

// secondBits is the prefix length of a tenant's slice of the second range, which has as
// many slices as the first.
func (p Plan) secondBits() int { return p.Second.Bits() + p.SliceBits - p.Services.Bits() }

// checkSecond says what is wrong with the second range. It must have as many addresses
// as the first: a tenant whose Services have addresses of both families needs as many of
// each.
func (p Plan) checkSecond() error {
	switch {
	case !p.Second.IsValid() || !p.Second.Addr().Is6() || p.Second.Addr().Is4In6() || p.Second != p.Second.Masked():
		return fmt.Errorf("the second service range %s is not one of IPv6", p.Second)
	case 128-p.Second.Bits() < 32-p.Services.Bits():
		return fmt.Errorf("the service range %s is smaller than %s: it must be a /%d or larger", p.Second, p.Services, 96+p.Services.Bits())
	}
	return nil
}

// SecondSlice returns the slice of tenant n of the second range; the zero value when
// there is none.
func (p Plan) SecondSlice(n int) netip.Prefix {
	if !p.Second.IsValid() {
		return netip.Prefix{}
	}
	bits := p.secondBits()
	a := p.Second.Addr().As16()
	for bit := 0; n>>bit > 0; bit++ { // the number ends where the slice begins
		at := bits - 1 - bit
		a[at/8] |= byte(n>>bit&1) << (7 - at%8)
	}
	return netip.PrefixFrom(netip.AddrFrom16(a), bits)
}

// secondOf returns the slice of the second range of the tenant that has that slice of
// the first, as the status has it.
func (p Plan) secondOf(first string) string {
	slice, err := netip.ParsePrefix(first)
	if err != nil || p.fits(slice) != nil {
		return ""
	}
	return text(p.SecondSlice(p.number(slice)))
}

// readSecond reads what a status says, and refuses what this plan does not give to the
// tenant that has that slice of the first range.
func (p Plan) readSecond(second string, first netip.Prefix) (netip.Prefix, error) {
	if second == "" {
		return netip.Prefix{}, nil
	}
	slice, err := netip.ParsePrefix(second)
	if err != nil {
		return netip.Prefix{}, fmt.Errorf("read the slice: %w", err)
	}
	if want := p.SecondSlice(p.number(first)); slice != want {
		return netip.Prefix{}, fmt.Errorf("the slice %s is not %s, which goes with %s", slice, want, first)
	}
	return slice, nil
}

// text is a prefix as a status has it: empty for none.
func text(p netip.Prefix) string {
	if !p.IsValid() {
		return ""
	}
	return p.String()
}

// learnSecond asks the host whether its Services have addresses of IPv6 as well. A host
// that has no ServiceCIDRs, from before Kubernetes 1.33, counts as one without.
func (m *Manager) learnSecond(ctx context.Context) error {
	var of networkingv1.ServiceCIDR
	err := m.api.Get(ctx, client.ObjectKey{Name: defaultRange}, &of)
	if apierrors.IsNotFound(err) || meta.IsNoMatchError(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read the host's service ranges: %w", err)
	}
	p := m.config.Plan
	p.Second = ofIPv6(of.Spec.CIDRs)
	if !p.Second.IsValid() {
		return nil
	}
	if err := p.checkSecond(); err != nil {
		m.config.Logger.Warn("tenants get no service addresses of IPv6", "error", err)
		return nil
	}
	m.config.Plan.Second = p.Second
	return nil
}

// ofIPv6 returns the range of IPv6 of a host with both families; otherwise the zero value.
func ofIPv6(cidrs []string) netip.Prefix {
	if len(cidrs) != 2 {
		return netip.Prefix{}
	}
	for _, c := range cidrs {
		if p, err := netip.ParsePrefix(c); err == nil && p.Addr().Is6() {
			return p
		}
	}
	return netip.Prefix{}
}
