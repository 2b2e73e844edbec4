package kube

import (
	"context"
	"fmt"
	"sync"

	apidiscoveryv2 "k8s.io/api/apidiscovery/v2"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	"k8s.io/apiserver/pkg/endpoints/discovery/aggregated"
	genericapiserver "k8s.io/apiserver/pkg/server"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/transport"
	apiregistrationv1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"
	aggregatorapiserver "k8s.io/kube-aggregator/pkg/apiserver"
	apiregistrationclient "k8s.io/kube-aggregator/pkg/client/clientset_generated/clientset/typed/apiregistration/v1"
	openapicontroller "k8s.io/kube-aggregator/pkg/controllers/openapiv3"
	openapiaggregator "k8s.io/kube-aggregator/pkg/controllers/openapiv3/aggregator"
	availabilitymetrics "k8s.io/kube-aggregator/pkg/controllers/status/metrics"
	"k8s.io/kube-aggregator/pkg/controllers/status/remote"
)

// availabilityWorkers is how many API servers are asked at a time whether they are
// there. Each may take six seconds.
const availabilityWorkers = 3

// remotes looks after the APIServices that point to servers of the tenant's: their
// discovery documents, OpenAPI, and whether they answer. Most tenants have none,
// so upstream's controllers for that are made and run when the first one appears;
// upstream's own hooks for them are switched off (fragile.go).
type remotes struct {
	life     context.Context
	parts    *parts
	server   *aggregatorapiserver.APIAggregator
	resolver aggregatorapiserver.ServiceResolver
	dial     *transport.DialHolder
	cert     func() (certPEM, keyPEM []byte)

	mu      sync.Mutex
	closed  bool
	known   map[string]*remoteServer // by the APIService's name
	running *remoteLoops             // nil until the first one appears
	wg      sync.WaitGroup
}

// remoteLoops are upstream's controllers.
type remoteLoops struct {
	discovery aggregatorapiserver.DiscoveryAggregationController
	openAPI   *openapicontroller.AggregationController
}

func (p *parts) newRemotes(server *aggregatorapiserver.APIAggregator, resolver aggregatorapiserver.ServiceResolver) (*remotes, error) {
	r := &remotes{
		life: p.life, parts: p, server: server, resolver: resolver,
		dial: &transport.DialHolder{Dial: p.dial.outside}, known: map[string]*remoteServer{},
		cert: p.proxy.credentials,
	}
	seen, err := server.APIRegistrationInformers.Apiregistration().V1().APIServices().Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: r.changed, UpdateFunc: func(_, obj any) { r.changed(obj) }, DeleteFunc: r.deleted,
	})
	if err != nil {
		return nil, fmt.Errorf("aggregator: %w", err)
	}
	// Ready means that discovery has all groups.
	err = server.GenericAPIServer.AddPostStartHook("apiservice-remote", func(ctx genericapiserver.PostStartHookContext) error {
		cache.WaitForCacheSync(ctx.Done(), seen.HasSynced)
		return nil
	})
	return r, err
}

// changed takes notice of an APIService.
func (r *remotes) changed(obj any) {
	service, ok := obj.(*apiregistrationv1.APIService)
	if !ok {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if service.Spec.Service == nil {
		r.forget(service.Name)
		return
	}
	if err := r.start(); err != nil {
		utilruntime.HandleError(err)
		return
	}
	server, known := r.known[service.Name]
	if !known {
		server = &remoteServer{resolver: r.resolver}
		r.known[service.Name] = server
		r.announce(service)
	}
	certPEM, keyPEM := r.cert()
	server.update(service, remote.BuildTransportConfig(r.dial, certPEM, keyPEM, service))
	r.running.discovery.AddAPIService(service, server)
	if known {
		r.running.openAPI.UpdateAPIService(server, service)
	} else {
		r.running.openAPI.AddAPIService(server, service)
	}
}

func (r *remotes) deleted(obj any) {
	if gone, ok := obj.(cache.DeletedFinalStateUnknown); ok {
		obj = gone.Obj
	}
	if service, ok := obj.(*apiregistrationv1.APIService); ok {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.forget(service.Name)
	}
}

// forget drops an APIService that is gone or has become a local one. The caller
// holds mu.
func (r *remotes) forget(name string) {
	if _, ok := r.known[name]; !ok {
		return
	}
	delete(r.known, name)
	r.running.discovery.RemoveAPIService(name)
	r.running.openAPI.RemoveAPIService(name)
}

// announce shows a group in discovery before its server has been asked, marked as
// stale: who deletes a namespace must not take it for one that does not exist. The
// caller holds mu.
func (r *remotes) announce(service *apiregistrationv1.APIService) {
	shown := r.discoveryDocument()
	shown.AddGroupVersion(service.Spec.Group, apidiscoveryv2.APIVersionDiscovery{
		Version: service.Spec.Version, Freshness: apidiscoveryv2.DiscoveryFreshnessStale,
	})
	shown.SetGroupVersionPriority(metav1.GroupVersion{Group: service.Spec.Group, Version: service.Spec.Version},
		int(service.Spec.GroupPriorityMinimum), int(service.Spec.VersionPriority))
}

func (r *remotes) discoveryDocument() aggregated.ResourceManager {
	return r.parts.generic.AggregatedDiscoveryGroupManager.WithSource(aggregated.AggregatorSource)
}

// start runs upstream's controllers. The caller holds mu.
func (r *remotes) start() error {
	if r.closed {
		return errNotServing
	}
	if r.running != nil {
		return nil
	}
	client, err := apiregistrationclient.NewForConfig(r.parts.generic.LoopbackClientConfig)
	if err != nil {
		return fmt.Errorf("aggregator: %w", err)
	}
	availability, err := remote.New(
		r.server.APIRegistrationInformers.Apiregistration().V1().APIServices(),
		r.parts.informers.Core().V1().Services(), r.parts.informers.Discovery().V1().EndpointSlices(),
		client, r.dial, r.cert, r.resolver, availabilitymetrics.New())
	if err != nil {
		return fmt.Errorf("availability of APIs: %w", err)
	}
	handler := r.server.GenericAPIServer
	documents, err := openapiaggregator.BuildAndRegisterAggregator(openapiaggregator.NewDownloader(),
		handler.NextDelegate(), nil, nil, handler.Handler.NonGoRestfulMux)
	if err != nil {
		return fmt.Errorf("OpenAPI of APIs: %w", err)
	}
	r.running = &remoteLoops{aggregatorapiserver.NewDiscoveryManager(r.discoveryDocument()), openapicontroller.NewAggregationController(documents)}
	r.wg.Go(func() { availability.Run(availabilityWorkers, r.life.Done()) })
	r.wg.Go(func() { r.running.discovery.Run(r.life.Done(), nil) })
	r.wg.Go(func() { r.running.openAPI.RunWithContext(r.life) })
	return nil
}

// wait waits for the controllers; the instance's life must have ended.
func (r *remotes) wait() {
	r.mu.Lock()
	r.closed = true
	r.mu.Unlock()
	r.wg.Wait()
}
