package node

import (
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"testing"
)

func TestFrontLetsOnlyTheAPIServerIn(t *testing.T) {
	f := Front{Clients: []string{"apiserver"}}
	state := func(name string, verified bool, groups ...string) *tls.ConnectionState {
		cert := &x509.Certificate{Subject: pkix.Name{CommonName: name, Organization: groups}}
		s := &tls.ConnectionState{PeerCertificates: []*x509.Certificate{cert}}
		if verified {
			s.VerifiedChains = [][]*x509.Certificate{{cert}}
		}
		return s
	}
	for what, c := range map[string]struct {
		state *tls.ConnectionState
		want  bool
	}{
		"the API server":       {state("apiserver", true), true},
		"its name, unverified": {state("apiserver", false), false},
		"an administrator":     {state("admin", true, "system:masters"), false},
		"a node":               {state("system:node:n1", true, "system:nodes"), false},
		"nobody":               {&tls.ConnectionState{}, false},
		"no TLS":               {nil, false},
	} {
		if got := f.may(c.state); got != c.want {
			t.Errorf("%s: %v", what, got)
		}
	}
}
