package netpol

import (
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// flows selects connections that have an address of a kind at any end, before or
// after translation.
type flows func(netip.Addr) bool

// MatchConntrackFlow implements netlink.CustomConntrackFilter.
func (match flows) MatchConntrackFlow(f *netlink.ConntrackFlow) bool {
	for _, ip := range []net.IP{f.Forward.SrcIP, f.Forward.DstIP, f.Reverse.SrcIP, f.Reverse.DstIP} {
		if a, ok := netip.AddrFromSlice(ip); ok && match(a.Unmap()) {
			return true
		}
	}
	return false
}

// forgetConnections makes the kernel forget the connections of all addresses that
// match: what an address may do is decided anew for who gets it next.
func forgetConnections(match func(netip.Addr) bool) error {
	if _, err := netlink.ConntrackDeleteFilters(netlink.ConntrackTable, unix.AF_INET, flows(match)); err != nil {
		return fmt.Errorf("forget the connections of pods that are gone: %w", err)
	}
	return nil
}
