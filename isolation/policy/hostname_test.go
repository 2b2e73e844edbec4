package policy_test

import (
	"testing"

	"sublet.dev/isolation/policy"
)

func TestHostnamesOverlap(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want bool
	}{
		{"a.example", "a.example", true}, {"a.example", "b.example", false}, {"a.example", "x.a.example", false},
		{"*.a.example", "x.a.example", true}, {"*.a.example", "y.x.a.example", true}, {"*.a.example", "a.example", false},
		{"*.a.example", "xa.example", false}, {"*.a.example", "*.x.a.example", true}, {"*.a.example", "*.b.example", false},
		{"*.a.example", "*.a.example", true}, {"*.example", "*.x.a.example", true}, {"*.a.example", "*.xa.example", false},
	} {
		if policy.HostnamesOverlap(c.a, c.b) != c.want || policy.HostnamesOverlap(c.b, c.a) != c.want {
			t.Errorf("%s and %s: overlap=%v", c.a, c.b, !c.want)
		}
	}
}

func TestHostnameAllowed(t *testing.T) {
	plan := []string{"shop.example", "*.{tenant}.example"}
	for name, want := range map[string]bool{
		"shop.example": true, "www.acme.example": true, "a.b.acme.example": true, "*.acme.example": true, "*.www.acme.example": true,
		"acme.example": false, "www.other.example": false, "*.example": false, "xacme.example": false, "x.shop.example": false, "*.shop.example": false,
		"": false, "*": false, "WWW.acme.example": false, "www.acme.example.": false, "a_b.acme.example": false, "*.*.acme.example": false, "a.*.acme.example": false,
	} {
		if policy.HostnameAllowed(name, "acme", plan) != want {
			t.Errorf("%q: allowed=%v", name, !want)
		}
	}
	for name, want := range map[string]bool{"any.example": true, "*.any.example": true, "192.0.2.1": false, "2001:db8::1": false, "*": false, "": false, "x y": false} {
		if policy.HostnameAllowed(name, "acme", []string{"*"}) != want {
			t.Errorf("%q of all: allowed=%v", name, !want)
		}
	}
	if policy.HostnameAllowed("any.example", "acme", nil) {
		t.Error("a plan without hostnames allows one")
	}
}
