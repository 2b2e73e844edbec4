package kube

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	apidiscoveryv2 "k8s.io/api/apidiscovery/v2"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/managedfields"
	"k8s.io/apiserver/pkg/endpoints"
	"k8s.io/apiserver/pkg/endpoints/discovery"
	"k8s.io/apiserver/pkg/endpoints/discovery/aggregated"
	"k8s.io/apiserver/pkg/registry/rest"
	genericapiserver "k8s.io/apiserver/pkg/server"
	"k8s.io/client-go/kubernetes"
	"k8s.io/kube-openapi/pkg/builder3"
	"k8s.io/kube-openapi/pkg/util"
	"k8s.io/kubernetes/pkg/controlplane"
	controlplaneapiserver "k8s.io/kubernetes/pkg/controlplane/apiserver"
	"k8s.io/kubernetes/pkg/controlplane/controller/kubernetesservice"
)

// newKubeServer constructs the server of the built-in APIs. It is what upstream's
// controlplane.CompletedConfig.New makes, of the same parts, except that what is the
// same for all control planes of a process is shared between them: the converter of
// server-side apply, and the printers of tables. The caller holds constructMu.
func (p *parts) newKubeServer(config controlplane.CompletedConfig, delegate genericapiserver.DelegationTarget) (*genericapiserver.GenericAPIServer, error) {
	made, err := config.ControlPlane.New(controlplaneapiserver.KubeAPIServer, delegate)
	if err != nil {
		return nil, fmt.Errorf("API server: %w", err)
	}
	server := made.GenericAPIServer
	client, err := kubernetes.NewForConfig(p.generic.LoopbackClientConfig)
	if err != nil {
		return nil, fmt.Errorf("API server: %w", err)
	}
	providers, err := config.StorageProviders(client)
	if err != nil {
		return nil, fmt.Errorf("API server: %w", err)
	}
	if err := p.installAPIs(server, providers); err != nil {
		return nil, fmt.Errorf("API server: %w", err)
	}
	if err := p.installMetrics(server, config.Extra.KubeletClientConfig); err != nil {
		return nil, fmt.Errorf("API server: %w", err)
	}
	p.services = newServiceRange(p.opts.serviceRanges(), client, p.informers.Networking().V1().ServiceCIDRs().Lister())
	return server, p.addServiceHooks(server, config, client)
}

// addServiceHooks has the server keep the `kubernetes` Service and the default
// range of service addresses.
func (p *parts) addServiceHooks(server *genericapiserver.GenericAPIServer, config controlplane.CompletedConfig, client kubernetes.Interface) error {
	generic, extra := config.ControlPlane.Generic, config.Extra
	_, port, err := generic.SecureServing.HostPort()
	if err != nil {
		return fmt.Errorf("API server's address: %w", err)
	}
	reconciler := extra.EndpointReconcilerConfig.Reconciler
	if err := reconciler.ValidateIP(generic.PublicAddress); err != nil {
		return fmt.Errorf("API server's address: %w", err)
	}
	service := kubernetesservice.New(kubernetesservice.Config{
		PublicIP: generic.PublicAddress, PublicServicePort: port,
		EndpointReconciler: reconciler, EndpointInterval: extra.EndpointReconcilerConfig.Interval,
		ServiceIP: extra.APIServerServiceIP, ServicePort: extra.APIServerServicePort, KubernetesServiceNodePort: extra.KubernetesServiceNodePort,
	}, client, config.ControlPlane.Extra.VersionedInformers.Core().V1().Services())
	return errors.Join(
		server.AddPostStartHook(hookKubernetes, func(ctx genericapiserver.PostStartHookContext) error {
			service.Start(ctx.Done())
			return nil
		}),
		server.AddPreShutdownHook("stop-kubernetes-service-controller", func() error {
			service.Stop()
			return nil
		}),
		server.AddPostStartHook(hookServiceCIDR, func(ctx genericapiserver.PostStartHookContext) error {
			p.services.await(ctx) // Services are not allocated addresses before
			return nil
		}))
}

// installAPIs constructs the storage of all groups and serves them.
func (p *parts) installAPIs(server *genericapiserver.GenericAPIServer, providers []controlplaneapiserver.RESTStorageProvider) error {
	groups, err := p.apiGroups(server, providers)
	if err != nil {
		return err
	}
	p.findSeeds(groups)
	if err := shareTables(groups); err != nil {
		return err
	}
	if !p.disabled[hookServiceCIDR] { // somebody makes the range
		if err := gateServices(groups); err != nil {
			return err
		}
	}
	converter, err := sharedConverter(groups)
	if err != nil {
		return err
	}
	apis, described, err := p.builtIn(server, groups)
	if err != nil {
		return err
	}
	p.described = described
	server.EquivalentResourceRegistry = allRegistered{apis.equivalents}
	late := &lateResources{next: server.Handler.Director, of: map[schema.GroupVersionResource]*lateResource{}}
	for _, group := range groups {
		p.install(server, group, apis, late, converter)
	}
	server.Handler.Director = late // what delegates to this server asks for it later
	return nil
}

// apiGroups returns the groups that are enabled, in the order of discovery.
func (p *parts) apiGroups(server *genericapiserver.GenericAPIServer, providers []controlplaneapiserver.RESTStorageProvider) ([]*genericapiserver.APIGroupInfo, error) {
	expiry, err := genericapiserver.NewResourceExpirationEvaluatorFromOptions(genericapiserver.ResourceExpirationEvaluatorOptions{
		CurrentVersion:                          server.EffectiveVersion.EmulationVersion(),
		Prerelease:                              server.EffectiveVersion.BinaryVersion().PreRelease(),
		EmulationForwardCompatible:              server.EmulationForwardCompatible,
		RuntimeConfigEmulationForwardCompatible: server.RuntimeConfigEmulationForwardCompatible,
	})
	if err != nil {
		return nil, err
	}
	enabled := p.storage.APIResourceConfigSource
	all, err := p.storages(providers)
	if err != nil {
		return nil, err
	}
	var groups []*genericapiserver.APIGroupInfo
	for i, provider := range providers {
		group := &all[i]
		if len(group.VersionedResourcesStorageMap) > 0 {
			err = expiry.RemoveUnavailableKinds(provider.GroupName(), group.Scheme, group.VersionedResourcesStorageMap, enabled)
		}
		if err != nil {
			return nil, err
		}
		if len(group.VersionedResourcesStorageMap) == 0 {
			continue
		}
		if hooked, ok := provider.(genericapiserver.PostStartHookProvider); ok {
			name, hook, err := hooked.PostStartHook()
			if err != nil {
				return nil, err
			}
			if err := server.AddPostStartHook(name, hook); err != nil {
				return nil, err
			}
		}
		groups = append(groups, group)
	}
	return groups, nil
}

// builders is how many groups' storage is constructed at a time.
const builders = 2

// storages constructs the storage of the providers' groups, in their order. They have
// nothing to do with each other, and only read what they are made of.
func (p *parts) storages(providers []controlplaneapiserver.RESTStorageProvider) ([]genericapiserver.APIGroupInfo, error) {
	all := make([]genericapiserver.APIGroupInfo, len(providers))
	var building errgroup.Group
	building.SetLimit(builders)
	for i, provider := range providers {
		building.Go(func() (err error) {
			if all[i], err = provider.NewRESTStorage(p.storage.APIResourceConfigSource, p.generic.RESTOptionsGetter); err != nil {
				return fmt.Errorf("storage of API group %q: %w", provider.GroupName(), err)
			}
			return nil
		})
	}
	return all, building.Wait()
}

// install serves a group and puts it into discovery.
func (p *parts) install(server *genericapiserver.GenericAPIServer, group *genericapiserver.APIGroupInfo, apis *builtInAPIs, late *lateResources, converter managedfields.TypeConverter) {
	name := group.PrioritizedVersions[0].Group
	documents := server.AggregatedDiscoveryGroupManager
	if name == "" {
		documents = server.AggregatedLegacyDiscoveryGroupManager
	}
	found := metav1.APIGroup{Name: name}
	for _, version := range group.PrioritizedVersions {
		storage := group.VersionedResourcesStorageMap[version.Version]
		if len(storage) == 0 {
			continue
		}
		late.add(p, server, group, version, converter)
		server.Handler.GoRestfulContainer.Add(apis.discovery[version])
		documents.AddGroupVersion(name, apidiscoveryv2.APIVersionDiscovery{
			Freshness: apidiscoveryv2.DiscoveryFreshnessCurrent, Version: version.Version, Resources: slices.Clone(apis.documents[version]),
		})
		found.Versions = append(found.Versions, metav1.GroupVersionForDiscovery{GroupVersion: version.String(), Version: version.Version})
		own(server, version, storage)
	}
	if name == "" {
		legacy := discovery.NewLegacyRootAPIHandler(p.generic.DiscoveryAddresses, server.Serializer, genericapiserver.DefaultLegacyAPIPrefix)
		both := aggregated.WrapAggregatedDiscoveryToHandler(legacy, documents, documents)
		server.Handler.GoRestfulContainer.Add(both.GenerateWebService("/api", metav1.APIVersions{}))
		return
	}
	server.DiscoveryGroupManager.AddGroup(discovered(found, group))
	server.Handler.GoRestfulContainer.Add(apis.groups[name])
}

// own has the server wait for the storages of a version at its start, and end them
// with itself.
func own(server *genericapiserver.GenericAPIServer, version schema.GroupVersion, storage map[string]rest.Storage) {
	for resource, s := range storage {
		server.RegisterDestroyFunc(s.Destroy)
		if slow, ok := s.(rest.StorageWithReadiness); ok {
			server.StorageReadinessHook.RegisterStorage(metav1.GroupVersionResource{
				Group: version.Group, Version: version.Version, Resource: resource,
			}, slow)
		}
	}
}

// groupVersion describes a version of a group, or some of its storage, to upstream's
// installer.
func (p *parts) groupVersion(server *genericapiserver.GenericAPIServer, group *genericapiserver.APIGroupInfo, version schema.GroupVersion, storage map[string]rest.Storage, converter managedfields.TypeConverter) *endpoints.APIGroupVersion {
	return &endpoints.APIGroupVersion{
		Storage: storage, Root: apiRoot(version.Group), GroupVersion: version,
		AllServedVersionsByResource: served(group), OptionsExternalVersion: group.OptionsExternalVersion, MetaGroupVersion: group.MetaGroupVersion,
		Serializer: group.NegotiatedSerializer, ParameterCodec: group.ParameterCodec,
		Typer: group.Scheme, Creater: group.Scheme, Convertor: group.Scheme, ConvertabilityChecker: group.Scheme, Defaulter: group.Scheme,
		Namer: runtime.Namer(meta.NewAccessor()), UnsafeConvertor: runtime.UnsafeObjectConvertor(group.Scheme), TypeConverter: converter,
		EquivalentResourceRegistry: server.EquivalentResourceRegistry,
		Authorizer:                 p.generic.Authorization.Authorizer, Admit: p.generic.AdmissionControl,
		MinRequestTimeout: time.Duration(p.generic.MinRequestTimeout) * time.Second, MaxRequestBodyBytes: p.generic.MaxRequestBodyBytes,
	}
}

// converters are those of server-side apply, by the types that they know: one for
// hosts and one for tenants.
var converters = struct {
	sync.Mutex
	of map[string]managedfields.TypeConverter
}{of: map[string]managedfields.TypeConverter{}}

// sharedConverter returns the converter for the types of groups. The caller holds
// constructMu, because the definitions are written to.
func sharedConverter(groups []*genericapiserver.APIGroupInfo) (managedfields.TypeConverter, error) {
	names, err := typeNames(groups)
	if err != nil {
		return nil, err
	}
	converters.Lock()
	defer converters.Unlock()
	key := strings.Join(names, " ")
	if c, ok := converters.of[key]; ok {
		return c, nil
	}
	c, err := newConverter(names)
	if err != nil {
		return nil, err
	}
	converters.of[key] = &ownersConverter{TypeConverter: c}
	return converters.of[key], nil
}

// newConverter returns upstream's converter for types by OpenAPI's names.
func newConverter(names []string) (managedfields.TypeConverter, error) {
	models, err := builder3.BuildOpenAPIDefinitionsForResources(sharedOpenAPI().v3, names...)
	if err != nil {
		return nil, fmt.Errorf("schemas for server-side apply: %w", err)
	}
	c, err := managedfields.NewTypeConverter(models, false)
	if err != nil {
		return nil, fmt.Errorf("schemas for server-side apply: %w", err)
	}
	return c, nil
}

// typeNames returns OpenAPI's names of the types that groups serve, in order.
func typeNames(groups []*genericapiserver.APIGroupInfo) ([]string, error) {
	var names []string
	for _, group := range groups {
		for _, version := range group.PrioritizedVersions {
			for _, storage := range group.VersionedResourcesStorageMap[version.Version] {
				kind, err := endpoints.GetResourceKind(version, storage, group.Scheme)
				if err != nil {
					return nil, err
				}
				sample, err := group.Scheme.New(kind)
				if err != nil {
					return nil, err
				}
				names = append(names, util.GetCanonicalTypeName(sample))
			}
		}
	}
	slices.Sort(names)
	return slices.Compact(names), nil
}
