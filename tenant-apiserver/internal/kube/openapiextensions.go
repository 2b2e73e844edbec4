package kube

import (
	"fmt"
	"maps"
	"sync"

	extensionsopenapi "k8s.io/apiextensions-apiserver/pkg/generated/openapi"
	genericapiserver "k8s.io/apiserver/pkg/server"
	"k8s.io/kube-openapi/pkg/builder"
	"k8s.io/kube-openapi/pkg/common"
	"k8s.io/kube-openapi/pkg/common/restfuladapter"
	"k8s.io/kube-openapi/pkg/handler"
	"k8s.io/kube-openapi/pkg/handler3"
	"k8s.io/kube-openapi/pkg/validation/spec"
)

// extensionsOpenAPI is what the API extensions servers of a process share: the
// definitions of their own types, and the document of those, to which each of them adds
// its custom resources. Its methods must be called with constructMu held.
type extensionsOpenAPI struct {
	v2     *common.Config
	v3     *common.OpenAPIV3Config
	static *spec.Swagger // rendered by the first server; read only from then on
}

var sharedExtensions = sync.OnceValue(func() *extensionsOpenAPI {
	e := &extensionsOpenAPI{}
	e.v2, e.v3 = openAPIConfigs(extensionsopenapi.GetOpenAPIDefinitions)
	return e
})

// config returns the configuration of one server. Its builder writes to the extensions
// of definitions, and a server that runs reads in what was built of them: so each has
// those of its own, while what is below them is shared and not written to.
func (e *extensionsOpenAPI) config() *common.OpenAPIV3Config {
	own := *e.v3
	own.Definitions = make(map[string]common.OpenAPIDefinition, len(e.v3.Definitions))
	for name, d := range e.v3.Definitions {
		d.Schema.Extensions = maps.Clone(d.Schema.Extensions)
		own.Definitions[name] = d
	}
	return &own
}

// serve has a constructed server serve the documents of its custom resources. Those of
// its own types are among the built-in ones (openAPI.install).
func (e *extensionsOpenAPI) serve(server *genericapiserver.GenericAPIServer) error {
	if e.static == nil {
		routes := restfuladapter.AdaptWebServices(server.Handler.GoRestfulContainer.RegisteredWebServices())
		static, err := builder.BuildOpenAPISpecFromRoutes(routes, e.v2)
		if err != nil {
			return fmt.Errorf("OpenAPI of API extensions: %w", err)
		}
		static.Definitions = handler.PruneDefaults(static.Definitions)
		e.static = static
	}
	server.StaticOpenAPISpec = e.static
	server.OpenAPIVersionedService = handler.NewOpenAPIService(e.static)
	server.OpenAPIVersionedService.RegisterOpenAPIVersionedService(openAPIV2Path, server.Handler.NonGoRestfulMux)
	server.OpenAPIV3VersionedService = handler3.NewOpenAPIService()
	if err := server.OpenAPIV3VersionedService.RegisterOpenAPIV3VersionedService(openAPIV3, server.Handler.NonGoRestfulMux); err != nil {
		return fmt.Errorf("OpenAPI of API extensions: %w", err)
	}
	return nil
}
