package pki

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// trusts verifies a certificate as one does who knows the CAs in roots.
func trusts(roots []byte, chain [][]byte, usage x509.ExtKeyUsage) error {
	pool, between := x509.NewCertPool(), x509.NewCertPool()
	pool.AppendCertsFromPEM(roots)
	leaf, err := x509.ParseCertificate(chain[0])
	if err != nil {
		return err
	}
	for _, der := range chain[1:] {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return err
		}
		between.AddCert(c)
	}
	_, err = leaf.Verify(x509.VerifyOptions{Roots: pool, Intermediates: between, KeyUsages: []x509.ExtKeyUsage{usage}})
	return err
}

func clientOf(t *testing.T, a *Authority) [][]byte {
	t.Helper()
	certPEM, keyPEM, err := a.IssueClient("jane", nil, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	pair, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		t.Fatal(err)
	}
	return pair.Certificate
}

func servingOf(t *testing.T, a *Authority) [][]byte {
	t.Helper()
	c, err := a.IssueServing([]string{"acme.test"}, nil, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	return c.Certificate
}

// While a rotation is not finished, old and new clients reach old and new servers.
func TestRotate(t *testing.T) {
	dir := t.TempDir()
	first, err := LoadOrCreate(dir, "acme")
	if err != nil {
		t.Fatal(err)
	}
	if first.Generation() != 1 || first.Oldest() != 1 || first.BundleFile() != first.CAFile() {
		t.Fatalf("a new authority: %d, %d, %s", first.Generation(), first.Oldest(), first.BundleFile())
	}
	second, err := Rotate(dir, 2)
	if err != nil {
		t.Fatal(err)
	}
	if second.Generation() != 2 || second.Oldest() != 1 || !second.ServiceAccountKey().Equal(first.ServiceAccountKey()) {
		t.Errorf("after Rotate: %d, %d", second.Generation(), second.Oldest())
	}
	again, err := Rotate(dir, 2)
	if err != nil || !bytes.Equal(again.CAPEM(), second.CAPEM()) {
		t.Errorf("Rotate is not idempotent: %v", err)
	}
	if bundle, err := os.ReadFile(second.BundleFile()); err != nil || !bytes.Equal(bundle, second.CAPEM()) {
		t.Errorf("the bundle's file: %v", err)
	}
	server, client := x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth
	for name, err := range map[string]error{
		"an old client, the new server":     trusts(first.CAPEM(), servingOf(t, second), server),
		"a new client, the new server":      trusts(second.CAPEM(), servingOf(t, second), server),
		"a new client, the old server":      trusts(second.CAPEM(), servingOf(t, first), server),
		"the new server, an old client":     trusts(second.CAPEM(), clientOf(t, first), client),
		"the new server, a new client":      trusts(second.CAPEM(), clientOf(t, second), client),
		"a client that knows the new alone": trusts(encodeCert(second.cert.Raw), servingOf(t, second), server),
	} {
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := Rotate(dir, 3); !errors.Is(err, ErrRotating) {
		t.Errorf("a second rotation before the first is finished: %v", err)
	}
	last, err := Finish(dir)
	if err != nil {
		t.Fatal(err)
	}
	if last.Generation() != 2 || last.Oldest() != 2 || last.BundleFile() != last.CAFile() {
		t.Errorf("after Finish: %d, %d", last.Generation(), last.Oldest())
	}
	if trusts(last.CAPEM(), clientOf(t, first), client) == nil || trusts(first.CAPEM(), servingOf(t, last), server) == nil {
		t.Error("the old CA is still worth something")
	}
	if err := trusts(last.CAPEM(), clientOf(t, second), client); err != nil {
		t.Errorf("a certificate of the rotated CA: %v", err)
	}
	if third, err := Rotate(dir, 3); err != nil || third.Generation() != 3 {
		t.Errorf("the next rotation: %v", err)
	}
}

// Wherever a rotation is interrupted, there is one CA with its key, and nobody who
// was trusted is refused.
func TestRotateInterrupted(t *testing.T) {
	for name, c := range map[string]struct {
		interrupt  func(dir string) error
		generation int64
	}{
		"before the certificate was written": {func(dir string) error { return os.Remove(filepath.Join(dir, nextCertFile)) }, 1},
		"before anything was renamed":        {func(string) error { return nil }, 2},
		"between key and certificate": {func(dir string) error {
			return os.Rename(filepath.Join(dir, nextKeyFile), filepath.Join(dir, caKeyFile))
		}, 2},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			first, err := LoadOrCreate(dir, "acme")
			if err != nil {
				t.Fatal(err)
			}
			if err := first.writeNext(2); err != nil {
				t.Fatal(err)
			}
			if err := c.interrupt(dir); err != nil {
				t.Fatal(err)
			}
			a, err := Load(dir)
			if err != nil {
				t.Fatal(err)
			}
			if a.Generation() != c.generation || a.Oldest() != 1 {
				t.Errorf("generation %d, oldest %d", a.Generation(), a.Oldest())
			}
			if err := trusts(a.CAPEM(), clientOf(t, first), x509.ExtKeyUsageClientAuth); err != nil {
				t.Error(err)
			}
			if a, err = Rotate(dir, 2); err != nil || a.Generation() != 2 {
				t.Errorf("rotate after it: %v", err)
			}
		})
	}
}

func TestLoadMakesNothing(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "pki")
	if _, err := Load(dir); !errors.Is(err, ErrMissing) {
		t.Errorf("without a directory: %v", err)
	}
	if _, err := LoadOrCreate(dir, "x"); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(dir); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{caCertFile, caKeyFile, saKeyFile} {
		path := filepath.Join(dir, name)
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		for what, f := range map[string]func() (*Authority, error){
			"Load":   func() (*Authority, error) { return Load(dir) },
			"Rotate": func() (*Authority, error) { return Rotate(dir, 2) },
			"Finish": func() (*Authority, error) { return Finish(dir) },
		} {
			if _, err := f(); !errors.Is(err, ErrMissing) {
				t.Errorf("%s without %s: %v", what, name, err)
			}
		}
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func TestSignClient(t *testing.T) {
	a := newAuthority(t)
	request, keyPEM, err := NewRequest()
	if err != nil {
		t.Fatal(err)
	}
	leaf, certPEM, err := a.SignClient(request, "jane", []string{"g"}, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tls.X509KeyPair(certPEM, keyPEM); err != nil {
		t.Error(err)
	}
	if leaf.Subject.CommonName != "jane" || leaf.Subject.Organization[0] != "g" || Serial(leaf.SerialNumber) == "" {
		t.Errorf("subject %v", leaf.Subject)
	}
	if err := verify(a, leaf, x509.ExtKeyUsageClientAuth); err != nil {
		t.Error(err)
	}
	if verify(a, leaf, x509.ExtKeyUsageServerAuth) == nil || leaf.IsCA {
		t.Error("a client certificate is good for more")
	}
	spoilt := bytes.Clone(request)
	spoilt[len(spoilt)/2] ^= 1
	for name, bad := range map[string][]byte{"nothing": nil, "no request": certPEM, "a request that nobody signed": spoilt} {
		if _, _, err := a.SignClient(bad, "jane", nil, time.Hour); err == nil {
			t.Errorf("%s was signed", name)
		}
	}
	if _, _, err := a.SignClient(request, "", nil, time.Hour); err == nil {
		t.Error("an empty user was accepted")
	}
}
