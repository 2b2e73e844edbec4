package pki

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"k8s.io/client-go/tools/clientcmd"
)

func newAuthority(t *testing.T) *Authority {
	t.Helper()
	a, err := LoadOrCreate(t.TempDir(), "test")
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func verify(a *Authority, leaf *x509.Certificate, usage x509.ExtKeyUsage) error {
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(a.CAPEM())
	_, err := leaf.Verify(x509.VerifyOptions{Roots: roots, KeyUsages: []x509.ExtKeyUsage{usage}})
	return err
}

func TestLoadOrCreateIsIdempotent(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "deep", "pki")
	first, err := LoadOrCreate(dir, "one")
	if err != nil {
		t.Fatal(err)
	}
	second, err := LoadOrCreate(dir, "two")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(first.CAPEM(), second.CAPEM()) || !first.ServiceAccountKey().Equal(second.ServiceAccountKey()) {
		t.Error("the second call made another authority")
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	if len(entries) != 3 {
		t.Errorf("files left in the directory: %v", entries)
	}
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v", e.Name(), info.Mode())
		}
	}
}

func TestLoadOrCreateCompletesAnInterruptedCreation(t *testing.T) {
	dir := t.TempDir()
	if _, err := LoadOrCreate(dir, "x"); err != nil {
		t.Fatal(err)
	}
	key, err := os.ReadFile(filepath.Join(dir, caKeyFile))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(dir, caCertFile)); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadOrCreate(dir, "x"); err != nil {
		t.Fatal(err)
	}
	after, err := os.ReadFile(filepath.Join(dir, caKeyFile))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(key, after) {
		t.Error("the key was replaced")
	}
}

func TestLoadOrCreateRefusesWhatItCannotUse(t *testing.T) {
	spoil := map[string]func(t *testing.T, dir string) string{
		"corrupt key": func(t *testing.T, dir string) string {
			return overwrite(t, dir, caKeyFile, "not a key")
		},
		"corrupt service account key": func(t *testing.T, dir string) string {
			return overwrite(t, dir, saKeyFile, "")
		},
		"corrupt certificate": func(t *testing.T, dir string) string {
			return overwrite(t, dir, caCertFile, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
		},
		"key of somebody else": func(t *testing.T, dir string) string {
			other := t.TempDir()
			if _, err := LoadOrCreate(other, "other"); err != nil {
				t.Fatal(err)
			}
			data, err := os.ReadFile(filepath.Join(other, caKeyFile))
			if err != nil {
				t.Fatal(err)
			}
			overwrite(t, dir, caKeyFile, string(data))
			return filepath.Join(dir, caCertFile)
		},
		"certificate without its key": func(t *testing.T, dir string) string {
			path := filepath.Join(dir, caKeyFile)
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
			return path
		},
	}
	for name, f := range spoil {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if _, err := LoadOrCreate(dir, "x"); err != nil {
				t.Fatal(err)
			}
			path := f(t, dir)
			_, err := LoadOrCreate(dir, "x")
			if !errors.Is(err, ErrCorrupt) {
				t.Fatalf("error %v, want ErrCorrupt", err)
			}
			if !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), "restore it from a backup") {
				t.Errorf("the error does not help: %v", err)
			}
		})
	}
}

func overwrite(t *testing.T, dir, name, content string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestIssueServing(t *testing.T) {
	a := newAuthority(t)
	c, err := a.IssueServing([]string{"acme.sublet.internal"}, []netip.Addr{netip.MustParseAddr("10.96.4.1")}, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	if err := verify(a, c.Leaf, x509.ExtKeyUsageServerAuth); err != nil {
		t.Error(err)
	}
	for _, host := range []string{"acme.sublet.internal", "10.96.4.1"} {
		if err := c.Leaf.VerifyHostname(host); err != nil {
			t.Error(err)
		}
	}
	if c.Leaf.VerifyHostname("other.sublet.internal") == nil {
		t.Error("the certificate serves another name")
	}
	if verify(a, c.Leaf, x509.ExtKeyUsageClientAuth) == nil {
		t.Error("a serving certificate works as a client certificate")
	}
	if verify(newAuthority(t), c.Leaf, x509.ExtKeyUsageServerAuth) == nil {
		t.Error("another authority accepts the certificate")
	}
}

func TestIssueClient(t *testing.T) {
	a := newAuthority(t)
	certPEM, keyPEM, err := a.IssueClient("jane", []string{"g1", "g2"}, 0)
	if err != nil {
		t.Fatal(err)
	}
	pair, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		t.Fatal(err)
	}
	leaf := pair.Leaf
	if leaf.Subject.CommonName != "jane" || len(leaf.Subject.Organization) != 2 {
		t.Errorf("subject %v", leaf.Subject)
	}
	if err := verify(a, leaf, x509.ExtKeyUsageClientAuth); err != nil {
		t.Error(err)
	}
	if life := leaf.NotAfter.Sub(leaf.NotBefore); life != DefaultClientTTL+backdate {
		t.Errorf("default lifetime %v", life)
	}
	if _, _, err := a.IssueClient("", nil, 0); err == nil {
		t.Error("an empty user was accepted")
	}
	if _, _, err := a.IssueClient("x", nil, -time.Second); err == nil {
		t.Error("a negative lifetime was accepted")
	}
}

func TestCertificatesDoNotOutliveTheAuthority(t *testing.T) {
	a := newAuthority(t)
	c, err := a.IssueServing([]string{"x"}, nil, 100*365*24*time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	if c.Leaf.NotAfter.After(a.Certificate().NotAfter) {
		t.Error("the certificate outlives its authority")
	}
}

func TestKubeconfig(t *testing.T) {
	a := newAuthority(t)
	data, err := a.Kubeconfig(KubeconfigOptions{
		Server: "https://192.0.2.1:6443", TLSServerName: "acme.sublet.internal",
		User: "admin", Groups: []string{"system:masters"}, ContextName: "acme",
	})
	if err != nil {
		t.Fatal(err)
	}
	config, err := clientcmd.RESTConfigFromKubeConfig(data)
	if err != nil {
		t.Fatal(err)
	}
	if config.Host != "https://192.0.2.1:6443" || config.ServerName != "acme.sublet.internal" {
		t.Errorf("leads to %s as %s", config.Host, config.ServerName)
	}
	if !bytes.Equal(config.CAData, a.CAPEM()) || len(config.CertData) == 0 || len(config.KeyData) == 0 {
		t.Error("certificates are not embedded")
	}
	for _, bad := range []string{"", "http://x", "192.0.2.1:6443"} {
		if _, err := a.Kubeconfig(KubeconfigOptions{Server: bad, User: "x"}); err == nil {
			t.Errorf("server %q was accepted", bad)
		}
	}
}
