package idle

import (
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// requestsLooked is how often upstream's cleaner looks at certificate signing
// requests, all of which end by themselves
// (k8s.io/kubernetes/pkg/controller/certificates/cleaner).
const requestsLooked = time.Hour

// Verdict says whether a control plane may be stopped.
type Verdict struct {
	// Busy is why not, for people; empty: it may be.
	Busy string
	// Due is when it has to run again by itself. The zero time: never.
	Due time.Time
}

// busy makes the verdict about an object that something is being done about.
func busy(what string, o interface{ GetName() string }, why string) Verdict {
	return Verdict{Busy: fmt.Sprintf("%s %s %s", what, o.GetName(), why)}
}

// due makes the verdict that nothing is to be done before a moment.
func due(at time.Time) Verdict { return Verdict{Due: at} }

// and joins two verdicts: busy wins, else what is due first.
func (v Verdict) and(w Verdict) Verdict {
	switch {
	case v.Busy != "":
		return v
	case w.Busy != "":
		return w
	case v.Due.IsZero() || !w.Due.IsZero() && w.Due.Before(v.Due):
		return w
	}
	return v
}

// Judge says whether the control plane with these objects may be stopped at now.
func Judge(o *Objects, now time.Time) Verdict {
	v := Verdict{}.
		and(all(o.Namespaces.Items, namespace)).
		and(all(o.Pods.Items, pod)).
		and(all(o.Replicators.Items, replicator)).
		and(all(o.Deployments.Items, deployment)).
		and(all(o.ReplicaSets.Items, replicaSet)).
		and(all(o.StatefulSets.Items, statefulSet)).
		and(all(o.DaemonSets.Items, daemonSet)).
		and(all(o.Jobs.Items, job)).
		and(all(o.Autoscalers.Items, autoscaler)).
		and(all(o.Budgets.Items, budget)).
		and(all(o.ServiceCIDRs.Items, serviceCIDR)).
		and(evictions(o.Nodes.Items, o.Pods.Items))
	for i := range o.CronJobs.Items {
		v = v.and(cronJob(&o.CronJobs.Items[i], now))
	}
	if len(o.Requests.Items) > 0 {
		v = v.and(due(now.Add(requestsLooked)))
	}
	return v
}

// all joins the verdicts about objects of one kind.
func all[T any](objects []T, judge func(*T) Verdict) Verdict {
	var v Verdict
	for i := range objects {
		v = v.and(judge(&objects[i]))
	}
	return v
}

// namespace: a namespace that ends is emptied step by step.
func namespace(n *corev1.Namespace) Verdict {
	if n.DeletionTimestamp != nil || n.Status.Phase == corev1.NamespaceTerminating {
		return busy("namespace", n, "is being deleted")
	}
	return Verdict{}
}

// pod: what a pod does is seen on the host, and wakes the tenant. Here counts only
// what the tenant's own controllers wait for.
func pod(p *corev1.Pod) Verdict {
	if p.DeletionTimestamp != nil {
		return busy("pod", p, "is being deleted")
	}
	if p.Status.Phase == corev1.PodFailed || p.Status.Phase == corev1.PodSucceeded {
		return Verdict{}
	}
	for _, c := range p.Status.Conditions {
		// upstream's disruption controller takes it back after two minutes, unless
		// it is the kubelet's
		if c.Type == corev1.DisruptionTarget && c.Status == corev1.ConditionTrue && c.Reason != corev1.PodReasonTerminationByKubelet {
			return busy("pod", p, "is about to be evicted")
		}
	}
	return Verdict{}
}
