package server

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"net"
	"testing"
	"time"
)

// shown is the certificate with which a server answers somebody who trusts its
// authority.
func shown(t *testing.T, s *servingCert) *x509.Certificate {
	t.Helper()
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(s.config.PKI.CAPEM()) {
		t.Fatal("the authority has no certificate")
	}
	near, far := net.Pipe()
	server := tls.Server(far, &tls.Config{GetCertificate: s.get, MinVersion: tls.VersionTLS12})
	served := make(chan error, 1)
	go func() { served <- server.HandshakeContext(t.Context()) }()
	client := tls.Client(near, &tls.Config{RootCAs: roots, ServerName: "kubernetes.default.svc", MinVersion: tls.VersionTLS12})
	if err := client.HandshakeContext(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := <-served; err != nil {
		t.Fatal(err)
	}
	if err := near.Close(); err != nil {
		t.Error(err)
	}
	return client.ConnectionState().PeerCertificates[0]
}

// The serving certificate is replaced while the server runs, a third of its life before
// its end and not before; who trusts the authority does not notice.
func TestServingCertificateIsRenewed(t *testing.T) {
	s := &servingCert{config: w.a.config}
	first := shown(t, s)
	if again := shown(t, s); !bytes.Equal(again.Raw, first.Raw) {
		t.Error("a good certificate was replaced")
	}
	if life := first.NotAfter.Sub(first.NotBefore); life < servingTTL || life > servingTTL+time.Hour {
		t.Errorf("it is good for %s", life)
	}
	for _, left := range []time.Duration{renewBefore - time.Minute, -time.Minute} {
		was := shown(t, s)
		s.cert.Leaf.NotAfter = time.Now().Add(left) // as if time had passed
		now := shown(t, s)
		if bytes.Equal(now.Raw, was.Raw) || time.Until(now.NotAfter) < servingTTL-time.Hour {
			t.Errorf("%s before its end: good until %s, serial number %v and before %v", left, now.NotAfter, now.SerialNumber, was.SerialNumber)
		}
	}
}
