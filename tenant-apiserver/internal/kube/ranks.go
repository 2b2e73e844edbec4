package kube

import (
	"context"
	"fmt"
	"math"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	utilfeature "k8s.io/apiserver/pkg/util/feature"
	corev1helpers "k8s.io/component-helpers/scheduling/corev1"
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
//
// A tenant's pod with a PriorityClass of the host, which its plan offers, is ranked by that
// among all pods: above 0 as the class says; below 0 behind all that have none. Of two
// tenants' pods the one displaces the other that has more priority on the host, where that
// of a pod without a class is 0.

// The names of our plugins, which are in the places of upstream's.
const (
	queuePlugin      = "SubletQueueSort"
	preemptionPlugin = "SubletPreemption"
)

// greatestRank bounds the priorities that tenants' classes can have (upstream's
// HighestUserDefinablePriority), and, negative, those that are told apart.
const greatestRank = 1_000_000_000

// The priorities by which the scheduler knows tenants' pods without a class: noRank those
// that have no rank, and leastRank those that have the least. Those with a class below 0
// come below that.
const (
	noRank    = -greatestRank - 1
	leastRank = noRank - greatestRank
)

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
	if pod.Spec.PriorityClassName != "" {
		priority := classed(corev1helpers.PodPriority(pod))
		pod.Spec.Priority = &priority
		return pod, nil
	}
	rank := tenant.ReadRank(pod.Annotations)
	priority := max(-greatestRank, min(rank.Priority, greatestRank)) + noRank
	pod.Spec.Priority = &priority
	if never := corev1.PreemptNever; rank.Patient {
		pod.Spec.PreemptionPolicy = &never
	}
	return pod, nil
}

// classed is the priority by which the scheduler knows a tenant's pod with a class of that
// value. What it gives stays: an informer may ask for it twice.
func classed(value int32) int32 {
	switch {
	case value == 0, value == noRank:
		return noRank
	case value < 0 && value >= leastRank:
		return max(value, math.MinInt32-leastRank) + leastRank
	default:
		return value
	}
}

// standing is the priority that a pod has on the host, of the scheduler's copy of it.
func standing(pod *corev1.Pod) int32 {
	switch priority := corev1helpers.PodPriority(pod); {
	case !ofTenant(pod) || priority > 0:
		return priority
	case priority < leastRank:
		return priority - leastRank
	default:
		return 0
	}
}

func ofTenant(pod *corev1.Pod) bool { return pod.Labels[tenant.LabelTenant] != "" }

// queueSort is upstream's order of the queue, but that tenants' pods without a class of the
// host come in the order in which they came: which of its own come first is for each
// tenant's syncer to say.
type queueSort struct{}

// Name implements fwk.Plugin.
func (queueSort) Name() string { return queuePlugin }

// Less implements fwk.QueueSortPlugin.
func (queueSort) Less(a, b fwk.QueuedEntityInfo) bool {
	ours, theirs := turn(a.GetPriority()), turn(b.GetPriority())
	return ours > theirs || ours == theirs && a.GetTimestamp().Before(b.GetTimestamp())
}

// turn is what of a priority counts in the queue: not the ranks of tenants, nor what the
// provider's pods have below 0.
func turn(priority int32) int32 {
	if priority < leastRank {
		return priority
	}
	return max(priority, 0)
}

// tenantPreemption is upstream's preemption within the bounds of [mayDisplace].
type tenantPreemption struct {
	*defaultpreemption.DefaultPreemption
}

// Name implements fwk.Plugin.
func (tenantPreemption) Name() string { return preemptionPlugin }

// mayDisplace says whether a pod may displace another of less priority: its own tenant's,
// and whose priority on the host is less. A tenant's without any never displaces one of the
// provider's.
func mayDisplace(_ fwk.NodeInfo, victim preemption.Victim, preemptor *corev1.Pod) bool {
	for _, info := range victim.Pods() {
		pod := info.GetPod()
		switch ours, theirs := standing(preemptor), standing(pod); {
		case ofTenant(preemptor) == ofTenant(pod) && (!ofTenant(pod) || pod.Namespace == preemptor.Namespace):
		case ours <= theirs, !ofTenant(pod) && ours <= 0:
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
