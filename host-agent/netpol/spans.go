package netpol

import (
	"net/netip"
	"slices"

	networkingv1 "k8s.io/api/networking/v1"
)

// blockSpans returns the IPv4 addresses of a block without its exceptions.
func blockSpans(b *networkingv1.IPBlock) []span {
	whole, ok := spanOf(b.CIDR)
	if !ok {
		return nil
	}
	var holes []span
	for _, e := range b.Except {
		if hole, ok := spanOf(e); ok {
			holes = append(holes, hole)
		}
	}
	var out []span
	first := whole.first
	for _, hole := range merged(holes) {
		if hole.last.Less(first) {
			continue
		}
		if whole.last.Less(hole.first) {
			break
		}
		if first.Less(hole.first) {
			out = append(out, span{first, hole.first.Prev()})
		}
		if !hole.last.Less(whole.last) {
			return out
		}
		first = hole.last.Next()
	}
	return append(out, span{first, whole.last})
}

// spanOf returns the addresses of an IPv4 prefix.
func spanOf(cidr string) (span, bool) {
	p, err := netip.ParsePrefix(cidr)
	if err != nil || !p.Addr().Is4() {
		return span{}, false
	}
	last := p.Masked().Addr().As4()
	for bit := p.Bits(); bit < 32; bit++ {
		last[bit/8] |= 0x80 >> (bit % 8)
	}
	return span{p.Masked().Addr(), netip.AddrFrom4(last)}, true
}

// merged returns the same addresses as sorted spans of which no two meet.
func merged(spans []span) []span {
	sorted := slices.Clone(spans)
	slices.SortFunc(sorted, func(a, b span) int { return a.first.Compare(b.first) })
	var out []span
	for _, s := range sorted {
		if last := len(out) - 1; last >= 0 {
			if next := out[last].last.Next(); !next.IsValid() || s.first.Compare(next) <= 0 {
				if out[last].last.Less(s.last) {
					out[last].last = s.last
				}
				continue
			}
		}
		out = append(out, s)
	}
	return out
}

func within(spans []span, a netip.Addr) bool {
	return slices.ContainsFunc(spans, func(s span) bool { return s.first.Compare(a) <= 0 && a.Compare(s.last) <= 0 })
}

// String writes a span as nft does: an address, a prefix where it is one, else both
// ends.
func (s span) String() string {
	if s.first == s.last {
		return s.first.String()
	}
	for bits := 0; bits < 32; bits++ {
		p := netip.PrefixFrom(s.first, bits)
		if whole, ok := spanOf(p.String()); ok && whole == s {
			return p.String()
		}
	}
	return s.first.String() + "-" + s.last.String()
}
