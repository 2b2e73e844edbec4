package server

import (
	"crypto/tls"
	"sync"
	"time"

	"sublet.dev/tenant-apiserver/pki"
)

const (
	// servingTTL is how long a serving certificate is valid.
	servingTTL = 90 * 24 * time.Hour
	// renewBefore is how long before its end it is replaced. Clients trust the
	// authority and do not notice.
	renewBefore = servingTTL / 3
)

// servingCert is the server's certificate, carried over or issued when first needed, and
// issued again before it expires.
type servingCert struct {
	mu     sync.Mutex
	config Config
	cert   *tls.Certificate
}

// set has the next certificate issued by another authority, which clients of the one
// before trust, too.
func (s *servingCert) set(a *pki.Authority) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.config.PKI, s.cert = a, nil
}

// get implements tls.Config.GetCertificate.
func (s *servingCert) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cert != nil && time.Until(s.cert.Leaf.NotAfter) > renewBefore {
		return s.cert, nil
	}
	names, ips := s.config.servingNames()
	cert, err := s.config.PKI.IssueServing(names, ips, servingTTL)
	if err != nil {
		return nil, err
	}
	s.cert = &cert
	return s.cert, nil
}
