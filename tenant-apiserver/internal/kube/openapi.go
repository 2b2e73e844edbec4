package kube

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"

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
// documents made of them, which are equal for all control planes. The first server
// that is constructed says of which routes; they are rendered when somebody asks for
// them, or for RenderOpenAPI, whichever is first, because that takes longer than all the
// rest of a start. configs and describe must be called with constructMu held, because
// kube-openapi's builders write to the definitions.
type openAPI struct {
	v2 *common.Config
	v3 *common.OpenAPIV3Config

	rendering sync.Mutex                       // held while documents are rendered
	done      atomic.Pointer[openAPIDocuments] // nil: they are not rendered yet
	described atomic.Bool                      // routes are known
	routes    []*restful.WebService            // to render; guarded by rendering
	paths     []string                         // of the versions among routes; written before described
	version   string                           // of the API, as upstream completed it; written before described
}

// openAPIDocuments are what was rendered. Nothing writes to it.
type openAPIDocuments struct {
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

// describe says what the documents are of, once per process: the routes that were
// described, and those of servers. Nothing may write to them any more.
func (o *openAPI) describe(containers ...*restful.Container) {
	there := map[string]bool{}
	for _, c := range containers {
		for _, service := range c.RegisteredWebServices() {
			if there[service.RootPath()] { // a second one of a path ends the process
				continue
			}
			there[service.RootPath()] = true
			o.routes = append(o.routes, service)
			if path := strings.Trim(service.RootPath(), "/"); path == "api/v1" || strings.Count(path, "/") == 2 && strings.HasPrefix(path, "apis/") {
				o.paths = append(o.paths, path)
			}
		}
	}
	o.version = o.v2.Info.Version
	o.described.Store(true)
}

// RenderOpenAPI makes the process's OpenAPI documents, unless they are there or there has
// been no control plane yet. Requests for them would do so, and wait for it.
func RenderOpenAPI() error {
	if !sharedOpenAPI().described.Load() {
		return nil
	}
	_, err := sharedOpenAPI().documents()
	return err
}

// documents returns the documents, rendering them the first time.
func (o *openAPI) documents() (*openAPIDocuments, error) {
	if d := o.done.Load(); d != nil {
		return d, nil
	}
	o.rendering.Lock()
	defer o.rendering.Unlock()
	if d := o.done.Load(); d != nil {
		return d, nil
	}
	d, err := renderOpenAPI(o.routes, o.version)
	if err != nil {
		return nil, fmt.Errorf("render OpenAPI: %w", err)
	}
	o.routes = nil
	o.done.Store(d)
	return d, nil
}

// renderOpenAPI makes documents of routes. It has definitions of its own: constructions
// go on meanwhile.
func renderOpenAPI(of []*restful.WebService, version string) (*openAPIDocuments, error) {
	container := restful.NewContainer()
	for _, service := range of {
		container.Add(service)
	}
	v2, v3 := openAPIConfigs(generatedopenapi.GetOpenAPIDefinitions)
	v2.Info.Version, v3.Info.Version = version, version
	m := mux.NewPathRecorderMux("openapi")
	routes.OpenAPI{Config: v2}.InstallV2(container, m)
	routes.OpenAPI{V3Config: v3}.InstallV3(container, m)
	// Upstream renders at the first request.
	groups, err := v3Groups(m)
	if err != nil {
		return nil, err
	}
	if err := get(m, openAPIV2Path, &buffer{}); err != nil {
		return nil, err
	}
	discovery, err := json.Marshal(handler3.OpenAPIV3Discovery{Paths: groups})
	if err != nil {
		return nil, err
	}
	return &openAPIDocuments{handler: m, groups: groups, discovery: discovery}, nil
}

// ServeHTTP serves the documents of built-in types.
func (o *openAPI) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	d, err := o.documents()
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	d.handler.ServeHTTP(w, req)
}

// install serves the shared documents on m, and those of custom resources from
// the API extensions server; v2 has those of version 2.
func (o *openAPI) install(m *mux.PathRecorderMux, extensions http.Handler, v2 *openAPIV2) {
	v2.builtIn, v2.extensions = o, extensions
	m.Handle(openAPIV2Path, v2)
	m.Handle(openAPIV3, http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		document, err := o.discovery(req, extensions)
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(document) // an error here is the client's connection's
	}))
	m.HandlePrefix(openAPIV3+"/", http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		d, err := o.documents()
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		if _, ok := d.groups[strings.TrimPrefix(req.URL.Path, openAPIV3+"/")]; ok {
			d.handler.ServeHTTP(w, req)
			return
		}
		extensions.ServeHTTP(w, req)
	}))
}

// discovery says where the documents of version 3 are. Admission of this process asks so
// as it begins: to it, documents that are not rendered yet have addresses without
// their digests, which are served too, once somebody wants to read one.
func (o *openAPI) discovery(req *http.Request, extensions http.Handler) ([]byte, error) {
	groups, err := v3Groups(extensions)
	if err != nil {
		return nil, err
	}
	if o.done.Load() == nil && fromLoopback(req.Context()) {
		for _, path := range o.paths {
			groups[path] = handler3.OpenAPIV3DiscoveryGroupVersion{ServerRelativeURL: openAPIV3 + "/" + path}
		}
		return json.Marshal(handler3.OpenAPIV3Discovery{Paths: groups})
	}
	d, err := o.documents()
	if err != nil {
		return nil, err
	}
	if len(groups) == 0 {
		return d.discovery, nil
	}
	maps.Copy(groups, d.groups)
	return json.Marshal(handler3.OpenAPIV3Discovery{Paths: groups})
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
