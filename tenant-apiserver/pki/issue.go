package pki

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"time"
)

// DefaultClientTTL is the lifetime of a client certificate whose issuer names
// none.
const DefaultClientTTL = 24 * time.Hour

// IssueServing makes a TLS server certificate for the given DNS names and
// addresses; the first name is also its common name. It is valid until ttl
// from now, but never longer than the CA.
func (a *Authority) IssueServing(names []string, ips []netip.Addr, ttl time.Duration) (tls.Certificate, error) {
	template := &x509.Certificate{
		DNSNames:    names,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	if len(names) > 0 {
		template.Subject.CommonName = names[0]
	}
	for _, ip := range ips {
		template.IPAddresses = append(template.IPAddresses, net.IP(ip.AsSlice()))
	}
	der, key, err := a.issue(template, ttl)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("issue serving certificate: %w", err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("issue serving certificate: %w", err)
	}
	return tls.Certificate{Certificate: a.chain(der), PrivateKey: key, Leaf: leaf}, nil
}

// IssueClient makes a client certificate for a Kubernetes user (common name)
// and groups (organizations), both PEM-encoded. Nobody keeps a record of it, so it
// cannot be revoked: keep ttl short; zero means DefaultClientTTL.
func (a *Authority) IssueClient(user string, groups []string, ttl time.Duration) (certPEM, keyPEM []byte, err error) {
	if user == "" {
		return nil, nil, fmt.Errorf("issue client certificate: the user name is empty")
	}
	der, key, err := a.issue(&x509.Certificate{
		Subject:     pkix.Name{CommonName: user, Organization: groups},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}, ttl)
	if err != nil {
		return nil, nil, fmt.Errorf("issue client certificate: %w", err)
	}
	keyPEM, err = encodeKey(key)
	if err != nil {
		return nil, nil, fmt.Errorf("issue client certificate: %w", err)
	}
	return encodeCert(der), keyPEM, nil
}

// ClientFiles issues a client certificate that lives as long as the CA, for a
// component of the control plane itself that wants files, and keeps it beside the
// authority's own files as name.crt and name.key. Every call issues a new one.
func (a *Authority) ClientFiles(name, user string, groups []string) (certFile, keyFile string, err error) {
	certPEM, keyPEM, err := a.IssueClient(user, groups, caLifetime)
	if err != nil {
		return "", "", err
	}
	certFile, keyFile = filepath.Join(a.dir, name+".crt"), filepath.Join(a.dir, name+".key")
	if err := errors.Join(writeFile(keyFile, keyPEM), writeFile(certFile, certPEM)); err != nil {
		return "", "", err
	}
	return certFile, keyFile, nil
}

// issue signs a certificate for a new key.
func (a *Authority) issue(template *x509.Certificate, ttl time.Duration) ([]byte, *ecdsa.PrivateKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	der, err := a.sign(template, key.Public(), ttl)
	return der, key, err
}

// sign completes the template and signs it for a public key.
func (a *Authority) sign(template *x509.Certificate, key any, ttl time.Duration) ([]byte, error) {
	if ttl < 0 {
		return nil, fmt.Errorf("the lifetime %s is negative", ttl)
	}
	if ttl == 0 {
		ttl = DefaultClientTTL
	}
	serial, err := serialNumber()
	if err != nil {
		return nil, err
	}
	now := time.Now()
	template.SerialNumber = serial
	template.NotBefore = now.Add(-backdate)
	template.NotAfter = now.Add(ttl)
	if template.NotAfter.After(a.cert.NotAfter) {
		template.NotAfter = a.cert.NotAfter
	}
	template.KeyUsage = x509.KeyUsageDigitalSignature
	template.BasicConstraintsValid = true
	return x509.CreateCertificate(rand.Reader, template, a.cert, key, a.key)
}
