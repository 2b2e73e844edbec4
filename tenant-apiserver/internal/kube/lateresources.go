package kube

import (
	"fmt"
	"maps"
	"net/http"
	"strings"
	"sync"

	restful "github.com/emicklei/go-restful/v3"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/managedfields"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apiserver/pkg/endpoints/handlers/responsewriters"
	"k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/apiserver/pkg/registry/rest"
	genericapiserver "k8s.io/apiserver/pkg/server"
)

// lateResources stands before upstream's router of the built-in APIs. It installs the
// routes of a resource when somebody asks for it for the first time, who waits for
// that: to install all takes longer than the rest of a start, and most control planes
// are asked for few. Everything else, discovery and what does not exist included, is
// upstream's router's.
type lateResources struct {
	next http.Handler
	of   map[schema.GroupVersionResource]*lateResource // not written to once it serves
}

// lateResource is one resource with its subresources, in one version.
type lateResource struct {
	install func() (*restful.Container, error)
	once    sync.Once
	routes  *restful.Container // set by once; nil: it could not be installed
	err     error              // why not
}

// pathsOf reads requests that upstream's filters have not.
var pathsOf = request.RequestInfoFactory{
	APIPrefixes:          sets.NewString(strings.Trim(genericapiserver.APIGroupPrefix, "/"), strings.Trim(genericapiserver.DefaultLegacyAPIPrefix, "/")),
	GrouplessAPIPrefixes: sets.NewString(strings.Trim(genericapiserver.DefaultLegacyAPIPrefix, "/")),
}

// ServeHTTP implements http.Handler.
func (r *lateResources) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	info, ok := request.RequestInfoFrom(req.Context())
	if !ok {
		var err error
		if info, err = pathsOf.NewRequestInfo(req); err != nil {
			r.next.ServeHTTP(w, req)
			return
		}
	}
	of := schema.GroupVersionResource{Group: info.APIGroup, Version: info.APIVersion, Resource: info.Resource}
	if found := r.of[of]; found != nil && info.IsResourceRequest {
		found.ServeHTTP(w, req)
		return
	}
	r.next.ServeHTTP(w, req)
}

// ServeHTTP implements http.Handler.
func (r *lateResource) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	r.once.Do(func() { r.routes, r.err = r.install() })
	if r.routes == nil {
		responsewriters.InternalError(w, req, fmt.Errorf("the resource cannot be served: %w", r.err))
		return
	}
	r.routes.Dispatch(w, req)
}

// add takes over the resources of a version of a group.
func (r *lateResources) add(p *parts, server *genericapiserver.GenericAPIServer, group *genericapiserver.APIGroupInfo, version schema.GroupVersion, converter managedfields.TypeConverter) {
	families := map[string]map[string]rest.Storage{}
	for path, storage := range group.VersionedResourcesStorageMap[version.Version] {
		name, _, _ := strings.Cut(path, "/")
		if families[name] == nil {
			families[name] = map[string]rest.Storage{}
		}
		families[name][path] = storage
	}
	for name, storage := range families {
		r.of[version.WithResource(name)] = &lateResource{install: func() (*restful.Container, error) {
			container := newContainer(server.Serializer)
			if _, _, err := p.groupVersion(server, group, version, storage, converter).InstallREST(container); err != nil {
				return nil, err
			}
			return container, shareRoutes(container)
		}}
	}
}

// newContainer is a container like that of upstream's API servers, errors included.
func newContainer(codecs runtime.NegotiatedSerializer) *restful.Container {
	asItIs := func(h http.Handler) http.Handler { return h }
	return genericapiserver.NewAPIServerHandler("resource", codecs, asItIs, http.NotFoundHandler()).GoRestfulContainer
}

// served returns the versions that have each resource of a group, as upstream's
// installer wants them.
func served(group *genericapiserver.APIGroupInfo) map[string][]string {
	all := map[string][]string{}
	for version, resources := range group.VersionedResourcesStorageMap {
		for resource := range maps.Keys(resources) {
			all[resource] = append(all[resource], schema.GroupVersion{Group: group.PrioritizedVersions[0].Group, Version: version}.String())
		}
	}
	return all
}
