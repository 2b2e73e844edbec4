package kube

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"

	restful "github.com/emicklei/go-restful/v3"
	openapinamer "k8s.io/apiserver/pkg/endpoints/openapi"
	genericapiserver "k8s.io/apiserver/pkg/server"
	"k8s.io/apiserver/pkg/server/mux"
	"k8s.io/apiserver/pkg/server/routes"
	openapiutil "k8s.io/apiserver/pkg/util/openapi"
	"k8s.io/kube-openapi/pkg/common"
	"k8s.io/kube-openapi/pkg/handler3"
	generatedopenapi "k8s.io/kubernetes/pkg/generated/openapi"
)

const openAPIV3 = "/openapi/v3"

// openAPI is the process's OpenAPI: definitions of built-in types, and the
// documents made of them, which are equal for all control planes. The
// documents are rendered by the first server that is constructed. Its methods
// but the handler's must be called with constructMu held, because
// kube-openapi's builders write to the definitions.
type openAPI struct {
	v2 *common.Config
	v3 *common.OpenAPIV3Config

	handler http.Handler
	groups  map[string]handler3.OpenAPIV3DiscoveryGroupVersion
	// discovery says where the documents of version 3 are, as long as there are no others.
	discovery []byte
}

var constructMu sync.Mutex

var sharedOpenAPI = sync.OnceValue(func() *openAPI {
	o := &openAPI{}
	o.v2, o.v3 = openAPIConfigs(generatedopenapi.GetOpenAPIDefinitions)
	return o
})

func openAPIConfigs(get common.GetOpenAPIDefinitions) (*common.Config, *common.OpenAPIV3Config) {
	definitions := openapiutil.GetOpenAPIDefinitionsWithoutDisabledFeatures(get)
	namer := openapinamer.NewDefinitionNamer(schemes()...)
	v2 := genericapiserver.DefaultOpenAPIConfig(definitions, namer)
	v3 := genericapiserver.DefaultOpenAPIV3Config(definitions, namer)
	v2.Info.Title, v3.Info.Title = "Kubernetes", "Kubernetes"
	return v2, v3
}

func (o *openAPI) configs() (*common.Config, *common.OpenAPIV3Config) { return o.v2, o.v3 }

// render makes the documents from the servers' routes, once per process.
func (o *openAPI) render(servers ...*restful.Container) error {
	if o.handler != nil {
		return nil
	}
	container := restful.NewContainer()
	for _, server := range servers {
		if server == nil {
			return errors.New("render OpenAPI: the routes are not described")
		}
		addServices(container, server)
	}
	m := mux.NewPathRecorderMux("openapi")
	routes.OpenAPI{Config: o.v2}.InstallV2(container, m)
	routes.OpenAPI{V3Config: o.v3}.InstallV3(container, m)
	// Upstream renders at the first request; that must be over before the
	// next construction writes to the definitions.
	groups, err := v3Groups(m)
	if err != nil {
		return fmt.Errorf("render OpenAPI: %w", err)
	}
	if err := get(m, openAPIV2Path, &buffer{}); err != nil {
		return fmt.Errorf("render OpenAPI: %w", err)
	}
	if o.discovery, err = json.Marshal(handler3.OpenAPIV3Discovery{Paths: groups}); err != nil {
		return fmt.Errorf("render OpenAPI: %w", err)
	}
	o.groups, o.handler = groups, m
	return nil
}

// addServices adds the services of a container that are not in another yet. A
// second one of a path ends the process.
func addServices(to, from *restful.Container) {
	there := map[string]bool{}
	for _, s := range to.RegisteredWebServices() {
		there[s.RootPath()] = true
	}
	for _, s := range from.RegisteredWebServices() {
		if !there[s.RootPath()] {
			to.Add(s)
		}
	}
}

// install serves the shared documents on m, and those of custom resources from
// the API extensions server; v2 has those of version 2.
func (o *openAPI) install(m *mux.PathRecorderMux, extensions http.Handler, v2 *openAPIV2) {
	v2.builtIn, v2.extensions = o.handler, extensions
	m.Handle(openAPIV2Path, v2)
	m.Handle(openAPIV3, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		groups, err := v3Groups(extensions)
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		if len(groups) == 0 {
			_, _ = w.Write(o.discovery) // an error here is the client's connection's
			return
		}
		for path, group := range o.groups {
			groups[path] = group
		}
		// An error here is the client's connection's.
		_ = json.NewEncoder(w).Encode(handler3.OpenAPIV3Discovery{Paths: groups})
	}))
	m.HandlePrefix(openAPIV3+"/", http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if _, ok := o.groups[strings.TrimPrefix(req.URL.Path, openAPIV3+"/")]; ok {
			o.handler.ServeHTTP(w, req)
			return
		}
		extensions.ServeHTTP(w, req)
	}))
}

// get asks a handler for a document.
func get(h http.Handler, path string, w *buffer) error {
	req, err := http.NewRequest(http.MethodGet, path, nil)
	if err != nil {
		return err
	}
	w.header, w.status = http.Header{}, http.StatusOK
	h.ServeHTTP(w, req)
	if w.status != http.StatusOK {
		return fmt.Errorf("%s answers %d", path, w.status)
	}
	return nil
}

// v3Groups reads a handler's OpenAPI v3 discovery document.
func v3Groups(h http.Handler) (map[string]handler3.OpenAPIV3DiscoveryGroupVersion, error) {
	w := &buffer{}
	if err := get(h, openAPIV3, w); err != nil {
		return nil, err
	}
	discovery := handler3.OpenAPIV3Discovery{}
	if err := json.Unmarshal(w.body.Bytes(), &discovery); err != nil {
		return nil, fmt.Errorf("OpenAPI discovery: %w", err)
	}
	if discovery.Paths == nil {
		discovery.Paths = map[string]handler3.OpenAPIV3DiscoveryGroupVersion{}
	}
	return discovery.Paths, nil
}
