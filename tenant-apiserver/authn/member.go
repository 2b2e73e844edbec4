package authn

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"k8s.io/apiserver/pkg/apis/apiserver"
	"k8s.io/apiserver/plugin/pkg/authenticator/token/oidc"
	"k8s.io/client-go/util/cert"
)

const (
	// askTimeout bounds one question to an issuer.
	askTimeout = 10 * time.Second
	// maxDocument is how much is read of one document of an issuer.
	maxDocument = 1 << 20
)

// Dial connects to an issuer, or to what its documents name.
type Dial func(ctx context.Context, network, address string) (net.Conn, error)

// member is one issuer.
type member struct {
	jwt       apiserver.JWTAuthenticator
	token     oidc.AuthenticatorTokenWithHealthCheck
	cancel    context.CancelFunc
	transport *http.Transport
}

func (i *Issuers) newMember(j apiserver.JWTAuthenticator) (*member, error) {
	dial := i.config.Usual
	if j.Issuer.EgressSelectorType == apiserver.EgressSelectorControlPlane {
		dial = i.config.Direct
	}
	transport, err := newTransport(j.Issuer.CertificateAuthority, dial)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(i.life)
	token, err := oidc.New(ctx, oidc.Options{
		JWTAuthenticator:     j,
		Client:               &http.Client{Transport: careful{transport}, Timeout: askTimeout},
		Compiler:             compiler(),
		SupportedSigningAlgs: oidc.AllValidSigningAlgorithms(),
		DisallowedIssuers:    i.config.Own,
		APIServerID:          i.config.ID,
	})
	if err != nil {
		cancel()
		return nil, err
	}
	return &member{jwt: j, token: token, cancel: cancel, transport: transport}, nil
}

// end asks the issuer no more.
func (m *member) end() {
	m.cancel()
	m.transport.CloseIdleConnections()
}

// newTransport makes connections with dial and nothing else.
func newTransport(ca string, dial Dial) (*http.Transport, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if ca != "" {
		roots, err := cert.NewPoolFromBytes([]byte(ca))
		if err != nil {
			return nil, fmt.Errorf("certificate authority: %w", err)
		}
		config.RootCAs = roots
	}
	return &http.Transport{
		DialContext: dial, TLSClientConfig: config, ForceAttemptHTTP2: true,
		TLSHandshakeTimeout: askTimeout, ResponseHeaderTimeout: askTimeout, IdleConnTimeout: 90 * time.Second,
		MaxIdleConns: 2, MaxConnsPerHost: 4, MaxResponseHeaderBytes: 64 << 10,
	}, nil
}

var errNotHTTPS = errors.New("issuers are asked by https only")

// careful is a transport that speaks https only, also where documents and redirects
// lead, and bounds what is read.
type careful struct{ *http.Transport }

// RoundTrip implements http.RoundTripper.
func (c careful) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.URL.Scheme != "https" {
		return nil, errNotHTTPS
	}
	answer, err := c.Transport.RoundTrip(req)
	if err == nil {
		answer.Body = http.MaxBytesReader(nil, answer.Body, maxDocument)
	}
	return answer, err
}
