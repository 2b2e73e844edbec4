package kube

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	utilfeature "k8s.io/apiserver/pkg/util/feature"
	fwk "k8s.io/kube-scheduler/framework"
	schedulerapi "k8s.io/kubernetes/pkg/scheduler/apis/config"
	"k8s.io/kubernetes/pkg/scheduler/framework/plugins/defaultpreemption"
	plfeature "k8s.io/kubernetes/pkg/scheduler/framework/plugins/feature"
	"k8s.io/kubernetes/pkg/scheduler/framework/plugins/queuesort"
	"k8s.io/kubernetes/pkg/scheduler/framework/preemption"
	frameworkruntime "k8s.io/kubernetes/pkg/scheduler/framework/runtime"

	"sublet.dev/isolation/tenant"
)

// The host's scheduler knows priorities twice: among the provider's pods they are
// upstream's, and among the pods of one tenant those of the tenant, which stand in an
// annotation ([tenant.Rank]). A tenant's pod displaces its own tenant's only. As the
// scheduler sees them, all tenants' pods rank below the provider's, each where its tenant
// ranks it.

// The names of our plugins, which are in the places of upstream's.
const (
	queuePlugin      = "SubletQueueSort"
	preemptionPlugin = "SubletPreemption"
)

// greatestRank bounds the priorities that tenants' classes can have (upstream's
// HighestUserDefinablePriority), and, negative, those that are told apart.
const greatestRank = 1_000_000_000

// ranked gives the scheduler's copy of a tenant's pod the priority that it is scheduled
// by, and drops what the scheduler never reads.
func ranked(object any) (any, error) {
	pod, ok := object.(*corev1.Pod)
	if !ok {
		return object, nil
	}
	pod.ManagedFields = nil
	if !ofTenant(pod) {
		return pod, nil
	}
	rank := tenant.ReadRank(pod.Annotations)
	priority := max(-greatestRank, min(rank.Priority, greatestRank)) - greatestRank - 1
	pod.Spec.Priority = &priority
	if never := corev1.PreemptNever; rank.Patient {
		pod.Spec.PreemptionPolicy = &never
	}
	return pod, nil
}

func ofTenant(pod *corev1.Pod) bool { return pod.Labels[tenant.LabelTenant] != "" }

// queueSort is upstream's order of the queue, but that tenants' pods come in the order in
// which they came: which of its own come first is for each tenant's syncer to say.
type queueSort struct{}

// Name implements fwk.Plugin.
func (queueSort) Name() string { return queuePlugin }

// Less implements fwk.QueueSortPlugin.
func (queueSort) Less(a, b fwk.QueuedEntityInfo) bool {
	ours, theirs := max(a.GetPriority(), 0), max(b.GetPriority(), 0)
	return ours > theirs || ours == theirs && a.GetTimestamp().Before(b.GetTimestamp())
}

// tenantPreemption is upstream's preemption within the bounds of [mayDisplace].
type tenantPreemption struct {
	*defaultpreemption.DefaultPreemption
}

// Name implements fwk.Plugin.
func (tenantPreemption) Name() string { return preemptionPlugin }

// mayDisplace says whether a pod may displace another of less priority: its own tenant's;
// a pod of the provider's may displace a tenant's if it has any priority at all.
func mayDisplace(_ fwk.NodeInfo, victim preemption.Victim, preemptor *corev1.Pod) bool {
	for _, info := range victim.Pods() {
		switch pod := info.GetPod(); {
		case ofTenant(preemptor):
			if !ofTenant(pod) || pod.Namespace != preemptor.Namespace {
				return false
			}
		case ofTenant(pod) && (preemptor.Spec.Priority == nil || *preemptor.Spec.Priority <= 0):
			return false
		}
	}
	return true
}

// rankPlugins puts our plugins in the places of upstream's in a profile, and returns how
// they are made.
func rankPlugins(profile *schedulerapi.KubeSchedulerProfile) (frameworkruntime.Registry, error) {
	replaced := 0
	for i, p := range profile.Plugins.MultiPoint.Enabled {
		for theirs, ours := range map[string]string{queuesort.Name: queuePlugin, defaultpreemption.Name: preemptionPlugin} {
			if p.Name == theirs {
				profile.Plugins.MultiPoint.Enabled[i].Name = ours
				replaced++
			}
		}
	}
	var args runtime.Object
	for _, c := range profile.PluginConfig {
		if c.Name == defaultpreemption.Name {
			args = c.Args
		}
	}
	if replaced != 2 || args == nil {
		return nil, fmt.Errorf("the scheduler's plugins are not what they were in Kubernetes %s: review internal/kube", Version)
	}
	return frameworkruntime.Registry{
		queuePlugin: func(context.Context, runtime.Object, fwk.Handle) (fwk.Plugin, error) { return queueSort{}, nil },
		preemptionPlugin: func(ctx context.Context, _ runtime.Object, h fwk.Handle) (fwk.Plugin, error) {
			p, err := defaultpreemption.New(ctx, args, h, plfeature.NewSchedulerFeaturesFromGates(utilfeature.DefaultFeatureGate))
			if err != nil {
				return nil, err
			}
			p.IsEligiblePod = mayDisplace
			return tenantPreemption{p}, nil
		},
	}, nil
}
