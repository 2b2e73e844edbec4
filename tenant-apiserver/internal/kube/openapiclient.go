package kube

import (
	"bytes"
	"net/http"
	"sync"
	"sync/atomic"

	"k8s.io/client-go/discovery"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/openapi"
)

// admissionClient is the client of admission plugins. That of MutatingAdmissionPolicies
// asks every five seconds where the OpenAPI documents are, whether there are policies or
// not; here it asks again only when that has changed.
type admissionClient struct {
	kubernetes.Interface
	documents *documentPaths
}

// Discovery implements kubernetes.Interface.
func (c admissionClient) Discovery() discovery.DiscoveryInterfaces {
	return admissionDiscovery{c.Interface.Discovery(), c.documents}
}

type admissionDiscovery struct {
	discovery.DiscoveryInterfaces
	documents *documentPaths
}

// OpenAPIV3 implements discovery.OpenAPIV3SchemaInterface.
func (d admissionDiscovery) OpenAPIV3() openapi.Client {
	d.documents.ask = d.DiscoveryInterfaces.OpenAPIV3()
	return d.documents
}

// documentPaths is an openapi.Client that remembers the answer as long as the API
// extensions server, which alone has documents that change, says the same.
type documentPaths struct {
	ask        openapi.Client
	extensions atomic.Pointer[http.Handler] // nil before it answers

	mu    sync.Mutex
	as    []byte // what the API extensions server said
	paths map[string]openapi.GroupVersion
}

// Paths implements openapi.Client. The map is the caller's to read.
func (d *documentPaths) Paths() (map[string]openapi.GroupVersion, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	h := d.extensions.Load()
	if h == nil {
		return d.ask.Paths() // which waits until there is somebody to answer
	}
	now := &buffer{}
	if err := get(*h, openAPIV3, now); err != nil {
		return nil, err
	}
	if d.paths != nil && bytes.Equal(d.as, now.body.Bytes()) {
		return d.paths, nil
	}
	paths, err := d.ask.Paths()
	if err != nil {
		return nil, err
	}
	d.as, d.paths = now.body.Bytes(), paths
	return paths, nil
}
