package kube

import (
	"encoding/json"
	"fmt"
	"net/http"
	"reflect"
	"slices"
	"strings"

	restful "github.com/emicklei/go-restful/v3"
	apidiscoveryv2 "k8s.io/api/apidiscovery/v2"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/managedfields"
	"k8s.io/apiserver/pkg/endpoints/discovery"
	"k8s.io/apiserver/pkg/registry/rest"
	genericapiserver "k8s.io/apiserver/pkg/server"
	"k8s.io/kubernetes/pkg/api/legacyscheme"
)

// apiRecord is what upstream's installer says of the built-in APIs: their discovery
// documents, and which resources are the same objects. It is equal for all control
// planes that serve the same storages, and has nothing of any of them.
type apiRecord struct {
	Versions    []versionRecord
	Equivalents []equivalentRecord
}

// versionRecord is one version of a group in the two forms of discovery.
type versionRecord struct {
	Group     string
	Version   string
	Resources []metav1.APIResource
	Documents []apidiscoveryv2.APIResourceDiscovery
}

// equivalentRecord is a resource that upstream's installer registered. Those with the
// same key are the same objects.
type equivalentRecord struct {
	Resource    schema.GroupVersionResource
	Subresource string
	Kind        schema.GroupVersionKind
	Key         string
}

// builtInAPIs is a record as control planes use it, which none of them writes to.
type builtInAPIs struct {
	documents   map[schema.GroupVersion][]apidiscoveryv2.APIResourceDiscovery
	discovery   map[schema.GroupVersion]*restful.WebService
	groups      map[string]*restful.WebService
	equivalents runtime.EquivalentResourceRegistry
}

// recorded are the process's, by the storages that they are of: one for hosts and one
// for tenants. constructMu guards it.
var recorded = map[string]*builtInAPIs{}

// apiKey says which storages groups have.
func apiKey(groups []*genericapiserver.APIGroupInfo) string {
	var names []string
	for _, group := range groups {
		for version, resources := range group.VersionedResourcesStorageMap {
			for path, storage := range resources {
				names = append(names, fmt.Sprint(group.PrioritizedVersions[0].Group, "/", version, "/", path, " ", reflect.TypeOf(storage)))
			}
		}
	}
	slices.Sort(names)
	return strings.Join(names, "\n")
}

// builtIn returns what is known of the groups' APIs. The first time it has upstream's
// installer install all of them, in a container that nobody is served from; described
// is that, and nil otherwise. The caller holds constructMu.
func (p *parts) builtIn(server *genericapiserver.GenericAPIServer, groups []*genericapiserver.APIGroupInfo) (apis *builtInAPIs, described *restful.Container, err error) {
	key := apiKey(groups)
	if known := recorded[key]; known != nil && sharedOpenAPI().described.Load() {
		return known, nil, nil
	}
	record, described, err := p.describe(server, groups)
	if err != nil {
		return nil, nil, fmt.Errorf("describe the APIs: %w", err)
	}
	if apis, err = record.use(groups); err != nil {
		return nil, nil, err
	}
	recorded[key] = apis
	return apis, described, nil
}

// describe records what the installer says of groups.
func (p *parts) describe(server *genericapiserver.GenericAPIServer, groups []*genericapiserver.APIGroupInfo) (*apiRecord, *restful.Container, error) {
	container, record := newContainer(server.Serializer), &apiRecord{}
	into := &recorder{record: record, keyOf: func(r schema.GroupResource) string {
		options, err := p.generic.RESTOptionsGetter.GetRESTOptions(r, nil)
		if err != nil {
			return ""
		}
		return options.ResourcePrefix
	}}
	for _, group := range groups {
		if name := group.PrioritizedVersions[0].Group; name != "" {
			container.Add(discovery.NewAPIGroupHandler(legacyscheme.Codecs, metav1.APIGroup{Name: name}).WebService())
		}
		for _, version := range group.PrioritizedVersions {
			storage := group.VersionedResourcesStorageMap[version.Version]
			if len(storage) == 0 {
				continue
			}
			described := p.groupVersion(server, group, version, storage, managedfields.NewDeducedTypeConverter())
			described.EquivalentResourceRegistry = into
			documents, _, err := described.InstallREST(container)
			if err != nil {
				return nil, nil, err
			}
			list, err := listed(container, described.Root, version)
			if err != nil {
				return nil, nil, err
			}
			record.Versions = append(record.Versions, versionRecord{version.Group, version.Version, list, documents})
		}
	}
	return record, container, nil
}

// listed asks a container for the resources of a version.
func listed(container *restful.Container, root string, version schema.GroupVersion) ([]metav1.APIResource, error) {
	answer, list := &buffer{}, metav1.APIResourceList{}
	path := strings.TrimSuffix(root, "/") + "/" + strings.TrimPrefix(version.String(), "/")
	if err := get(http.HandlerFunc(container.Dispatch), path, answer); err != nil {
		return nil, err
	}
	if err := json.Unmarshal(answer.body.Bytes(), &list); err != nil {
		return nil, fmt.Errorf("resources of %s: %w", version, err)
	}
	return list.APIResources, nil
}

// use makes a record usable for control planes that serve groups. What it has not of
// them, or has of others, is an error.
func (r *apiRecord) use(groups []*genericapiserver.APIGroupInfo) (*builtInAPIs, error) {
	keys := map[schema.GroupResource]string{}
	for _, e := range r.Equivalents {
		keys[e.Resource.GroupResource()] = e.Key
	}
	apis := &builtInAPIs{
		documents: map[schema.GroupVersion][]apidiscoveryv2.APIResourceDiscovery{}, discovery: map[schema.GroupVersion]*restful.WebService{},
		groups:      map[string]*restful.WebService{},
		equivalents: runtime.NewEquivalentResourceRegistryWithIdentity(func(r schema.GroupResource) string { return keys[r] }),
	}
	for _, e := range r.Equivalents {
		apis.equivalents.RegisterKindFor(e.Resource, e.Subresource, e.Kind)
	}
	for _, v := range r.Versions {
		version := schema.GroupVersion{Group: v.Group, Version: v.Version}
		service := new(restful.WebService).Path(apiRoot(v.Group) + "/" + version.String()).Consumes("*/*")
		discovery.NewAPIVersionHandler(legacyscheme.Codecs, version, discovery.APIResourceListerFunc(func() []metav1.APIResource { return v.Resources })).AddToWebService(service)
		apis.documents[version], apis.discovery[version] = v.Documents, service
	}
	for _, group := range groups {
		found := metav1.APIGroup{Name: group.PrioritizedVersions[0].Group}
		for _, version := range group.PrioritizedVersions {
			storage := group.VersionedResourcesStorageMap[version.Version]
			if len(storage) == 0 {
				continue
			}
			if err := apis.complete(version, storage, r); err != nil {
				return nil, err
			}
			found.Versions = append(found.Versions, metav1.GroupVersionForDiscovery{GroupVersion: version.String(), Version: version.Version})
		}
		if found.Name != "" {
			apis.groups[found.Name] = discovery.NewAPIGroupHandler(legacyscheme.Codecs, discovered(found, group)).WebService()
		}
	}
	services := newContainer(legacyscheme.Codecs)
	for _, service := range apis.discovery {
		services.Add(service)
	}
	for _, service := range apis.groups {
		services.Add(service)
	}
	// They serve many control planes, and are not written to from now on.
	return apis, shareRoutes(services)
}

// discovered is a group in discovery.
func discovered(found metav1.APIGroup, group *genericapiserver.APIGroupInfo) metav1.APIGroup {
	first := group.PrioritizedVersions[0]
	found.PreferredVersion = metav1.GroupVersionForDiscovery{GroupVersion: first.String(), Version: first.Version}
	return found
}

// complete fails unless the record has all resources of a version's storages.
func (b *builtInAPIs) complete(version schema.GroupVersion, storage map[string]rest.Storage, record *apiRecord) error {
	at := slices.IndexFunc(record.Versions, func(v versionRecord) bool { return v.Group == version.Group && v.Version == version.Version })
	if at < 0 {
		return fmt.Errorf("no record of %s, as Kubernetes %s had it: review internal/kube", version, Version)
	}
	for path := range storage {
		resource, subresource, _ := strings.Cut(path, "/")
		of := version.WithResource(resource)
		if b.equivalents.KindFor(of, subresource).Empty() {
			return fmt.Errorf("no record of %s in %s: the installer is not what it was in Kubernetes %s: review internal/kube", path, version, Version)
		}
	}
	return nil
}

// apiRoot is where the versions of a group are.
func apiRoot(group string) string {
	if group == "" {
		return genericapiserver.DefaultLegacyAPIPrefix
	}
	return genericapiserver.APIGroupPrefix
}

// recorder writes down what an installer registers.
type recorder struct {
	runtime.EquivalentResourceRegistry
	record *apiRecord
	keyOf  func(schema.GroupResource) string
}

// RegisterKindFor implements runtime.EquivalentResourceRegistry.
func (r *recorder) RegisterKindFor(resource schema.GroupVersionResource, subresource string, kind schema.GroupVersionKind) {
	r.record.Equivalents = append(r.record.Equivalents, equivalentRecord{resource, subresource, kind, r.keyOf(resource.GroupResource())})
}

// allRegistered is a registry that has everything already.
type allRegistered struct {
	runtime.EquivalentResourceRegistry
}

// RegisterKindFor implements runtime.EquivalentResourceRegistry.
func (allRegistered) RegisterKindFor(schema.GroupVersionResource, string, schema.GroupVersionKind) {}
