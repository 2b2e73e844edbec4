package manager

import (
	"errors"
	"net/netip"
	"testing"

	"k8s.io/apimachinery/pkg/types"
)

func TestPlan(t *testing.T) {
	p := DefaultPlan(netip.MustParsePrefix("10.96.0.0/12"), netip.MustParseAddr("192.0.2.1"))
	if err := p.validate(); err != nil {
		t.Fatal(err)
	}
	if n := p.Tenants(); n != 1023 {
		t.Errorf("%d tenants fit, want 1023", n)
	}
	seen := map[netip.Prefix]bool{}
	for n := 1; n <= p.Tenants(); n++ {
		s := p.Slice(n)
		if seen[s] || p.fits(s) != nil || s.Contains(p.Services.Addr()) {
			t.Fatalf("slice %d is %s", n, s)
		}
		seen[s] = true
	}
	if s := p.Slice(1023); s.String() != "10.111.252.0/22" {
		t.Errorf("the last slice is %s", s)
	}
	if p.fits(netip.MustParsePrefix("10.112.0.0/22")) == nil || p.fits(netip.MustParsePrefix("10.96.4.0/23")) == nil {
		t.Error("a slice that the plan does not give fits")
	}
}

func TestSecondRange(t *testing.T) {
	p := DefaultPlan(netip.MustParsePrefix("10.96.0.0/12"), netip.MustParseAddr("192.0.2.1"))
	if s := p.secondOf("10.96.4.0/22"); p.SecondSlice(1).IsValid() || s != "" {
		t.Errorf("a host with one range gives %q", s)
	}
	p.Second = netip.MustParsePrefix("fd00:96::/108")
	if err := p.validate(); err != nil {
		t.Fatal(err)
	}
	seen := map[netip.Prefix]bool{}
	for n := 1; n <= p.Tenants(); n++ {
		first, s := p.Slice(n), p.SecondSlice(n)
		if seen[s] || s != s.Masked() || !p.Second.Contains(s.Addr()) || s.Contains(p.Second.Addr()) || p.secondOf(first.String()) != s.String() {
			t.Fatalf("slice %d is %s", n, s)
		}
		if got, err := p.readSecond(s.String(), first); err != nil || got != s {
			t.Fatalf("slice %d is read as %s, %v", n, got, err)
		}
		seen[s] = true
	}
	if s := p.SecondSlice(1023); s.String() != "fd00:96::f:fc00/118" {
		t.Errorf("the last slice is %s", s)
	}
	for _, wrong := range []string{"fd00:96::800/118", "fd00:96::400/119", "10.96.4.0/22", "fd00:96::400"} {
		if _, err := p.readSecond(wrong, p.Slice(1)); err == nil {
			t.Errorf("tenant 1 has the slice %s", wrong)
		}
	}
	for _, wrong := range []string{"fd00:96::/112", "fd00:96::1/108", "10.112.0.0/12"} {
		if p.Second = netip.MustParsePrefix(wrong); p.validate() == nil {
			t.Errorf("the second range is %s", wrong)
		}
	}
}

// What a host says of its ranges, and which of them is of IPv6.
func TestRangeOfIPv6(t *testing.T) {
	for want, cidrs := range map[string][][]string{
		"":              {nil, {"10.96.0.0/12"}, {"fd00:96::/108"}, {"10.96.0.0/12", "x"}},
		"fd00:96::/108": {{"10.96.0.0/12", "fd00:96::/108"}, {"fd00:96::/108", "10.96.0.0/12"}},
	} {
		for _, c := range cidrs {
			if got := text(ofIPv6(c)); got != want {
				t.Errorf("of %v: %q, want %q", c, got, want)
			}
		}
	}
}

func TestFree(t *testing.T) {
	p := DefaultPlan(netip.MustParsePrefix("10.96.0.0/20"), netip.MustParseAddr("192.0.2.1"))
	all := map[types.UID]seat{}
	for want := 1; want <= 3; want++ {
		n, err := p.free(all)
		if err != nil || n != want {
			t.Fatalf("free = %d, %v; want %d", n, err, want)
		}
		all[types.UID(p.Slice(n).String())] = seat{slice: p.Slice(n).String()}
	}
	if _, err := p.free(all); !errors.Is(err, errFull) {
		t.Fatalf("free = %v, want errFull", err)
	}
	delete(all, types.UID(p.Slice(1).String()))
	if n, err := p.free(all); err != nil || n != 1 {
		t.Errorf("a number that was given back: %d, %v", n, err)
	}
}
