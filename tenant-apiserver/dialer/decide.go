package dialer

import (
	"net/netip"

	"sublet.dev/isolation/policy"
)

// Verdict is what may be done with an address.
type Verdict string

// The verdicts. All but ToPod and ToPublic refuse, and read as the end of a
// sentence.
const (
	ToPod    Verdict = "a pod of the tenant"
	ToPublic Verdict = "a public address"

	NotAnAddress Verdict = "that is not an address of one machine"
	NeverDialled Verdict = "that address is never connected to"
	OfHost       Verdict = "that address is the provider's"
	NotPublic    Verdict = "that is neither an address of a running pod of this cluster nor a public address"
	PublicOff    Verdict = "that is not an address of a running pod of this cluster, and other addresses are not allowed"
)

// Allowed says whether to connect.
func (v Verdict) Allowed() bool { return v == ToPod || v == ToPublic }

// Place is what the host knows of an address.
type Place struct {
	// Pod is the UID of the running host pod of this tenant that has the address
	// for itself alone; empty if there is none.
	Pod string
	// Host says that the address is one of the provider's: of a node, of a machine
	// that the control plane runs on, of its services.
	Host bool
}

// Rules are a tenant's.
type Rules struct {
	// Never is connected to in no case, not even where a pod has such an address.
	Never []netip.Prefix
	// Public allows public addresses.
	Public bool
}

// Never returns what is never connected to: policy.Blocked, which are this machine,
// its links, multicast and the metadata services of clouds. The caller owns it.
func Never() []netip.Prefix { return policy.Blocked() }

// special are addresses that are not public, beside policy.Private: those with a
// special purpose (RFC 6890 and its registries), and those of version 6 in which
// one of version 4 is hidden, which a translator on the way would reach.
var special = []netip.Prefix{
	netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("198.51.100.0/24"), // documentation, RFC 5737
	netip.MustParsePrefix("203.0.113.0/24"),
	netip.MustParsePrefix("192.88.99.0/24"), // 6to4 relays, RFC 7526
	netip.MustParsePrefix("2001::/23"),      // RFC 2928: Teredo and other protocols
	netip.MustParsePrefix("2001:db8::/32"),  // documentation, RFC 3849
	netip.MustParsePrefix("2002::/16"),      // 6to4, RFC 3056
	netip.MustParsePrefix("3fff::/20"),      // documentation, RFC 9637
}

// globalUnicast is all of version 6 that is handed out (RFC 4291). NAT64's
// 64:ff9b::/96 and 64:ff9b:1::/48 (RFC 6052, RFC 8215), addresses of version 4 in
// those of version 6, unique local and site local ones are outside.
var globalUnicast = netip.MustParsePrefix("2000::/3")

// Decide says whether an address may be connected to, given what the host knows of
// it. Addresses of version 4 mapped into version 6 are those of version 4.
func (r Rules) Decide(addr netip.Addr, at Place) Verdict {
	addr = addr.Unmap()
	switch {
	case !addr.IsValid() || addr.Zone() != "" || addr.IsUnspecified() || addr.IsMulticast():
		return NotAnAddress
	case in(addr, r.Never):
		return NeverDialled
	case at.Host:
		return OfHost
	case at.Pod != "":
		return ToPod
	case !r.Public:
		return PublicOff
	case !public(addr):
		return NotPublic
	default:
		return ToPublic
	}
}

var private = policy.Private()

// public says whether an address is one of the internet's machines. It takes
// Never into account on its own: tests have less of it.
func public(addr netip.Addr) bool {
	if addr.Is6() && !globalUnicast.Contains(addr) {
		return false
	}
	return addr.IsGlobalUnicast() && !addr.IsPrivate() && !in(addr, private) && !in(addr, special) && !in(addr, policy.Blocked())
}

func in(addr netip.Addr, prefixes []netip.Prefix) bool {
	for _, p := range prefixes {
		if p.Contains(addr) {
			return true
		}
	}
	return false
}
