package kube

import (
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httputil"
	"sync/atomic"

	genericapirequest "k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/client-go/transport"
	apiregistrationv1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"
	aggregatorapiserver "k8s.io/kube-aggregator/pkg/apiserver"
)

// maxDocument bounds what is read into memory of an answer of a tenant's server:
// an aggregated API's document, a webhook's verdict. A cluster's own OpenAPI has
// about 6 MB.
const maxDocument = 16 << 20

var errTooLong = errors.New("the answer is longer than the API server reads")

// remoteServer asks a tenant's API server for documents about itself, which it
// keeps in memory: they are bounded. Requests of clients take upstream's way.
type remoteServer struct {
	resolver aggregatorapiserver.ServiceResolver
	target   atomic.Pointer[target]
}

// target is where an APIService points, and how to speak to it.
type target struct {
	namespace, name string
	port            int32
	transport       http.RoundTripper
	err             error // why there is no transport
}

// update takes an APIService's specification over.
func (s *remoteServer) update(service *apiregistrationv1.APIService, config *transport.Config) {
	to := &target{namespace: service.Spec.Service.Namespace, name: service.Spec.Service.Name, port: 443}
	if service.Spec.Service.Port != nil {
		to.port = *service.Spec.Service.Port
	}
	to.transport, to.err = transport.New(config)
	s.target.Store(to)
}

// ServeHTTP passes a request on as its user, who is upstream's aggregator.
func (s *remoteServer) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	to := s.target.Load()
	user, ok := genericapirequest.UserFrom(req.Context())
	if !ok || to.err != nil {
		http.Error(w, fmt.Sprintf("the API server cannot be asked: %v", to.err), http.StatusServiceUnavailable)
		return
	}
	location, err := s.resolver.ResolveEndpoint(to.namespace, to.name, to.port)
	if err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	as := transport.NewAuthProxyRoundTripper(user.GetName(), user.GetUID(), user.GetGroups(), user.GetExtra(), to.transport)
	(&httputil.ReverseProxy{
		Transport: as,
		ErrorLog:  log.New(io.Discard, "", 0), // what a tenant's server does is not the provider's log's
		Rewrite: func(r *httputil.ProxyRequest) {
			r.Out.URL.Scheme, r.Out.URL.Host, r.Out.Host = "https", location.Host, location.Host
		},
		ModifyResponse: func(answer *http.Response) error {
			answer.Body = bounded(answer.Body)
			return nil
		},
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, err error) {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
		},
	}).ServeHTTP(w, req)
}

// bounded is a body that ends with an error after maxDocument bytes.
func bounded(body io.ReadCloser) io.ReadCloser {
	return &boundedBody{ReadCloser: body, left: maxDocument}
}

type boundedBody struct {
	io.ReadCloser
	left int64
}

// Read implements io.Reader.
func (b *boundedBody) Read(p []byte) (int, error) {
	if b.left <= 0 {
		return 0, errTooLong
	}
	if int64(len(p)) > b.left {
		p = p[:b.left]
	}
	n, err := b.ReadCloser.Read(p)
	b.left -= int64(n)
	return n, err
}

// boundedTripper bounds the answers of a transport.
type boundedTripper struct{ http.RoundTripper }

// RoundTrip implements http.RoundTripper.
func (b boundedTripper) RoundTrip(req *http.Request) (*http.Response, error) {
	answer, err := b.RoundTripper.RoundTrip(req)
	if err == nil {
		answer.Body = bounded(answer.Body)
	}
	return answer, err
}

// WrappedRoundTripper says what is wrapped, to those that must reach through.
func (b boundedTripper) WrappedRoundTripper() http.RoundTripper { return b.RoundTripper }
