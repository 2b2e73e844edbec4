package server

import (
	"sublet.dev/tenant-apiserver/authn"
	"sublet.dev/tenant-apiserver/internal/kube"
)

// ParseAuthentication returns what is wrong with a document for SetAuthentication.
func ParseAuthentication(document []byte) error {
	_, err := authn.Parse(document, kube.OwnIssuers()...)
	return err
}

// SetAuthentication makes those of an AuthenticationConfiguration
// (apiserver.config.k8s.io, YAML or JSON; nothing: none) the issuers whose OpenID
// Connect tokens are taken, from now on; requests under way go on. With an error
// all is as it was. A server begins without issuers.
func (s *Server) SetAuthentication(document []byte) error {
	c, err := authn.Parse(document, kube.OwnIssuers()...)
	if err != nil {
		return wrap(s.config.Name, err)
	}
	if err := s.instance.SetIssuers(c); err != nil {
		return wrap(s.config.Name, err)
	}
	return nil
}
