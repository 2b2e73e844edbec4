package pki

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"
)

var (
	servingNames = []string{"a.test", "localhost"}
	servingIPs   = []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("::1")}
)

// encoded is a certificate that an authority issues for these names.
func encoded(t *testing.T, a *Authority, names []string, ips ...netip.Addr) []byte {
	t.Helper()
	c, err := a.IssueServing(names, ips, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	data, err := EncodeServing(c)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// A serving certificate is used again where the same would be issued, and only there.
func TestReuseServing(t *testing.T) {
	a, b := newAuthority(t), newAuthority(t)
	good := encoded(t, a, servingNames, servingIPs...)
	other := encoded(t, a, servingNames, servingIPs...)
	key := bytes.Index(good, []byte("-----BEGIN PRIVATE KEY"))
	certPEM, keyPEM, err := a.IssueClient("jane", nil, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		data []byte
		want string
	}{
		"nothing":            {nil, "reuse"},
		"cut short":          {good[:len(good)/2], "reuse"},
		"of another CA":      {encoded(t, b, servingNames, servingIPs...), "another CA"},
		"other names":        {encoded(t, a, servingNames[:1], servingIPs...), "other names"},
		"other addresses":    {encoded(t, a, servingNames, servingIPs[0]), "other names"},
		"the key of another": {append(slices.Clone(good[:key]), other[bytes.Index(other, []byte("-----BEGIN PRIVATE KEY")):]...), "reuse"},
		"a client's":         {append(certPEM, keyPEM...), "other names"},
	} {
		if _, err := a.ReuseServing(c.data, servingNames, servingIPs); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	c, err := a.ReuseServing(good, servingNames, servingIPs)
	if err != nil {
		t.Fatal(err)
	}
	if err := verify(a, c.Leaf, x509.ExtKeyUsageServerAuth); err != nil {
		t.Error(err)
	}
	again, err := EncodeServing(c)
	if err != nil || !bytes.Equal(again, good) {
		t.Errorf("it is not the same: %v", err)
	}
	if _, err := EncodeServing(tls.Certificate{}); err == nil {
		t.Error("no certificate can be encoded")
	}
}

// A certificate that is used again comes with the chain that is needed now.
func TestReuseServingWhileTheCAIsExchanged(t *testing.T) {
	dir := t.TempDir()
	first, err := LoadOrCreate(dir, "x")
	if err != nil {
		t.Fatal(err)
	}
	before := encoded(t, first, servingNames, servingIPs...)
	second, err := Rotate(dir, 2)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := second.ReuseServing(before, servingNames, servingIPs); err == nil {
		t.Error("one of the CA before is used again")
	}
	c, err := second.ReuseServing(encoded(t, second, servingNames, servingIPs...), servingNames, servingIPs)
	if err != nil {
		t.Fatal(err)
	}
	for name, roots := range map[string][]byte{"the CA before": first.CAPEM(), "both": second.CAPEM()} {
		if err := trusts(roots, c.Certificate, x509.ExtKeyUsageServerAuth); err != nil {
			t.Errorf("who trusts %s: %v", name, err)
		}
	}
	if _, err := Finish(dir); err != nil {
		t.Fatal(err)
	}
	last, err := Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	data, err := EncodeServing(c)
	if err != nil {
		t.Fatal(err)
	}
	if c, err = last.ReuseServing(data, servingNames, servingIPs); err != nil || len(c.Certificate) != 2 {
		t.Errorf("afterwards: %d certificates, %v", len(c.Certificate), err)
	}
}
