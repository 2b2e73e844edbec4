package idle

import (
	"time"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
)

// wanted returns the number of replicas, which the API defaults to one.
func wanted(n *int32) int32 {
	if n == nil {
		return 1
	}
	return *n
}

const (
	notSeen     = "has changed and no controller has looked at it yet"
	progressing = "is being rolled out"
)

// replicator: pods are still being made or removed, or have to stay ready for a
// while to count.
func replicator(r *corev1.ReplicationController) Verdict {
	s, n := r.Status, wanted(r.Spec.Replicas)
	switch {
	case s.ObservedGeneration < r.Generation:
		return busy("replication controller", r, notSeen)
	case s.Replicas != n || s.AvailableReplicas != s.ReadyReplicas:
		return busy("replication controller", r, progressing)
	}
	return Verdict{}
}

func replicaSet(r *appsv1.ReplicaSet) Verdict {
	s, n := r.Status, wanted(r.Spec.Replicas)
	switch {
	case s.ObservedGeneration < r.Generation:
		return busy("replica set", r, notSeen)
	case s.Replicas != n || s.AvailableReplicas != s.ReadyReplicas:
		return busy("replica set", r, progressing)
	}
	return Verdict{}
}

// deployment: one that is not complete has a deadline for its progress. One that has
// missed it waits for its pods, which are seen on the host.
func deployment(d *appsv1.Deployment) Verdict {
	s, n := d.Status, wanted(d.Spec.Replicas)
	if s.ObservedGeneration < d.Generation {
		return busy("deployment", d, notSeen)
	}
	if s.UpdatedReplicas == n && s.Replicas == n && s.AvailableReplicas == n || d.Spec.Paused {
		return Verdict{}
	}
	for _, c := range s.Conditions {
		if c.Type == appsv1.DeploymentProgressing && c.Status == corev1.ConditionFalse && c.Reason == "ProgressDeadlineExceeded" {
			return Verdict{}
		}
	}
	return busy("deployment", d, progressing)
}

func statefulSet(set *appsv1.StatefulSet) Verdict {
	s, n := set.Status, wanted(set.Spec.Replicas)
	onDelete := set.Spec.UpdateStrategy.Type == appsv1.OnDeleteStatefulSetStrategyType
	switch {
	case s.ObservedGeneration < set.Generation:
		return busy("stateful set", set, notSeen)
	case s.Replicas != n || s.ReadyReplicas != n || s.AvailableReplicas != n,
		!onDelete && s.CurrentRevision != s.UpdateRevision && !partitioned(set):
		return busy("stateful set", set, progressing)
	}
	return Verdict{}
}

// partitioned says whether a part of the set is kept at its older revision.
func partitioned(set *appsv1.StatefulSet) bool {
	u := set.Spec.UpdateStrategy.RollingUpdate
	return u != nil && u.Partition != nil && *u.Partition > 0
}

// daemonSet: it follows the nodes, and nobody looks at those for a tenant that
// sleeps.
func daemonSet(d *appsv1.DaemonSet) Verdict { return busy("daemon set", d, "follows the nodes") }

// autoscaler: it asks for metrics every few seconds.
func autoscaler(a *autoscalingv2.HorizontalPodAutoscaler) Verdict {
	return busy("horizontal pod autoscaler", a, "looks at metrics all the time")
}

func budget(b *policyv1.PodDisruptionBudget) Verdict {
	if b.Status.ObservedGeneration < b.Generation {
		return busy("pod disruption budget", b, notSeen)
	}
	if len(b.Status.DisruptedPods) > 0 {
		return busy("pod disruption budget", b, "waits for evicted pods")
	}
	return Verdict{}
}

func serviceCIDR(s *networkingv1.ServiceCIDR) Verdict {
	if s.DeletionTimestamp != nil {
		return busy("service CIDR", s, "is being deleted")
	}
	return Verdict{}
}

// job: one that has ended may have a time to live; one that has not is busy, for it
// has deadlines and pauses between its tries.
func job(j *batchv1.Job) Verdict {
	ended := jobEnded(j)
	switch {
	case ended.IsZero() && j.Spec.Suspend != nil && *j.Spec.Suspend && j.Status.Active == 0:
		return Verdict{}
	case ended.IsZero():
		return busy("job", j, "has not ended")
	case j.Spec.TTLSecondsAfterFinished != nil:
		return due(ended.Add(time.Duration(*j.Spec.TTLSecondsAfterFinished) * time.Second))
	}
	return Verdict{}
}

// jobEnded returns when the job ended, as upstream's TTL controller sees it; the zero
// time when it has not.
func jobEnded(j *batchv1.Job) time.Time {
	for _, c := range j.Status.Conditions {
		if (c.Type == batchv1.JobComplete || c.Type == batchv1.JobFailed) && c.Status == corev1.ConditionTrue {
			return c.LastTransitionTime.Time
		}
	}
	return time.Time{}
}
