package server

import (
	"errors"

	"sublet.dev/tenant-apiserver/pki"
)

// Carried is what a tenant's control plane leaves to the one that takes its place after a
// sleep, so that clients do not see that it is another. The zero value: nothing. What
// cannot be used is done without.
type Carried struct {
	// Metrics are the numbers of its requests, of at most measure.MaxCarried bytes.
	Metrics []byte
	// Serving is its serving certificate, with the key.
	Serving []byte
}

// Carry returns what the next control plane of this tenant is to have; with an error, a
// part of it. The server should have stopped: later requests are not counted.
func (s *Server) Carry() (Carried, error) {
	if s.config.meter == nil {
		return Carried{}, nil
	}
	metrics, err := s.config.meter.Carry()
	serving, certErr := s.certs.carry()
	if err = errors.Join(err, certErr); err != nil {
		err = wrap(s.config.Name, err)
	}
	return Carried{Metrics: metrics, Serving: serving}, err
}

// resume uses the certificate that was carried over, unless another would be issued now:
// by another authority, say, or for other names.
func (s *servingCert) resume() {
	if len(s.config.Carried.Serving) == 0 {
		return
	}
	names, ips := s.config.servingNames()
	cert, err := s.config.PKI.ReuseServing(s.config.Carried.Serving, names, ips)
	if err != nil {
		s.config.logger().Info("another serving certificate is issued", "because", err)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cert = &cert
}

// carry returns the certificate for resume of the next.
func (s *servingCert) carry() ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cert == nil {
		return nil, nil
	}
	return pki.EncodeServing(*s.cert)
}
