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
