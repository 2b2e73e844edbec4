package kube

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/apiserver/pkg/server/mux"
	openapimerge "k8s.io/kube-openapi/pkg/aggregator"
	openapihandler "k8s.io/kube-openapi/pkg/handler"
	"k8s.io/kube-openapi/pkg/validation/spec"
)

const (
	openAPIV2Path = "/openapi/v2"

	// documentKept is how long a document is kept after it was last asked for.
	documentKept = 2 * time.Minute
	// remotesKept is how long what the tenant's own API servers said is not asked
	// again, and remotesTime what all of them together get to say it.
	remotesKept = time.Minute
	remotesTime = 10 * time.Second
)

// merging is held by whoever merges documents: it takes some hundred megabytes.
var merging = make(chan struct{}, 1)

// openAPIV2 serves one control plane's document of version 2: that of the built-in
// types, which is the process's, and with custom resources or aggregated APIs one that
// has those too. That is some twenty megabytes, made when somebody asks for it, which
// kubectl and client-go do where they know no version 3, and dropped again.
type openAPIV2 struct {
	builtIn    http.Handler
	extensions http.Handler // the API extensions server: its own types and custom resources
	// remotes are the tenant's own API servers by the paths that are theirs.
	remotes func() map[string]http.Handler
	life    context.Context // ends with the control plane

	mu     sync.Mutex
	key    string       // what the document was made of
	served http.Handler // for key
	asked  time.Time    // when the remotes were
	drop   *time.Timer
}

// ServeHTTP implements http.Handler.
func (o *openAPIV2) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	document, err := o.current(req.Context())
	if err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	document.ServeHTTP(w, req)
}

// close drops the document for good.
func (o *openAPIV2) close() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.drop != nil {
		o.drop.Stop()
	}
	o.forget()
}

// forget drops the document. The caller must hold mu.
func (o *openAPIV2) forget() { o.key, o.served = "", nil }

// current returns what serves the document as APIs are now.
func (o *openAPIV2) current(ctx context.Context) (http.Handler, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	custom := &buffer{}
	if err := get(o.extensions, openAPIV2Path, custom); err != nil {
		return nil, fmt.Errorf("OpenAPI of custom resources: %w", err)
	}
	remotes := o.remotes()
	paths := slices.Sorted(maps.Keys(remotes))
	key := fmt.Sprint(custom.header.Get("Etag"), paths)
	if o.served != nil && o.key == key && (len(remotes) == 0 || time.Since(o.asked) < remotesKept) {
		o.keep()
		return o.served, nil
	}
	select {
	case merging <- struct{}{}:
		defer func() { <-merging }()
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	served, err := o.merge(custom, remotes, paths)
	if err != nil {
		return nil, fmt.Errorf("OpenAPI: %w", err)
	}
	o.key, o.served, o.asked = key, served, time.Now()
	o.keep()
	return served, nil
}

// keep has the document dropped when nobody asks for it. The caller must hold mu.
func (o *openAPIV2) keep() {
	if o.drop != nil {
		o.drop.Reset(documentKept)
		return
	}
	o.drop = time.AfterFunc(documentKept, func() {
		o.mu.Lock()
		defer o.mu.Unlock()
		o.forget()
	})
}

// merge returns what serves the built-in types together with those of the API
// extensions server and of the tenant's own servers. What is longer than maxDocument,
// or cannot be had, is left out.
func (o *openAPIV2) merge(extensions *buffer, remotes map[string]http.Handler, paths []string) (http.Handler, error) {
	var parts []*spec.Swagger
	if extensions.body.Len() <= maxDocument {
		custom := &spec.Swagger{}
		if err := custom.UnmarshalJSON(extensions.body.Bytes()); err != nil {
			return nil, err
		}
		if slices.ContainsFunc(slices.Collect(maps.Keys(custom.Paths.Paths)), isCustomPath) {
			parts = append(parts, custom)
		}
	}
	ctx, cancel := context.WithTimeout(o.life, remotesTime)
	defer cancel()
	left := maxDocument
	for _, path := range paths {
		if part := askRemote(ctx, remotes[path], path, &left); part != nil {
			parts = append(parts, part)
		}
	}
	if len(parts) == 0 {
		return o.builtIn, nil
	}
	return mergeV2(o.builtIn, parts)
}

// mergeV2 returns what serves a document and others merged into it.
func mergeV2(builtIn http.Handler, parts []*spec.Swagger) (http.Handler, error) {
	answer, all := &buffer{}, &spec.Swagger{}
	if err := get(builtIn, openAPIV2Path, answer); err != nil {
		return nil, err
	}
	if err := all.UnmarshalJSON(answer.body.Bytes()); err != nil {
		return nil, err
	}
	for _, part := range parts {
		if err := openapimerge.MergeSpecsIgnorePathConflictRenamingDefinitionsAndParameters(all, part); err != nil {
			return nil, err
		}
	}
	m := mux.NewPathRecorderMux("openapi")
	openapihandler.NewOpenAPIService(all).RegisterOpenAPIVersionedService(openAPIV2Path, m)
	return m, nil
}

// askRemote returns what a server of the tenant's says of the paths that are its own,
// nil when it does not, or when it is more than is left.
func askRemote(ctx context.Context, server http.Handler, path string, left *int) *spec.Swagger {
	ctx = request.WithUser(ctx, &user.DefaultInfo{Name: "system:aggregator"})
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, openAPIV2Path, nil)
	if err != nil {
		return nil
	}
	req.Header.Set("Accept", "application/json")
	answer := &buffer{header: http.Header{}, status: http.StatusOK}
	server.ServeHTTP(answer, req)
	if answer.status != http.StatusOK || answer.body.Len() > *left {
		return nil
	}
	*left -= answer.body.Len()
	part := &spec.Swagger{}
	if part.UnmarshalJSON(answer.body.Bytes()) != nil || part.Paths == nil {
		return nil
	}
	return openapimerge.FilterSpecByPathsWithoutSideEffects(part, []string{path})
}

// documents returns the tenant's own API servers by the paths that are theirs.
func (r *remotes) documents() map[string]http.Handler {
	r.mu.Lock()
	defer r.mu.Unlock()
	servers := make(map[string]http.Handler, len(r.known))
	for name, server := range r.known {
		if version, group, ok := strings.Cut(name, "."); ok { // APIServices are called VERSION.GROUP
			servers["/apis/"+group+"/"+version+"/"] = server
		}
	}
	return servers
}

// isCustomPath says whether a path that the API extensions server documents is a
// custom resource's: everything else is its own, which the built-in types contain.
func isCustomPath(path string) bool {
	return strings.HasPrefix(path, "/apis/") && path != "/apis/" && !strings.HasPrefix(path+"/", "/apis/apiextensions.k8s.io/")
}
