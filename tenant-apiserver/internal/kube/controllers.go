package kube

import (
	"context"
	"fmt"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apiserver/pkg/server/healthz"
	cacheddiscovery "k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/metadata/metadatainformer"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/restmapper"
	controllersmetrics "k8s.io/component-base/metrics/prometheus/controllers"
	"k8s.io/controller-manager/pkg/informerfactory"
	kcm "k8s.io/kubernetes/cmd/kube-controller-manager/app"
	kcmoptions "k8s.io/kubernetes/cmd/kube-controller-manager/app/options"
	"k8s.io/kubernetes/cmd/kube-controller-manager/names"
	kcmconfig "k8s.io/kubernetes/pkg/controller/apis/config"
	"k8s.io/kubernetes/pkg/controller/garbagecollector"
)

// mapperReset is how often controllers look for new resource types, as in
// kube-controller-manager.
const mapperReset = 30 * time.Second

// everywhere are the controllers of every control plane.
var everywhere = []string{
	names.EndpointsController,
	names.EndpointSliceController,
	names.EndpointSliceMirroringController,
	names.ReplicationControllerController,
	names.PodGarbageCollectorController,
	names.ResourceQuotaController,
	names.NamespaceController,
	names.ServiceAccountController,
	names.GarbageCollectorController,
	names.DaemonSetController,
	names.JobController,
	names.DeploymentController,
	names.ReplicaSetController,
	names.HorizontalPodAutoscalerController,
	names.DisruptionController,
	names.StatefulSetController,
	names.CronJobController,
	names.CertificateSigningRequestCleanerController,
	names.CertificateSigningRequestSigningController,
	names.ClusterRoleAggregationController,
	names.PersistentVolumeClaimProtectionController,
	names.PersistentVolumeProtectionController,
	names.VolumeAttributesClassProtectionController,
	names.EphemeralVolumeController,
	names.TTLAfterFinishedController,
	names.ServiceCIDRController,
	names.TaintEvictionController,
}

// onHost are the controllers that only the control plane of the nodes has. Tenants'
// claims are bound by their syncers.
var onHost = []string{
	names.PersistentVolumeBinderController,
	names.CertificateSigningRequestApprovingController,
	names.NodeIpamController,
	names.NodeLifecycleController,
}

// controllers are the controllers of one instance, constructed and not running.
type controllers struct {
	ctx  kcm.ControllerContext
	list []kcm.Controller
	late []lateController

	onFirst func(prefixes, except []string, do func())
	hold    func() (release func())           // of handlers that are added to informers
	prefix  func(schema.GroupResource) string // of a resource's keys in the storage
}

// controllerConfig is kube-controller-manager's default configuration with one
// worker each: an instance is one tenant's, and idle workers cost memory.
func controllerConfig(o Options) (kcmconfig.KubeControllerManagerConfiguration, error) {
	c, err := kcmoptions.NewDefaultComponentConfig()
	if err != nil {
		return c, fmt.Errorf("controller configuration: %w", err)
	}
	c.Generic.Controllers = everywhere
	if o.Host != nil {
		c.Generic.Controllers = append(append([]string{}, everywhere...), onHost...)
		c.CSRSigningController.ClusterSigningCertFile = o.PKI.CAFile()
		c.CSRSigningController.ClusterSigningKeyFile = o.PKI.CAKeyFile()
		nodeConfig(&c, o)
		return c, nil
	}
	// A tenant signs for users of its API: it has no kubelets, and the other signer
	// promises nothing.
	c.CSRSigningController.KubeAPIServerClientSignerConfiguration.CertFile = o.PKI.CAFile()
	c.CSRSigningController.KubeAPIServerClientSignerConfiguration.KeyFile = o.PKI.CAKeyFile()
	singleWorkers(&c)
	return c, nil
}

func singleWorkers(c *kcmconfig.KubeControllerManagerConfiguration) {
	c.CronJobController.ConcurrentCronJobSyncs = 1
	c.DaemonSetController.ConcurrentDaemonSetSyncs = 1
	c.DeploymentController.ConcurrentDeploymentSyncs = 1
	c.EndpointController.ConcurrentEndpointSyncs = 1
	c.EndpointSliceController.ConcurrentServiceEndpointSyncs = 1
	c.EndpointSliceMirroringController.MirroringConcurrentServiceEndpointSyncs = 1
	c.EphemeralVolumeController.ConcurrentEphemeralVolumeSyncs = 1
	c.GarbageCollectorController.ConcurrentGCSyncs = 1
	c.HPAController.ConcurrentHorizontalPodAutoscalerSyncs = 1
	c.JobController.ConcurrentJobSyncs = 1
	c.NamespaceController.ConcurrentNamespaceSyncs = 1
	c.ReplicaSetController.ConcurrentRSSyncs = 1
	c.ReplicationController.ConcurrentRCSyncs = 1
	c.ResourceQuotaController.ConcurrentResourceQuotaSyncs = 1
	c.SAController.ConcurrentSATokenSyncs = 1
	c.StatefulSetController.ConcurrentStatefulSetSyncs = 1
	c.TTLAfterFinishedController.ConcurrentTTLSyncs = 1
	c.ValidatingAdmissionPolicyStatusController.ConcurrentPolicySyncs = 1
}

// newControllers constructs the controllers on the API server's informers.
func (p *parts) newControllers(ctx context.Context) (*controllers, error) {
	config, err := controllerConfig(p.opts)
	if err != nil {
		return nil, err
	}
	// JSON reaches custom resources too; built-in clients ask for protobuf
	// where it is known.
	loopback := rest.CopyConfig(p.generic.LoopbackClientConfig)
	loopback.ContentType = ""
	meta, err := metadata.NewForConfig(loopback)
	if err != nil {
		return nil, fmt.Errorf("metadata client: %w", err)
	}
	clients, err := newOneClient(loopback)
	if err != nil {
		return nil, fmt.Errorf("controllers' client: %w", err)
	}
	metaInformers := metadatainformer.NewSharedInformerFactoryWithOptions(meta, resync, metadatainformer.WithTransform(withoutManagedFields))
	mapper := restmapper.NewDeferredDiscoveryRESTMapper(cacheddiscovery.NewMemCacheClient(p.client.Discovery()))
	c := &controllers{onFirst: p.informers.OnFirst, hold: p.informers.Hold, prefix: p.prefix, ctx: kcm.ControllerContext{
		ClientBuilder:                   clients,
		InformerFactory:                 p.informers,
		ObjectOrMetadataInformerFactory: informerfactory.NewInformerFactory(p.informers, metaInformers),
		ComponentConfig:                 config,
		RESTMapper:                      mapper,
		InformersStarted:                make(chan struct{}),
		ResyncPeriod:                    func() time.Duration { return resync },
		ControllerManagerMetrics:        controllersmetrics.NewControllerManagerMetrics("kube-controller-manager"),
	}}
	c.ctx.GraphBuilder = garbagecollector.NewDependencyGraphBuilder(ctx, meta, mapper,
		ignored(config), c.ctx.ObjectOrMetadataInformerFactory, c.ctx.InformersStarted)
	descriptors := withoutOwn(kcm.NewControllerDescriptors())
	c.late = append(takeLate(descriptors), lateController{names.ValidatingAdmissionPolicyStatusController, p.newPolicyController})
	c.list, err = kcm.BuildControllers(ctx, c.ctx, descriptors, nil, noChecks{})
	if err != nil {
		return nil, fmt.Errorf("controllers: %w", err)
	}
	own, err := p.ownControllers(ctx, c.ctx)
	if err != nil {
		return nil, fmt.Errorf("controllers: %w", err)
	}
	c.list = append(c.list, own...)
	if p.scrape != nil {
		c.list = append(c.list, loop{"kubelet-scraper", func(ctx context.Context, _ int) { p.scrape(ctx) }})
	}
	return c, nil
}

// withoutOwn leaves out those that are constructed here: the service account token
// controller, whose upstream description needs what only upstream's main has, the one
// that writes the CAs for pods, which upstream's knows as they were at the start, and
// that of admission policies.
func withoutOwn(d map[string]*kcm.ControllerDescriptor) map[string]*kcm.ControllerDescriptor {
	delete(d, names.ServiceAccountTokenController)
	delete(d, names.RootCACertificatePublisherController)
	delete(d, names.ValidatingAdmissionPolicyStatusController)
	return d
}

func ignored(c kcmconfig.KubeControllerManagerConfiguration) map[schema.GroupResource]struct{} {
	m := map[schema.GroupResource]struct{}{}
	for _, r := range c.GarbageCollectorController.GCIgnoredResources {
		m[schema.GroupResource{Group: r.Group, Resource: r.Resource}] = struct{}{}
	}
	return m
}

// noChecks takes upstream's health checks, which only ever say "running".
type noChecks struct{}

func (noChecks) AddHealthChecker(...healthz.HealthChecker) {}

// run runs the controllers until ctx ends and all of them have returned.
func (c *controllers) run(ctx context.Context) {
	c.ctx.InformerFactory.Start(ctx.Done())
	c.ctx.ObjectOrMetadataInformerFactory.Start(ctx.Done())
	close(c.ctx.InformersStarted)
	due := make(chan lateController, len(c.late)) // each is in it once at most
	c.await(due)
	var running sync.WaitGroup
	defer running.Wait()
	running.Go(func() { wait.Until(c.ctx.RESTMapper.Reset, mapperReset, ctx.Done()) })
	running.Go(func() { kcm.RunControllers(ctx, c.ctx, c.list, 0, 0) })
	for {
		select {
		case l := <-due:
			if controller := c.begin(ctx, l, due); controller != nil {
				running.Go(func() { controller.Run(ctx) })
			}
		case <-ctx.Done():
			return
		}
	}
}
