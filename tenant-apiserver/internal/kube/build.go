package kube

import (
	"errors"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apiextensionsv1beta1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1beta1"
	apiextensionsapiserver "k8s.io/apiextensions-apiserver/pkg/apiserver"
	apiextensionsoptions "k8s.io/apiextensions-apiserver/pkg/cmd/server/options"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	utilnet "k8s.io/apimachinery/pkg/util/net"
	"k8s.io/apiserver/pkg/admission"
	webhookinit "k8s.io/apiserver/pkg/admission/plugin/webhook/initializer"
	genericapifilters "k8s.io/apiserver/pkg/endpoints/filters"
	genericapiserver "k8s.io/apiserver/pkg/server"
	"k8s.io/apiserver/pkg/server/egressselector"
	utilfeature "k8s.io/apiserver/pkg/util/feature"
	"k8s.io/apiserver/pkg/util/notfoundhandler"
	"k8s.io/apiserver/pkg/util/proxy"
	"k8s.io/apiserver/pkg/util/webhook"
	"k8s.io/client-go/dynamic"
	aggregatorapiserver "k8s.io/kube-aggregator/pkg/apiserver"
	"k8s.io/kubernetes/pkg/controlplane"
	controlplaneapiserver "k8s.io/kubernetes/pkg/controlplane/apiserver"
	controlplaneadmission "k8s.io/kubernetes/pkg/controlplane/apiserver/admission"
	kubeapiserveradmission "k8s.io/kubernetes/pkg/kubeapiserver/admission"
	kubeletclient "k8s.io/kubernetes/pkg/kubelet/client"
	tokens "k8s.io/kubernetes/pkg/serviceaccount"
)

// servers are the API servers of an instance: the aggregator answers first and
// delegates to kube, and kube to extensions.
type servers struct {
	front      *aggregator
	kube       *genericapiserver.GenericAPIServer
	extensions *apiextensionsapiserver.CustomResourceDefinitions
}

// buildServers constructs the API servers. The caller holds constructMu.
func (p *parts) buildServers() (*servers, error) {
	endpoints, err := proxy.NewEndpointSliceIndexerGetter(p.informers.Discovery().V1().EndpointSlices())
	if err != nil {
		return nil, fmt.Errorf("endpoint slices: %w", err)
	}
	// A Service leads to addresses of pods here and not to its virtual one, which
	// the node's proxy would translate past the dialer.
	resolver := aggregatorapiserver.NewEndpointServiceResolver(p.informers.Core().V1().Services().Lister(), endpoints)
	config, err := p.controlPlaneConfig(endpoints)
	if err != nil {
		return nil, err
	}
	if err := p.addAdmission(config, resolver); err != nil {
		return nil, err
	}
	extensionsConfig, err := p.extensionsConfig(config, resolver)
	if err != nil {
		return nil, err
	}
	completed := config.Complete()
	notFound := notfoundhandler.New(p.generic.Serializer, genericapifilters.NoMuxAndDiscoveryIncompleteKey)
	extensions, err := extensionsConfig.Complete().New(genericapiserver.NewEmptyDelegateWithCustomHandler(notFound))
	if err != nil {
		return nil, fmt.Errorf("API extensions server: %w", err)
	}
	kube, err := p.newKubeServer(completed, extensions.GenericAPIServer)
	if err != nil {
		return nil, err
	}
	front, err := p.buildAggregator(kube, extensions, resolver)
	if err != nil {
		return nil, err
	}
	return &servers{front: front, kube: kube, extensions: extensions}, nil
}

// controlPlaneConfig configures the API server.
func (p *parts) controlPlaneConfig(endpoints proxy.EndpointSliceGetter) (*controlplane.Config, error) {
	kubelet, err := p.kubeletConfig()
	if err != nil {
		return nil, err
	}
	config := &controlplane.Config{Extra: controlplane.Extra{
		KubeletClientConfig:     kubelet,
		ServiceIPRange:          asNet(p.opts.ServiceCIDR),
		SecondaryServiceIPRange: asNet(p.opts.SecondServiceCIDR),
		APIServerServiceIP:      p.opts.serviceIP(),
		APIServerServicePort:    443,
		ServiceNodePortRange:    p.nodePorts(),
		MasterCount:             1,
	}}
	config.Extra.EndpointReconcilerConfig.Interval = endpointInterval
	config.Extra.EndpointReconcilerConfig.Reconciler, err = p.endpointReconciler()
	if err != nil {
		return nil, err
	}
	config.ControlPlane.Generic = p.generic
	config.ControlPlane.ClusterAuthenticationInfo = p.proxy.trust(p.clientCA)
	return config, p.addExtra(config, endpoints)
}

// addExtra configures what has to do with service accounts, and the rest.
func (p *parts) addExtra(config *controlplane.Config, endpoints proxy.EndpointSliceGetter) error {
	keys, err := p.publicKeys()
	if err != nil {
		return fmt.Errorf("service account keys: %w", err)
	}
	generator, err := tokens.JWTTokenGenerator(issuer, p.opts.PKI.ServiceAccountKey())
	if err != nil {
		return fmt.Errorf("service account tokens: %w", err)
	}
	transport := controlplaneapiserver.CreateProxyTransport()
	transport.DialContext = p.dial.outside
	config.ControlPlane.Extra = controlplaneapiserver.Extra{
		ClusterAuthenticationInfo:           config.ControlPlane.ClusterAuthenticationInfo,
		APIResourceConfigSource:             p.storage.APIResourceConfigSource,
		StorageFactory:                      p.storage,
		EventTTL:                            p.run.EventTTL,
		ProxyTransport:                      transport,
		EndpointSliceGetter:                 endpoints,
		SystemNamespaces:                    p.run.SystemNamespaces,
		ServiceAccountIssuer:                generator,
		ServiceAccountIssuerURL:             issuer,
		ServiceAccountPublicKeysGetter:      keys,
		ServiceAccountExtendedMaxExpiration: p.run.Authentication.ServiceAccounts.MaxExtendedExpiration,
		ExtendExpiration:                    p.run.Authentication.ServiceAccounts.ExtendExpiration,
		VersionedInformers:                  p.filled,
		CoordinatedLeadershipLeaseDuration:  p.run.CoordinatedLeadershipLeaseDuration,
		CoordinatedLeadershipRenewDeadline:  p.run.CoordinatedLeadershipRenewDeadline,
		CoordinatedLeadershipRetryPeriod:    p.run.CoordinatedLeadershipRetryPeriod,
	}
	return nil
}

func (p *parts) nodePorts() utilnet.PortRange {
	first, last := p.opts.NodePorts[0], p.opts.NodePorts[1]
	if first == 0 {
		return p.run.ServiceNodePortRange
	}
	return utilnet.PortRange{Base: first, Size: last - first + 1}
}

func (p *parts) kubeletConfig() (kubeletclient.KubeletClientConfig, error) {
	config := p.run.KubeletConfig
	// Names are not resolved: a tenant's would be looked up in the provider's
	// network, and the host's nodes have addresses.
	config.PreferredAddressTypes = []string{string(corev1.NodeInternalIP), string(corev1.NodeExternalIP)}
	if p.dial.kubelet != nil {
		config.Lookup = func(egressselector.NetworkContext) (utilnet.DialFunc, error) { return p.dial.kubelet, nil }
		return config, nil
	}
	certFile, keyFile, err := p.opts.PKI.ClientFiles("kubelet-client", kubeletUser, []string{"system:masters"})
	if err != nil {
		return config, fmt.Errorf("certificate for kubelets: %w", err)
	}
	config.TLSClientConfig = kubeletclient.KubeletTLSConfig{CertFile: certFile, KeyFile: keyFile, CAFile: p.opts.PKI.CAFile()}
	return config, nil
}

// kubeletUser is who the API server is to kubelets; kubelets ask the API
// server itself whether it may.
const kubeletUser = "kube-apiserver-kubelet-client"

func (p *parts) addAdmission(config *controlplane.Config, resolver webhook.ServiceResolver) error {
	kubeInitializers, err := (&kubeapiserveradmission.Config{}).New()
	if err != nil {
		return fmt.Errorf("admission: %w", err)
	}
	initializers, err := (&controlplaneadmission.Config{
		ExternalInformers:    p.informers,
		LoopbackClientConfig: p.generic.LoopbackClientConfig,
		APIResourceConfig:    p.storage.APIResourceConfigSource,
	}).New(config.ControlPlane.ProxyTransport, p.generic.EgressSelector, resolver, p.generic.TracerProvider)
	if err != nil {
		return fmt.Errorf("admission: %w", err)
	}
	dynamicClient, err := dynamic.NewForConfig(p.generic.LoopbackClientConfig)
	if err != nil {
		return fmt.Errorf("admission: %w", err)
	}
	initializers = append(initializers, webhookinit.NewPluginInitializer(boundAnswers, resolver))
	options := p.run.Admission
	if p.opts.Host != nil {
		options.GenericAdmission.EnablePlugins = append(options.GenericAdmission.EnablePlugins, "NodeRestriction")
	} else {
		registerTenantAdmission(options.GenericAdmission, p.opts.ValidatePod, p.opts.Judge, p.opts.Terms)
		p.registerLimits(options.GenericAdmission)
	}
	if err := p.opts.Ahead.use(options.GenericAdmission.Plugins); err != nil {
		return fmt.Errorf("admission: %w", err)
	}
	sharing := &conditionSharing{}
	if p.opts.Host != nil {
		// First, for the others wrap plugins.
		options.GenericAdmission.Decorators = append(admission.Decorators{sharing}, options.GenericAdmission.Decorators...)
	} else {
		// The others measure how long each plugin takes, some forty times a write, for
		// the process and all its tenants.
		options.GenericAdmission.Decorators = admission.Decorators{sharing}
	}
	err = options.ApplyTo(p.generic, p.informers, admissionClient{p.client, &p.documents}, dynamicClient, utilfeature.DefaultFeatureGate,
		p.generic.EffectiveVersion, append(initializers, kubeInitializers...)...)
	if err = errors.Join(err, sharing.check()); err != nil {
		return fmt.Errorf("admission: %w", err)
	}
	return nil
}

func (p *parts) extensionsConfig(config *controlplane.Config, resolver webhook.ServiceResolver) (*apiextensionsapiserver.Config, error) {
	generic := *p.generic
	generic.PostStartHooks = map[string]genericapiserver.PostStartHookConfigEntry{}
	generic.RESTOptionsGetter = nil
	p.extensionTypes = sharedExtensions().config()
	generic.OpenAPIConfig, generic.OpenAPIV3Config = sharedExtensions().v2, p.extensionTypes

	etcd := *p.run.Etcd
	etcd.StorageConfig.Codec = apiextensionsapiserver.Codecs.LegacyCodec(apiextensionsv1beta1.SchemeGroupVersion, apiextensionsv1.SchemeGroupVersion)
	etcd.StorageConfig.EncodeVersioner = runtime.NewMultiGroupVersioner(apiextensionsv1beta1.SchemeGroupVersion, schema.GroupKind{Group: apiextensionsv1beta1.GroupName})
	etcd.SkipHealthEndpoints = true
	if err := etcd.ApplyTo(&generic); err != nil {
		return nil, fmt.Errorf("API extensions storage: %w", err)
	}
	if err := p.run.APIEnablement.ApplyTo(&generic, apiextensionsapiserver.DefaultAPIResourceConfigSource(), apiextensionsapiserver.Scheme); err != nil {
		return nil, fmt.Errorf("API extensions: %w", err)
	}
	generic.PostStartHooks = map[string]genericapiserver.PostStartHookConfigEntry{}
	wrap := webhook.NewDefaultAuthenticationInfoResolverWrapper(
		config.ControlPlane.ProxyTransport, p.generic.EgressSelector, p.generic.LoopbackClientConfig, p.generic.TracerProvider)
	return &apiextensionsapiserver.Config{
		GenericConfig: &genericapiserver.RecommendedConfig{Config: generic, SharedInformerFactory: p.filled},
		ExtraConfig: apiextensionsapiserver.ExtraConfig{
			CRDRESTOptionsGetter: apiextensionsoptions.NewCRDRESTOptionsGetter(etcd, generic.ResourceTransformers, generic.StorageObjectCountTracker),
			MasterCount:          1,
			ServiceResolver:      resolver,
			AuthResolverWrapper: func(delegate webhook.AuthenticationInfoResolver) webhook.AuthenticationInfoResolver {
				return boundAnswers(wrap(delegate))
			},
		},
	}, nil
}
