package pki

import (
	"crypto/ecdsa"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
)

// EncodeServing returns the certificate of IssueServing and its key, both PEM-encoded, for
// ReuseServing.
func EncodeServing(c tls.Certificate) ([]byte, error) {
	key, ok := c.PrivateKey.(*ecdsa.PrivateKey)
	if !ok || len(c.Certificate) == 0 {
		return nil, fmt.Errorf("encode serving certificate: the key is a %T, with %d certificates", c.PrivateKey, len(c.Certificate))
	}
	keyPEM, err := encodeKey(key)
	if err != nil {
		return nil, fmt.Errorf("encode serving certificate: %w", err)
	}
	return append(encodeCert(c.Certificate[0]), keyPEM...), nil
}

// ReuseServing returns the certificate that EncodeServing was given if IssueServing would
// make such a one now: the present CA has signed it, for these names and addresses. When
// it ends is for the caller to judge.
func (a *Authority) ReuseServing(encoded []byte, names []string, ips []netip.Addr) (tls.Certificate, error) {
	c, err := tls.X509KeyPair(encoded, encoded)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("reuse serving certificate: %w", err)
	}
	switch {
	case c.Leaf.CheckSignatureFrom(a.cert) != nil:
		err = errors.New("another CA has signed it")
	case !slices.Equal(c.Leaf.DNSNames, names) || !slices.EqualFunc(c.Leaf.IPAddresses, ips, sameAddr):
		err = errors.New("it has other names")
	case !slices.Equal(c.Leaf.ExtKeyUsage, []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}):
		err = errors.New("it is for something else")
	}
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("reuse serving certificate: %w", err)
	}
	c.Certificate = a.chain(c.Certificate[0])
	return c, nil
}

func sameAddr(ip net.IP, addr netip.Addr) bool { return ip.Equal(addr.AsSlice()) }

// chain is what a server shows whose certificate the present CA has signed.
func (a *Authority) chain(leaf []byte) [][]byte {
	chain := [][]byte{leaf}
	if a.cross != nil { // the way to it for those who know only the CA before
		chain = append(chain, a.cross.Raw)
	}
	return append(chain, a.cert.Raw)
}
