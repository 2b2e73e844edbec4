package kube

import (
	"fmt"
	"math"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	corev1helpers "k8s.io/component-helpers/scheduling/corev1"
	"k8s.io/kubernetes/pkg/scheduler/framework"
	"k8s.io/kubernetes/pkg/scheduler/framework/preemption"
	"k8s.io/utils/ptr"

	"sublet.dev/isolation/tenant"
)

// rankedPod is the scheduler's copy of a pod: a tenant's unless namespace is "", with the
// priority that the host made of a class, or the rank that its tenant gives it.
func rankedPod(t *testing.T, namespace, class string, priority, rank int32) *corev1.Pod {
	t.Helper()
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "kube-system"}, Spec: corev1.PodSpec{PriorityClassName: class, Priority: &priority}}
	if namespace != "" {
		pod.Namespace, pod.Labels = namespace, map[string]string{tenant.LabelTenant: namespace}
		pod.Annotations = map[string]string{tenant.AnnotationRank: tenant.Rank{Priority: rank}.String()}
	}
	for range 2 { // an informer may ask again
		if _, err := ranked(pod); err != nil {
			t.Fatal(err)
		}
	}
	return pod
}

// The scheduler knows pods in the order of their priority on the host, and those of tenants
// that have none in that of their ranks, all of them below the provider's.
func TestRanked(t *testing.T) {
	order := []*corev1.Pod{
		rankedPod(t, "a", "worst", math.MinInt32, 0), rankedPod(t, "a", "spare", -100, 0), rankedPod(t, "a", "spare", -1, 0),
		rankedPod(t, "a", "", 0, math.MinInt32), rankedPod(t, "b", "", 0, -5), rankedPod(t, "a", "", 0, 0), rankedPod(t, "a", "", 0, 1_000_000_000),
		rankedPod(t, "", "", 0, 0), rankedPod(t, "a", "some", 1, 0), rankedPod(t, "", "", 500, 0), rankedPod(t, "b", "gold", 1000, 0), rankedPod(t, "", "system-node-critical", 2_000_001_000, 0),
	}
	for i := 1; i < len(order); i++ {
		if before, after := corev1helpers.PodPriority(order[i-1]), corev1helpers.PodPriority(order[i]); before >= after {
			t.Errorf("%d has %d, and the next one %d", i-1, before, after)
		}
	}
	if none, zero := rankedPod(t, "a", "", 0, 0), rankedPod(t, "a", "zero", 0, 0); *none.Spec.Priority != *zero.Spec.Priority {
		t.Errorf("a class of 0 is %d, and none %d", *zero.Spec.Priority, *none.Spec.Priority)
	}
	never := rankedPod(t, "a", "calm", 7, 0)
	never.Spec.PreemptionPolicy = ptr.To(corev1.PreemptNever)
	if _, err := ranked(never); err != nil || *never.Spec.PreemptionPolicy != corev1.PreemptNever || *never.Spec.Priority != 7 {
		t.Errorf("what the class says: %+v, %v", never.Spec, err)
	}
}

// victimOf is a pod that might be displaced, as the scheduler has it.
func victimOf(t *testing.T, pod *corev1.Pod) preemption.Victim {
	t.Helper()
	info, err := framework.NewPodInfo(pod)
	if err != nil {
		t.Fatal(err)
	}
	return preemption.NewPodVictim(info, nil, nil)
}

// A pod displaces its own tenant's, and others only by its priority on the host.
func TestMayDisplace(t *testing.T) {
	pod := func(namespace, class string, priority, rank int32) *corev1.Pod {
		return rankedPod(t, namespace, class, priority, rank)
	}
	for i, c := range []struct {
		preemptor, victim *corev1.Pod
		may               bool
	}{
		{pod("a", "", 0, 9), pod("a", "", 0, 1), true},
		{pod("a", "", 0, 9), pod("b", "", 0, 1), false},
		{pod("a", "", 0, 9), pod("", "", 0, 0), false},
		{pod("a", "", 0, 9), pod("", "", -100, 0), false},
		{pod("", "", 1, 0), pod("a", "", 0, 9), true},
		{pod("", "", 0, 0), pod("a", "", 0, 9), false},
		{pod("", "", -1, 0), pod("a", "", 0, 9), false},
		{pod("", "", 0, 0), pod("", "", -1, 0), true},
		{pod("a", "gold", 1000, 0), pod("b", "", 0, 9), true},
		{pod("a", "gold", 1000, 0), pod("a", "", 0, 9), true},
		{pod("a", "gold", 1000, 0), pod("b", "some", 1, 0), true},
		{pod("a", "gold", 1000, 0), pod("b", "gold", 1000, 0), false},
		{pod("a", "gold", 1000, 0), pod("", "", 0, 0), true},
		{pod("a", "gold", 1000, 0), pod("", "", 1000, 0), false},
		{pod("a", "zero", 0, 0), pod("b", "", 0, -9), false},
		{pod("a", "spare", -1, 0), pod("b", "", 0, -9), false},
		{pod("a", "spare", -1, 0), pod("", "", -100, 0), false},
		{pod("a", "", 0, 0), pod("b", "spare", -1, 0), true},
		{pod("", "", 0, 0), pod("b", "spare", -1, 0), true},
		{pod("", "", 500, 0), pod("a", "gold", 1000, 0), false},
	} {
		name := fmt.Sprintf("%d: %s %s for %s %s", i, c.victim.Namespace, c.victim.Spec.PriorityClassName, c.preemptor.Namespace, c.preemptor.Spec.PriorityClassName)
		if got := mayDisplace(nil, victimOf(t, c.victim), c.preemptor); got != c.may {
			t.Errorf("%s: %v", name, got)
		}
	}
}
