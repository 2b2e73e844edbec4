package syncer

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httputil"
	"net/url"
	"path"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	utilnet "k8s.io/apimachinery/pkg/util/net"
	"k8s.io/apimachinery/pkg/util/proxy"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/transport"
)

// maxErrorText is how much of an answer that is an error is looked at.
const maxErrorText = 64 << 10

// streams passes requests on to the subresources of host pods, as the tenant's
// identity on the host.
type streams struct {
	host      *url.URL
	plain     http.RoundTripper
	upgrading proxy.UpgradeRequestRoundTripper
}

func newStreams(hostWrite *rest.Config) (*streams, error) {
	host, _, err := rest.DefaultServerUrlFor(hostWrite)
	if err != nil {
		return nil, err
	}
	plain, err := rest.TransportFor(hostWrite)
	if err != nil {
		return nil, err
	}
	config, err := hostWrite.TransportConfig()
	if err != nil {
		return nil, err
	}
	tls, err := transport.TLSConfigFor(config)
	if err != nil {
		return nil, err
	}
	// A connection that changes its protocol is HTTP/1.1 and dialled for it alone;
	// the wrappers add the identity to its request.
	connection := utilnet.SetOldTransportDefaults(&http.Transport{TLSClientConfig: tls, DialContext: hostWrite.Dial})
	wrappers, err := transport.HTTPWrappersForConfig(config, proxy.MirrorRequest)
	if err != nil {
		return nil, err
	}
	return &streams{host: host, plain: plain, upgrading: proxy.NewUpgradeRequestRoundTripper(connection, wrappers)}, nil
}

// location is a subresource of a host pod.
func (s *streams) location(pair podPair, subresource string, query url.Values) *url.URL {
	u := *s.host
	u.Path = path.Join("/", u.Path, "api/v1/namespaces", pair.hostPod.Namespace, "pods", pair.hostPod.Name, subresource)
	u.RawQuery = query.Encode()
	return &u
}

// log passes a log on. An error of the host becomes a kubelet's: a line of text,
// with the tenant's names.
func (s *streams) log(w http.ResponseWriter, r *http.Request, pair podPair, query url.Values, refuse refusal) {
	location := s.location(pair, "log", query)
	(&httputil.ReverseProxy{
		Transport:     s.plain,
		FlushInterval: -1,
		Rewrite: func(p *httputil.ProxyRequest) {
			p.Out.URL, p.Out.Host, p.Out.Header = location, location.Host, http.Header{"Accept": {"*/*"}}
		},
		ModifyResponse: func(answer *http.Response) error { return pair.revealError(answer) },
		ErrorHandler:   refuse,
	}).ServeHTTP(w, r)
}

// revealError makes of an error of the host's API a text for the tenant.
func (p podPair) revealError(answer *http.Response) error {
	if answer.StatusCode < http.StatusBadRequest {
		return nil
	}
	body, err := io.ReadAll(io.LimitReader(answer.Body, maxErrorText))
	_ = answer.Body.Close() // it was read as far as it matters
	if err != nil {
		return fmt.Errorf("read an error of the host: %w", err)
	}
	text := string(body)
	var status metav1.Status
	if json.Unmarshal(body, &status) == nil && status.Message != "" {
		text = status.Message
	}
	text = p.reveal.Text(text)
	answer.Header = http.Header{"Content-Type": {"text/plain; charset=utf-8"}}
	answer.ContentLength = int64(len(text))
	answer.Body = io.NopCloser(bytes.NewBufferString(text))
	return nil
}

// streamHeaders are the headers of a request that make it a stream. No other one
// reaches the host, least of all one that names somebody.
var streamHeaders = []string{
	"Connection", "Upgrade", "X-Stream-Protocol-Version", "Sec-Websocket-Key", "Sec-Websocket-Version",
	protocolHeader, "Sec-Websocket-Extensions", "User-Agent",
}

// upgrade passes a stream (SPDY or WebSocket) on.
func (s *streams) upgrade(w http.ResponseWriter, r *http.Request, pair podPair, subresource string, query url.Values, refuse refusal) {
	request := r.Clone(r.Context())
	request.Header = http.Header{}
	for _, h := range streamHeaders {
		if values := r.Header.Values(h); len(values) > 0 {
			request.Header[h] = values
		}
	}
	dropToken(request.Header)
	handler := proxy.NewUpgradeAwareHandler(s.location(pair, subresource, query), s.plain, false, true, refuse)
	handler.UpgradeTransport = s.upgrading
	handler.UseLocationHost = true
	handler.ServeHTTP(w, request)
}

// protocolHeader names the protocols that the client of a WebSocket speaks.
const protocolHeader = "Sec-Websocket-Protocol"

// tokenProtocol begins a protocol that is none: browsers, which can set no other header,
// put a bearer token there (k8s.io/apiserver/pkg/authentication/request/websocket).
const tokenProtocol = "base64url.bearer.authorization.k8s.io."

// dropToken takes tokens out of the protocols of a WebSocket: they are the tenant's, and
// the host would read them as its own.
func dropToken(header http.Header) {
	var protocols []string
	for _, value := range header.Values(protocolHeader) {
		for protocol := range strings.SplitSeq(value, ",") {
			if protocol = strings.TrimSpace(protocol); !strings.HasPrefix(protocol, tokenProtocol) {
				protocols = append(protocols, protocol)
			}
		}
	}
	if header.Del(protocolHeader); len(protocols) > 0 {
		header.Set(protocolHeader, strings.Join(protocols, ", "))
	}
}

// refusal answers a request that cannot be passed on.
type refusal func(w http.ResponseWriter, r *http.Request, err error)

// Error implements proxy.ErrorResponder.
func (f refusal) Error(w http.ResponseWriter, r *http.Request, err error) { f(w, r, err) }
