package kube

import (
	"context"
	"fmt"
	"net/http"
	"time"

	restful "github.com/emicklei/go-restful/v3"
	corev1 "k8s.io/api/core/v1"
	apiextensionsapiserver "k8s.io/apiextensions-apiserver/pkg/apiserver"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apiserver/pkg/endpoints/discovery/aggregated"
	"k8s.io/apiserver/pkg/endpoints/request"
	genericapiserver "k8s.io/apiserver/pkg/server"
	"k8s.io/apiserver/pkg/server/egressselector"
	"k8s.io/apiserver/pkg/server/filters"
	serverstorage "k8s.io/apiserver/pkg/server/storage"
	"k8s.io/client-go/kubernetes"
	aggregatorscheme "k8s.io/kube-aggregator/pkg/apiserver/scheme"
	openapicommon "k8s.io/kube-openapi/pkg/common"
	"k8s.io/kubernetes/cmd/kube-apiserver/app/options"
	"k8s.io/kubernetes/pkg/api/legacyscheme"
	"k8s.io/kubernetes/pkg/controlplane"
	"k8s.io/kubernetes/pkg/kubeapiserver"
	"k8s.io/kubernetes/pkg/kubeapiserver/authorizer/modes"

	"sublet.dev/tenant-apiserver/authn"
	"sublet.dev/tenant-apiserver/internal/informer"
)

// resync is the period after which informers repeat everything to their
// handlers, as in kube-apiserver.
const resync = 10 * time.Minute

// parts are the things that the construction of an instance hands from step to
// step.
type parts struct {
	opts      Options
	life      context.Context // ends with the instance
	run       *options.ServerRunOptions
	loopback  *loopback
	client    kubernetes.Interface
	informers *informer.Factory
	filled    *filled // informers, for readiness
	dial      dialers
	proxy     *frontProxy
	clientCA  *trusted
	issuers   *authn.Issuers
	generic   *genericapiserver.Config
	storage   *serverstorage.DefaultStorageFactory
	disabled  map[string]bool
	services  *serviceRange
	seeds     seeds
	documents documentPaths
	// extensionTypes are what the API extensions server is constructed with.
	extensionTypes *openapicommon.OpenAPIV3Config
	// described has all routes of built-in APIs, for OpenAPI documents; nil: there are some.
	described *restful.Container
	scrape    func(context.Context) // of the host's kubelets; nil: there are none
}

// runOptions are kube-apiserver's options with what differs here.
func runOptions(o Options) *options.ServerRunOptions {
	s := options.NewServerRunOptions()
	etcd := s.Etcd
	etcd.StorageConfig.Transport.ServerList = []string{o.Endpoint}
	// Here, and not as transformers of resources, since upstream makes some
	// storage of its own (the node ports' bitmap) past those.
	etcd.StorageConfig.Transformer = o.Transformer
	// The watch cache of a resource costs memory and goroutines for every
	// tenant, and saves little here: a watch of the store is a cursor. A host's
	// would keep the changes of its busiest minute for as long as nothing else
	// changes, and of what it has few watch everything.
	etcd.EnableWatchCache = false
	// Counting objects for a process-wide metric without a tenant label.
	etcd.StorageConfig.CountMetricPollPeriod = 0

	s.GenericServerRunOptions.AdvertiseAddress = o.advertise().IP
	s.GenericServerRunOptions.ExternalHost = o.advertise().String()
	// Requests end with their connections, which our caller owns.
	s.GenericServerRunOptions.ShutdownDelayDuration = 0
	s.Authorization.Modes = []string{modes.ModeRBAC}
	if o.Host != nil {
		s.Authorization.Modes = []string{modes.ModeNode, modes.ModeRBAC}
	}
	s.Features.EnableProfiling = false
	s.AllowPrivileged = true
	return s
}

// disabledHooks are the start hooks of upstream that an instance does without.
func disabledHooks(o Options) map[string]bool {
	// What it runs is run when there is something to do (remote.go).
	d := map[string]bool{hookAPIDiscovery: true}
	if o.Bootstrapped {
		d[hookRBAC], d[hookPriorityClasses], d[hookFlowSchemas] = true, true, true
	}
	if o.Template {
		d[hookNamespaces], d[hookAuthConfig], d[hookTokenTracking] = true, true, true
		d[hookKubernetes], d[hookServiceCIDR], d[hookServiceRepair] = true, true, true
	}
	return d
}

// newParts makes what an instance is constructed of. ctx is the instance's life.
func newParts(ctx context.Context, o Options) (*parts, error) {
	if err := o.validate(); err != nil {
		return nil, err
	}
	dial, err := newDialers(o)
	if err != nil {
		return nil, err
	}
	proxy, err := newFrontProxy(o.PKI)
	if err != nil {
		return nil, err
	}
	p := &parts{
		opts: o, life: ctx, run: runOptions(o), loopback: newLoopback(ctx), disabled: disabledHooks(o),
		dial: dial, proxy: proxy,
	}
	if p.generic, err = p.genericConfig(); err != nil {
		return nil, err
	}
	steps := []func(context.Context) error{p.addClients, p.addStorage, p.addInformers, p.addAuthentication, p.addAuthorization, p.addAudit}
	for _, step := range steps {
		if err := step(ctx); err != nil {
			return nil, err
		}
	}
	return p, nil
}

// genericConfig is what every API server has.
func (p *parts) genericConfig() (*genericapiserver.Config, error) {
	o := p.opts
	generic := genericapiserver.NewConfig(legacyscheme.Codecs)
	generic.MergedResourceConfig = controlplane.DefaultAPIResourceConfigSource()
	if o.Host == nil {
		// Listing it dials ports of the machine the control plane runs on.
		generic.MergedResourceConfig.DisableResources(corev1.SchemeGroupVersion.WithResource("componentstatuses"))
		// Metrics are the process's: they name the custom resources of others.
		generic.EnableMetrics = false
	}
	if err := p.run.GenericServerRunOptions.ApplyTo(generic); err != nil {
		return nil, fmt.Errorf("generic options: %w", err)
	}
	generic.EffectiveVersion = released{generic.EffectiveVersion}
	generic.LoopbackClientConfig = p.loopback.config()
	generic.LoopbackClientConfig.ContentType = runtime.ContentTypeProtobuf
	generic.SecureServing = &genericapiserver.SecureServingInfo{Listener: newIdleListener(o.advertise())}
	generic.EgressSelector = egressselector.NewEgressSelectorWithMap(p.dial.egress())
	generic.OpenAPIConfig, generic.OpenAPIV3Config = sharedOpenAPI().configs()
	// Documents of built-in types are shared by the process.
	generic.SkipOpenAPIInstallation = true
	generic.LongRunningFunc = o.longRunning
	generic.BuildHandlerChainFunc = roomyChain
	generic.AggregatedDiscoveryGroupManager = aggregated.NewResourceManager("apis")
	for name := range p.disabled {
		generic.DisabledPostStartHooks.Insert(name)
	}
	return generic, nil
}

// longRunning says which requests go on until one of the sides ends them.
func (o Options) longRunning(r *http.Request, info *request.RequestInfo) bool {
	return lasting(r, info) || o.Paths[r.URL.Path].Lasts
}

var lasting = filters.BasicLongRunningRequestCheck(
	sets.NewString("watch", "proxy"),
	sets.NewString("attach", "exec", "proxy", "log", "portforward"),
)

func (p *parts) addClients(context.Context) error {
	var err error
	if p.client, err = kubernetes.NewForConfig(p.generic.LoopbackClientConfig); err != nil {
		return fmt.Errorf("loopback client: %w", err)
	}
	if err := p.run.APIEnablement.ApplyTo(p.generic, p.generic.MergedResourceConfig, legacyscheme.Scheme); err != nil {
		return fmt.Errorf("enabled APIs: %w", err)
	}
	return nil
}

// withoutManagedFields saves the memory of what no controller reads.
func withoutManagedFields(obj any) (any, error) {
	if accessor, err := meta.Accessor(obj); err == nil && accessor.GetManagedFields() != nil {
		accessor.SetManagedFields(nil)
	}
	return obj, nil
}

func (p *parts) addStorage(context.Context) error {
	p.run.Etcd.StorageConfig.Transport.TracerProvider = p.generic.TracerProvider
	config := kubeapiserver.NewStorageFactoryConfigEffectiveVersion(p.generic.EffectiveVersion)
	config.APIResourceConfig = p.generic.MergedResourceConfig
	config.DefaultResourceEncoding.SetEffectiveVersion(p.generic.EffectiveVersion)
	factory, err := config.Complete(p.run.Etcd).New()
	if err != nil {
		return fmt.Errorf("storage: %w", err)
	}
	factory.StorageConfig.StorageObjectCountTracker = p.generic.StorageObjectCountTracker
	if err := p.run.Etcd.ApplyWithStorageFactoryTo(factory, p.generic); err != nil {
		return fmt.Errorf("storage: %w", err)
	}
	p.storage = factory
	return nil
}

func (p *parts) addAuthorization(ctx context.Context) error {
	config, err := p.run.Authorization.ToAuthorizationConfig(p.informers)
	if err != nil {
		return fmt.Errorf("authorization: %w", err)
	}
	p.generic.Authorization.Authorizer, p.generic.RuleResolver, err = config.New(ctx, p.generic.APIServerID)
	if err != nil {
		return fmt.Errorf("authorization: %w", err)
	}
	return nil
}

func schemes() []*runtime.Scheme {
	return []*runtime.Scheme{legacyscheme.Scheme, apiextensionsapiserver.Scheme, aggregatorscheme.Scheme}
}
