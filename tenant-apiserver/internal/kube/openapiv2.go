package kube

import (
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"

	"k8s.io/apiserver/pkg/server/mux"
	openapimerge "k8s.io/kube-openapi/pkg/aggregator"
	openapihandler "k8s.io/kube-openapi/pkg/handler"
	"k8s.io/kube-openapi/pkg/validation/spec"
)

const openAPIV2Path = "/openapi/v2"

// openAPIV2 serves one control plane's document of version 2: that of the built-in
// types, which is the process's, and with custom resources one that has those too.
// That is some twenty megabytes, made when somebody asks for it, which kubectl and
// client-go do where they know no version 3.
type openAPIV2 struct {
	builtIn    http.Handler
	extensions http.Handler // the API extensions server: its own types and custom resources

	mu     sync.Mutex
	etag   string       // what the document of extensions was called
	served http.Handler // for etag
}

// ServeHTTP implements http.Handler.
func (o *openAPIV2) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	document, err := o.current()
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	document.ServeHTTP(w, req)
}

// current returns what serves the document as custom resources are now.
func (o *openAPIV2) current() (http.Handler, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	answer := &buffer{}
	if err := get(o.extensions, openAPIV2Path, answer); err != nil {
		return nil, fmt.Errorf("OpenAPI of custom resources: %w", err)
	}
	etag := answer.header.Get("Etag")
	if o.served != nil && etag == o.etag {
		return o.served, nil
	}
	served, err := o.merge(answer)
	if err != nil {
		return nil, fmt.Errorf("OpenAPI of custom resources: %w", err)
	}
	o.etag, o.served = etag, served
	return served, nil
}

// merge returns what serves the built-in types together with an answer of extensions.
func (o *openAPIV2) merge(extensions *buffer) (http.Handler, error) {
	all, custom := &spec.Swagger{}, &spec.Swagger{}
	if err := custom.UnmarshalJSON(extensions.body.Bytes()); err != nil {
		return nil, err
	}
	if !slices.ContainsFunc(slices.Collect(maps.Keys(custom.Paths.Paths)), isCustomPath) {
		return o.builtIn, nil
	}
	answer := &buffer{}
	if err := get(o.builtIn, openAPIV2Path, answer); err != nil {
		return nil, err
	}
	if err := all.UnmarshalJSON(answer.body.Bytes()); err != nil {
		return nil, err
	}
	if err := openapimerge.MergeSpecsIgnorePathConflictRenamingDefinitionsAndParameters(all, custom); err != nil {
		return nil, err
	}
	m := mux.NewPathRecorderMux("openapi")
	openapihandler.NewOpenAPIService(all).RegisterOpenAPIVersionedService(openAPIV2Path, m)
	return m, nil
}

// isCustomPath says whether a path that the API extensions server documents is a
// custom resource's: everything else is its own, which the built-in types contain.
func isCustomPath(path string) bool {
	return strings.HasPrefix(path, "/apis/") && path != "/apis/" && !strings.HasPrefix(path+"/", "/apis/apiextensions.k8s.io/")
}
