package server

import (
	"crypto/tls"
	"sync"
	"time"
)

const (
	// servingTTL is how long a serving certificate is valid.
	servingTTL = 90 * 24 * time.Hour
	// renewBefore is how long before its end it is replaced. Clients trust the
	// authority and do not notice.
	renewBefore = servingTTL / 3
)

// servingCert is the server's certificate, issued when first needed and again
// before it expires.
type servingCert struct {
	config Config

	mu   sync.Mutex
	cert *tls.Certificate
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
