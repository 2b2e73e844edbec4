package pki

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"testing"
	"time"
)

// TestDerive: a derived authority is the same each time, also after a rotation, differs
// by name and by the authority that it is derived from, and is worth nothing to those
// who trust that.
func TestDerive(t *testing.T) {
	dir := t.TempDir()
	a, err := LoadOrCreate(dir, "test")
	if err != nil {
		t.Fatal(err)
	}
	first := derived(t, a, "one")
	if !bytes.Equal(first.CAPEM(), derived(t, a, "one").CAPEM()) {
		t.Error("the second call made another authority")
	}
	rotated, err := Rotate(dir, 2)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(first.CAPEM(), derived(t, rotated, "one").CAPEM()) {
		t.Error("a rotation made another authority")
	}
	leaf := leafOf(t, first)
	if err := verify(first, leaf, x509.ExtKeyUsageClientAuth); err != nil {
		t.Errorf("its own certificate: %v", err)
	}
	for name, other := range map[string]*Authority{
		"the one it is derived from": a, "another name": derived(t, a, "two"), "another authority's": derived(t, newAuthority(t), "one"),
	} {
		if err := verify(other, leaf, x509.ExtKeyUsageClientAuth); err == nil {
			t.Errorf("%s takes its certificate", name)
		}
		if err := verify(first, leafOf(t, other), x509.ExtKeyUsageClientAuth); err == nil {
			t.Errorf("it takes a certificate of %s", name)
		}
	}
}

func derived(t *testing.T, a *Authority, name string) *Authority {
	t.Helper()
	d, err := a.Derive(name)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func leafOf(t *testing.T, a *Authority) *x509.Certificate {
	t.Helper()
	data, _, err := a.IssueClient("user", nil, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(data)
	leaf, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return leaf
}
