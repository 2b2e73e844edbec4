package idle

import (
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	batchv1 "k8s.io/api/batch/v1"
	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// now is a Saturday, 12:00:30 UTC.
var now = time.Date(2026, 11, 21, 12, 0, 30, 0, time.UTC)

func at(d time.Duration) *metav1.Time { return &metav1.Time{Time: now.Add(d)} }

func ptr[T any](v T) *T { return &v }

// settled is a tenant of each kind of object in which nobody waits for anything.
func settled() *Objects {
	meta := metav1.ObjectMeta{Name: "x", Generation: 3, CreationTimestamp: *at(-24 * time.Hour)}
	complete := batchv1.JobStatus{Conditions: []batchv1.JobCondition{{Type: batchv1.JobComplete, Status: corev1.ConditionTrue, LastTransitionTime: *at(-time.Hour)}}}
	return &Objects{
		Namespaces:  corev1.NamespaceList{Items: []corev1.Namespace{{ObjectMeta: meta}}},
		Pods:        corev1.PodList{Items: []corev1.Pod{{ObjectMeta: meta}}},
		Replicators: corev1.ReplicationControllerList{Items: []corev1.ReplicationController{{ObjectMeta: meta, Spec: corev1.ReplicationControllerSpec{Replicas: ptr[int32](2)}, Status: corev1.ReplicationControllerStatus{ObservedGeneration: 3, Replicas: 2, ReadyReplicas: 1, AvailableReplicas: 1}}}},
		Deployments: appsv1.DeploymentList{Items: []appsv1.Deployment{{ObjectMeta: meta, Status: appsv1.DeploymentStatus{ObservedGeneration: 3, Replicas: 1, UpdatedReplicas: 1, AvailableReplicas: 1}}}},
		ReplicaSets: appsv1.ReplicaSetList{Items: []appsv1.ReplicaSet{{ObjectMeta: meta, Status: appsv1.ReplicaSetStatus{ObservedGeneration: 3, Replicas: 1, ReadyReplicas: 1, AvailableReplicas: 1}}}},
		StatefulSets: appsv1.StatefulSetList{Items: []appsv1.StatefulSet{{ObjectMeta: meta, Status: appsv1.StatefulSetStatus{
			ObservedGeneration: 3, Replicas: 1, ReadyReplicas: 1, AvailableReplicas: 1, CurrentRevision: "a", UpdateRevision: "a"}}}},
		Jobs:         batchv1.JobList{Items: []batchv1.Job{{ObjectMeta: meta, Status: complete}}},
		Budgets:      policyv1.PodDisruptionBudgetList{Items: []policyv1.PodDisruptionBudget{{ObjectMeta: meta, Status: policyv1.PodDisruptionBudgetStatus{ObservedGeneration: 3}}}},
		ServiceCIDRs: networkingv1.ServiceCIDRList{Items: []networkingv1.ServiceCIDR{{ObjectMeta: meta}}},
	}
}

func TestSettled(t *testing.T) {
	if v := Judge(settled(), now); v != (Verdict{}) {
		t.Errorf("%+v", v)
	}
	if v := Judge(&Objects{}, now); v != (Verdict{}) {
		t.Errorf("without objects: %+v", v)
	}
}

// tainted puts the pod on a node with a taint, which it tolerates for so many seconds
// each.
func tainted(o *Objects, effect corev1.TaintEffect, seconds ...*int64) {
	taint := corev1.Taint{Key: "k", Value: "v", Effect: effect}
	o.Nodes.Items = []corev1.Node{{ObjectMeta: metav1.ObjectMeta{Name: "n"}, Spec: corev1.NodeSpec{Taints: []corev1.Taint{taint}}}}
	p := &o.Pods.Items[0].Spec
	p.NodeName = "n"
	p.Tolerations = []corev1.Toleration{{Key: "other", Operator: corev1.TolerationOpExists}}
	for _, s := range seconds {
		p.Tolerations = append(p.Tolerations, corev1.Toleration{Key: "k", Value: "v", TolerationSeconds: s})
	}
}

func TestBusy(t *testing.T) {
	for name, change := range map[string]func(*Objects){
		"namespace x":            func(o *Objects) { o.Namespaces.Items[0].Status.Phase = corev1.NamespaceTerminating },
		"pod x is being deleted": func(o *Objects) { o.Pods.Items[0].DeletionTimestamp = at(0) },
		"pod x is about": func(o *Objects) {
			o.Pods.Items[0].Status.Conditions = []corev1.PodCondition{{Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue}}
		},
		"pod x will be evicted":          func(o *Objects) { tainted(o, corev1.TaintEffectNoExecute, ptr[int64](3600)) },
		"pod x will be evicted from its": func(o *Objects) { tainted(o, corev1.TaintEffectNoExecute) },
		"replication controller x":       func(o *Objects) { o.Replicators.Items[0].Status.AvailableReplicas = 0 },
		"deployment x has changed":       func(o *Objects) { o.Deployments.Items[0].Generation++ },
		"deployment x is being":          func(o *Objects) { o.Deployments.Items[0].Status.AvailableReplicas = 0 },
		"replica set x":                  func(o *Objects) { o.ReplicaSets.Items[0].Status.Replicas = 0 },
		"stateful set x":                 func(o *Objects) { o.StatefulSets.Items[0].Status.UpdateRevision = "b" },
		"daemon set x": func(o *Objects) {
			o.DaemonSets.Items = append(o.DaemonSets.Items, appsv1.DaemonSet{ObjectMeta: metav1.ObjectMeta{Name: "x"}})
		},
		"job x has not ended":     func(o *Objects) { o.Jobs.Items[0].Status.Conditions[0].Status = corev1.ConditionFalse },
		"horizontal pod":          func(o *Objects) { o.Autoscalers.Items = make([]autoscalingv2.HorizontalPodAutoscaler, 1) },
		"pod disruption budget x": func(o *Objects) { o.Budgets.Items[0].Status.DisruptedPods = map[string]metav1.Time{"p": *at(0)} },
		"service CIDR x":          func(o *Objects) { o.ServiceCIDRs.Items[0].DeletionTimestamp = at(0) },
		"cron job x": func(o *Objects) {
			o.CronJobs.Items = []batchv1.CronJob{{ObjectMeta: metav1.ObjectMeta{Name: "x"}, Spec: batchv1.CronJobSpec{Schedule: "TZ=0"}}}
		},
		"cron job x is due at": func(o *Objects) { // 5 s ago, and nobody has seen to it
			o.CronJobs.Items = []batchv1.CronJob{cronJobOf("@every 5m", at(-305*time.Second), nil, nil)}
		},
	} {
		o := settled()
		change(o)
		if v := Judge(o, now); !strings.HasPrefix(v.Busy, name) {
			t.Errorf("%s: %+v", name, v)
		}
	}
}

func TestStillSettled(t *testing.T) {
	for name, change := range map[string]func(*Objects){
		"a rollout that missed its deadline": func(o *Objects) {
			d := &o.Deployments.Items[0]
			d.Status.AvailableReplicas = 0
			d.Status.Conditions = []appsv1.DeploymentCondition{{Type: appsv1.DeploymentProgressing, Status: corev1.ConditionFalse, Reason: "ProgressDeadlineExceeded"}}
		},
		"a taint that a pod tolerates for ever": func(o *Objects) { tainted(o, corev1.TaintEffectNoExecute, nil, ptr[int64](5)) },
		"a taint that evicts nobody":            func(o *Objects) { tainted(o, corev1.TaintEffectNoSchedule) },
		"a taint of another node": func(o *Objects) {
			tainted(o, corev1.TaintEffectNoExecute)
			o.Nodes.Items[0].Name = "other"
		},
		"a pod that was lost": func(o *Objects) {
			o.Pods.Items[0].Status = corev1.PodStatus{Phase: corev1.PodFailed, Conditions: []corev1.PodCondition{{Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue}}}
		},
		"a paused rollout": func(o *Objects) {
			o.Deployments.Items[0].Status.UpdatedReplicas, o.Deployments.Items[0].Spec.Paused = 0, true
		},
		"a job that is suspended": func(o *Objects) {
			o.Jobs.Items[0].Status, o.Jobs.Items[0].Spec.Suspend = batchv1.JobStatus{}, ptr(true)
		},
		"a schedule that is suspended": func(o *Objects) {
			o.CronJobs.Items = []batchv1.CronJob{{Spec: batchv1.CronJobSpec{Schedule: "* * * * *", Suspend: ptr(true)}}}
		},
		"a day that never comes": func(o *Objects) {
			o.CronJobs.Items = []batchv1.CronJob{{Spec: batchv1.CronJobSpec{Schedule: "0 0 31 2 *"}}}
		},
	} {
		o := settled()
		change(o)
		if v := Judge(o, now); v != (Verdict{}) {
			t.Errorf("%s: %+v", name, v)
		}
	}
}

func cronJobOf(schedule string, created, last *metav1.Time, zone *string) batchv1.CronJob {
	return batchv1.CronJob{ObjectMeta: metav1.ObjectMeta{Name: "x", CreationTimestamp: *created}, Spec: batchv1.CronJobSpec{Schedule: schedule, TimeZone: zone}, Status: batchv1.CronJobStatus{LastScheduleTime: last}}
}

func TestDue(t *testing.T) {
	day := at(-24 * time.Hour)
	for name, c := range map[string]struct {
		change func(*Objects)
		want   time.Duration // from now
	}{
		"a schedule": {func(o *Objects) {
			o.CronJobs.Items = []batchv1.CronJob{cronJobOf("*/15 * * * *", day, at(-30*time.Second), nil)}
		}, 14*time.Minute + 30*time.Second},
		"a schedule that was not used": {func(o *Objects) { o.CronJobs.Items = []batchv1.CronJob{cronJobOf("*/15 * * * *", day, day, nil)} }, 14*time.Minute + 30*time.Second},
		"the first of two": {func(o *Objects) {
			o.CronJobs.Items = []batchv1.CronJob{cronJobOf("0 18 * * *", day, nil, nil), cronJobOf("0 13 * * *", day, nil, nil)}
		}, 59*time.Minute + 30*time.Second},
		"a schedule elsewhere": {func(o *Objects) {
			o.CronJobs.Items = []batchv1.CronJob{cronJobOf("0 14 * * *", day, day, ptr("Europe/Berlin"))}
		}, 59*time.Minute + 30*time.Second},
		"counted from the last": {func(o *Objects) {
			o.CronJobs.Items = []batchv1.CronJob{cronJobOf("@every 1h", day, at(-40*time.Minute), nil)}
		}, 20 * time.Minute},
		"counted from long ago": {func(o *Objects) {
			o.CronJobs.Items = []batchv1.CronJob{cronJobOf("@every 1h", day, at(-200*time.Minute), nil)}
		}, 40 * time.Minute},
		"a time to live":       {func(o *Objects) { o.Jobs.Items[0].Spec.TTLSecondsAfterFinished = ptr[int32](4000) }, 400 * time.Second},
		"certificate requests": {func(o *Objects) { o.Requests.Items = make([]certificatesv1.CertificateSigningRequest, 2) }, time.Hour},
	} {
		o := settled()
		c.change(o)
		if v := Judge(o, now); v.Busy != "" || !v.Due.Equal(now.Add(c.want)) {
			t.Errorf("%s: %+v (in %s), want in %s", name, v, v.Due.Sub(now), c.want)
		}
	}
}

// A time that has just come makes busy until it is used, and no longer than the
// controller may be late.
func TestJustDue(t *testing.T) {
	hour := now.Truncate(time.Hour)
	for name, c := range map[string]struct {
		last time.Time
		now  time.Time
		busy bool
	}{
		"before":               {hour.Add(-time.Minute), hour.Add(-time.Second), false},
		"then":                 {hour.Add(-time.Minute), hour, true},
		"soon after":           {hour.Add(-time.Minute), hour.Add(2 * time.Second), true},
		"soon after, used":     {hour, hour.Add(2 * time.Second), false},
		"long after, not used": {hour.Add(-time.Minute), hour.Add(20 * time.Second), false},
	} {
		o := &Objects{CronJobs: batchv1.CronJobList{Items: []batchv1.CronJob{cronJobOf("* * * * *", at(-24*time.Hour), &metav1.Time{Time: c.last}, nil)}}}
		if v := Judge(o, c.now); (v.Busy != "") != c.busy || !c.busy && !v.Due.After(c.now) {
			t.Errorf("%s: %+v", name, v)
		}
	}
}

func TestBusyWins(t *testing.T) {
	o := settled()
	o.CronJobs.Items = []batchv1.CronJob{cronJobOf("* * * * *", at(-time.Hour), nil, nil)}
	o.Pods.Items[0].DeletionTimestamp = at(0)
	if v := Judge(o, now); v.Busy == "" {
		t.Errorf("%+v", v)
	}
}
