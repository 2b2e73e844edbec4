package kube

import (
	"fmt"
	"maps"
	_ "unsafe" // for go:linkname

	apiextensionsapiserver "k8s.io/apiextensions-apiserver/pkg/apiserver"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/endpoints/discovery/aggregated"
	genericapiserver "k8s.io/apiserver/pkg/server"
	apiregistrationv1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"
	apiregistrationv1beta1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1beta1"
	aggregatorapiserver "k8s.io/kube-aggregator/pkg/apiserver"
	aggregatorscheme "k8s.io/kube-aggregator/pkg/apiserver/scheme"
	_ "k8s.io/kubernetes/cmd/kube-apiserver/app" // for apiVersionPriorities
	controlplaneapiserver "k8s.io/kubernetes/pkg/controlplane/apiserver"
)

// The priorities of built-in groups in discovery documents, which kubectl's output
// follows.
//
//go:linkname apiVersionPriorities k8s.io/kubernetes/cmd/kube-apiserver/app.apiVersionPriorities
var apiVersionPriorities map[schema.GroupVersion]controlplaneapiserver.APIServicePriority

// priorities are those, and that of metrics.
func priorities() map[schema.GroupVersion]controlplaneapiserver.APIServicePriority {
	all := maps.Clone(apiVersionPriorities)
	maps.Copy(all, metricsVersion)
	return all
}

// checkPriorities fails when upstream's table is not where it was.
func checkPriorities() error {
	if apiVersionPriorities[schema.GroupVersion{Group: "apps", Version: "v1"}].Group == 0 {
		return fmt.Errorf("the priorities of API groups are not where they were in Kubernetes %s: review internal/kube", Version)
	}
	return nil
}

// aggregator is upstream's aggregator in front of the API server: APIService
// objects, those of built-in groups and custom resources made by upstream's
// autoregister controller, /apis made of them, and requests passed on to where they
// point. What it takes to know other servers' documents and health runs once there
// is one (remote.go).
type aggregator struct {
	*aggregatorapiserver.APIAggregator
	remotes *remotes
}

// buildAggregator constructs the aggregator in front of kube. The caller holds
// constructMu.
func (p *parts) buildAggregator(kube *genericapiserver.GenericAPIServer, extensions *apiextensionsapiserver.CustomResourceDefinitions, resolver aggregatorapiserver.ServiceResolver) (*aggregator, error) {
	config, err := p.aggregatorConfig(resolver)
	if err != nil {
		return nil, err
	}
	crds := extensions.Informers.Apiextensions().V1().CustomResourceDefinitions()
	server, err := controlplaneapiserver.CreateAggregatorServer(config.Complete(), kube, crds, true, priorities())
	if err != nil {
		return nil, fmt.Errorf("aggregator: %w", err)
	}
	// Upstream's discovery controller would do so as it starts.
	p.generic.AggregatedDiscoveryGroupManager.WithSource(aggregated.BuiltinSource).SetGroupVersionPriority(
		metav1.GroupVersion(apiregistrationv1.SchemeGroupVersion), aggregatorapiserver.APIRegistrationGroupPriority, 0)
	remotes, err := p.newRemotes(server, resolver)
	if err != nil {
		return nil, err
	}
	if err := trim(server, remotes.cert); err != nil {
		return nil, err
	}
	if err := handleBuiltIn(server, builtInVersions(kube)); err != nil {
		return nil, err
	}
	return &aggregator{server, remotes}, nil
}

func (p *parts) aggregatorConfig(resolver aggregatorapiserver.ServiceResolver) (*aggregatorapiserver.Config, error) {
	generic := *p.generic
	generic.PostStartHooks = map[string]genericapiserver.PostStartHookConfigEntry{}
	generic.RESTOptionsGetter = nil

	etcd := *p.run.Etcd
	etcd.StorageConfig.Codec = aggregatorscheme.Codecs.LegacyCodec(apiregistrationv1.SchemeGroupVersion, apiregistrationv1beta1.SchemeGroupVersion)
	etcd.StorageConfig.EncodeVersioner = runtime.NewMultiGroupVersioner(apiregistrationv1.SchemeGroupVersion, schema.GroupKind{Group: apiregistrationv1beta1.GroupName})
	etcd.SkipHealthEndpoints = true
	if err := etcd.ApplyTo(&generic); err != nil {
		return nil, fmt.Errorf("aggregator storage: %w", err)
	}
	if err := p.run.APIEnablement.ApplyTo(&generic, aggregatorapiserver.DefaultAPIResourceConfigSource(), aggregatorscheme.Scheme); err != nil {
		return nil, fmt.Errorf("aggregator: %w", err)
	}
	generic.PostStartHooks = map[string]genericapiserver.PostStartHookConfigEntry{}
	return &aggregatorapiserver.Config{
		GenericConfig: &genericapiserver.RecommendedConfig{Config: generic, SharedInformerFactory: p.filled},
		ExtraConfig: aggregatorapiserver.ExtraConfig{
			ServiceResolver: resolver,
			// A redirect of a tenant's server is not followed and not passed on.
			RejectForwardingRedirects: true,
			// They are run when there is a remote one.
			DisableRemoteAvailableConditionController: true,
		},
	}, nil
}
