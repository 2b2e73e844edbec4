package kube

import (
	"context"
	"fmt"

	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/dynamic/dynamicinformer"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/events"
	kcmconfig "k8s.io/kubernetes/pkg/controller/apis/config"
	"k8s.io/kubernetes/pkg/scheduler"
	schedulerconfig "k8s.io/kubernetes/pkg/scheduler/apis/config/latest"
)

// nodeMaskSize is the size of a node's pod range when none is given.
const nodeMaskSize = 24

// nodeConfig sets what the node controllers need.
func nodeConfig(c *kcmconfig.KubeControllerManagerConfiguration, o Options) {
	c.KubeCloudShared.AllocateNodeCIDRs = true
	c.KubeCloudShared.ConfigureCloudRoutes = false
	c.KubeCloudShared.ClusterCIDR = o.Host.PodCIDR.String()
	c.KubeCloudShared.CIDRAllocatorType = "RangeAllocator"
	c.NodeIPAMController.ServiceCIDR = o.ServiceCIDR.String()
	mask := o.Host.NodeMaskSize
	if mask == 0 {
		mask = nodeMaskSize
	}
	c.NodeIPAMController.NodeCIDRMaskSize = int32(mask)
}

// hostScheduler is upstream's scheduler of the host, constructed and not running.
type hostScheduler struct {
	*scheduler.Scheduler
	//lint:ignore SA1019 upstream's profile.NewRecorderFactory takes this type
	broadcaster events.EventBroadcasterAdapter
	informers   informers.SharedInformerFactory
	dynamic     dynamicinformer.DynamicSharedInformerFactory
}

func (p *parts) newScheduler(ctx context.Context) (*hostScheduler, error) {
	config, err := schedulerconfig.Default()
	if err != nil {
		return nil, fmt.Errorf("scheduler: %w", err)
	}
	client, err := kubernetes.NewForConfig(p.generic.LoopbackClientConfig)
	if err != nil {
		return nil, fmt.Errorf("scheduler: %w", err)
	}
	dynamicClient, err := dynamic.NewForConfig(p.generic.LoopbackClientConfig)
	if err != nil {
		return nil, fmt.Errorf("scheduler: %w", err)
	}
	h := &hostScheduler{
		broadcaster: events.NewEventBroadcasterAdapterWithContext(ctx, client),
		// The scheduler must not see pods that have ended, so its informers
		// are not the API server's.
		informers: scheduler.NewInformerFactory(client, 0, nil),
		dynamic:   dynamicinformer.NewFilteredDynamicSharedInformerFactory(dynamicClient, 0, "", nil),
	}
	if err := h.informers.Core().V1().Pods().Informer().SetTransform(ranked); err != nil {
		return nil, fmt.Errorf("scheduler: %w", err)
	}
	plugins, err := rankPlugins(&config.Profiles[0])
	if err != nil {
		return nil, fmt.Errorf("scheduler: %w", err)
	}
	h.Scheduler, err = scheduler.New(ctx, client, h.informers, h.dynamic,
		func(name string) events.EventRecorderLogger { return h.broadcaster.NewRecorder(name) },
		scheduler.WithComponentConfigVersion(config.APIVersion),
		scheduler.WithKubeConfig(p.generic.LoopbackClientConfig),
		scheduler.WithProfiles(config.Profiles...),
		scheduler.WithFrameworkOutOfTreeRegistry(plugins),
		scheduler.WithPercentageOfNodesToScore(config.PercentageOfNodesToScore),
		scheduler.WithPodInitialBackoffSeconds(config.PodInitialBackoffSeconds),
		scheduler.WithPodMaxBackoffSeconds(config.PodMaxBackoffSeconds),
		scheduler.WithParallelism(config.Parallelism),
	)
	if err != nil {
		return nil, fmt.Errorf("scheduler: %w", err)
	}
	return h, nil
}

// run schedules until ctx ends.
func (h *hostScheduler) run(ctx context.Context) error {
	h.broadcaster.StartRecordingToSink(ctx.Done())
	defer h.broadcaster.Shutdown()
	h.informers.Start(ctx.Done())
	defer h.informers.Shutdown()
	h.dynamic.Start(ctx.Done())
	defer h.dynamic.Shutdown()
	h.informers.WaitForCacheSync(ctx.Done())
	h.dynamic.WaitForCacheSync(ctx.Done())
	if err := h.WaitForHandlersSync(ctx); err != nil {
		return fmt.Errorf("scheduler: %w", err)
	}
	h.Run(ctx)
	return nil
}
