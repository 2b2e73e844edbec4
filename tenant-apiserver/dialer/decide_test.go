package dialer

import (
	"net/netip"
	"testing"
)

// Every address by which a control plane could be led into the provider's
// network, each group with an address of the same kind that is allowed.
func TestDecide(t *testing.T) {
	closed, open := Rules{Never: Never()}, Rules{Never: Never(), Public: true}
	own, host := Place{Pod: "uid"}, Place{Host: true}
	for _, c := range []struct {
		addr  string
		rules Rules
		at    Place
		want  Verdict
	}{
		// Pods: only what the host says is one of this tenant's.
		{"10.244.1.7", closed, own, ToPod},
		{"::ffff:10.244.1.7", closed, own, ToPod},
		{"fd00:10::7", closed, own, ToPod},
		{"10.244.1.8", closed, Place{}, PublicOff}, // another tenant's
		{"10.244.1.8", open, Place{}, NotPublic},
		{"10.96.0.1", open, Place{}, NotPublic}, // the host's API as a Service
		{"192.168.7.2", open, host, OfHost},     // a node
		{"198.41.0.4", open, host, OfHost},      // a node with a public address
		{"10.244.1.7", open, Place{Pod: "uid", Host: true}, OfHost},
		{"127.0.0.1", open, own, NeverDialled}, // though a pod had it
		{"169.254.169.254", open, own, NeverDialled},

		// Public addresses.
		{"198.41.0.4", closed, Place{}, PublicOff},
		{"198.41.0.4", open, Place{}, ToPublic},
		{"::ffff:198.41.0.4", open, Place{}, ToPublic},
		{"2001:503:ba3e::2:30", open, Place{}, ToPublic},
		{"172.15.255.255", open, Place{}, ToPublic},
		{"172.32.0.0", open, Place{}, ToPublic},
		{"100.128.0.0", open, Place{}, ToPublic},

		// This machine and its links.
		{"127.0.0.1", open, Place{}, NeverDialled},
		{"127.255.255.254", open, Place{}, NeverDialled},
		{"::ffff:127.0.0.1", open, Place{}, NeverDialled},
		{"::1", open, Place{}, NeverDialled},
		{"0.0.0.0", open, Place{}, NotAnAddress},
		{"0.0.0.1", open, Place{}, NeverDialled},
		{"::", open, Place{}, NotAnAddress},
		{"::ffff:0.0.0.0", open, Place{}, NotAnAddress},
		{"::127.0.0.1", open, Place{}, NotPublic},     // compatible, RFC 4291
		{"::ffff:0:7f00:1", open, Place{}, NotPublic}, // translated, RFC 2765
		{"fe80::1", open, Place{}, NeverDialled},
		{"fe80::1%eth0", open, Place{}, NotAnAddress},
		{"2001:503:ba3e::2:30%eth0", open, Place{}, NotAnAddress},
		{"169.254.1.1", open, Place{}, NeverDialled},
		{"224.0.0.1", open, Place{}, NotAnAddress},
		{"ff02::1", open, Place{}, NotAnAddress},
		{"240.0.0.1", open, Place{}, NeverDialled},
		{"255.255.255.255", open, Place{}, NeverDialled},

		// Metadata services.
		{"169.254.169.254", open, Place{}, NeverDialled},
		{"::ffff:169.254.169.254", open, Place{}, NeverDialled},
		{"100.100.100.200", open, Place{}, NeverDialled},
		{"168.63.129.16", open, Place{}, NeverDialled},
		{"192.0.0.192", open, Place{}, NeverDialled},
		{"fd00:ec2::254", open, Place{}, NeverDialled},
		{"64:ff9b::169.254.169.254", open, Place{}, NeverDialled}, // NAT64, RFC 6052
		{"64:ff9b:1::a9fe:a9fe", open, Place{}, NotPublic},        // NAT64, RFC 8215
		{"2002:a9fe:a9fe::1", open, Place{}, NotPublic},           // 6to4
		{"2001::5601:5601", open, Place{}, NotPublic},             // Teredo

		// Private and special networks.
		{"10.0.0.1", open, Place{}, NotPublic},
		{"172.16.0.1", open, Place{}, NotPublic},
		{"172.31.255.255", open, Place{}, NotPublic},
		{"192.168.0.1", open, Place{}, NotPublic},
		{"100.64.0.1", open, Place{}, NotPublic},
		{"198.18.0.1", open, Place{}, NotPublic},
		{"192.0.2.1", open, Place{}, NotPublic},
		{"192.88.99.1", open, Place{}, NotPublic},
		{"fc00::1", open, Place{}, NotPublic},
		{"fec0::1", open, Place{}, NotPublic},
		{"2001:db8::1", open, Place{}, NotPublic},
		{"4000::1", open, Place{}, NotPublic},
	} {
		if got := c.rules.Decide(netip.MustParseAddr(c.addr), c.at); got != c.want {
			t.Errorf("%s (public %v, %+v): %q, want %q", c.addr, c.rules.Public, c.at, got, c.want)
		}
	}
	if got := open.Decide(netip.Addr{}, own); got != NotAnAddress {
		t.Errorf("no address: %q", got)
	}
}

// Whatever the address, an allowed one is a pod's or public, and it does not matter
// how it is written.
func FuzzDecide(f *testing.F) {
	for _, seed := range []string{"10.0.0.1", "198.41.0.4", "2001:503:ba3e::2:30", "fd00::1"} {
		f.Add(netip.MustParseAddr(seed).AsSlice(), true, false, true)
	}
	f.Fuzz(func(t *testing.T, b []byte, pod, host, open bool) {
		addr, ok := netip.AddrFromSlice(b)
		if !ok {
			t.Skip("not 4 or 16 bytes")
		}
		at := Place{Host: host}
		if pod {
			at.Pod = "uid"
		}
		rules := Rules{Never: Never(), Public: open}
		got := rules.Decide(addr, at)
		if addr.Is4() {
			if mapped := rules.Decide(netip.AddrFrom16(addr.As16()), at); mapped != got {
				t.Errorf("%s is %q, and mapped %q", addr, got, mapped)
			}
		}
		addr = addr.Unmap()
		harmful := addr.IsLoopback() || addr.IsLinkLocalUnicast() || addr.IsMulticast() || addr.IsUnspecified() || host
		switch {
		case got.Allowed() && harmful:
			t.Errorf("%s at %+v is %q", addr, at, got)
		case got == ToPod && !pod, got == ToPublic && (!open || addr.IsPrivate()):
			t.Errorf("%s at %+v with public %v is %q", addr, at, open, got)
		case addr.Is6() && got == ToPublic && addr.As16()[0]>>5 != 1:
			t.Errorf("%s is %q", addr, got)
		}
	})
}
