package syncer

import (
	"context"
	"encoding/json"
	"os"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"sublet.dev/isolation/tenant"
)

// priorityClass makes a class of the tenant's, until the test ends.
func priorityClass(t *testing.T, name string, value int32, policy corev1.PreemptionPolicy) {
	t.Helper()
	class := &schedulingv1.PriorityClass{ObjectMeta: metav1.ObjectMeta{Name: name}, Value: value, PreemptionPolicy: &policy}
	classes := w.tenant.SchedulingV1().PriorityClasses()
	if _, err := classes.Create(t.Context(), class, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = classes.Delete(context.Background(), name, metav1.DeleteOptions{}) })
}

func largePod(namespace, name, class, cpu string) *corev1.Pod {
	p := simplePod(namespace, name)
	p.Spec.PriorityClassName = class
	p.Spec.Containers[0].Resources.Requests = corev1.ResourceList{corev1.ResourceCPU: resource.MustParse(cpu)}
	return p
}

// neighboursPod is another tenant's on the host, with the least priority of all.
func neighboursPod(t *testing.T, cpu string) *corev1.Pod {
	t.Helper()
	made, err := w.host.CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "sublet-neighbour-"}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	namespace := made.Name
	pod := largePod(namespace, "busy", "", cpu)
	pod.Labels = map[string]string{tenant.LabelTenant: "neighbour"}
	pod.Annotations = map[string]string{tenant.AnnotationRank: tenant.Rank{Priority: -1000}.String()}
	wait(t, "the neighbour's pod", func() (bool, any) { // its service account is made after the namespace
		created, err := w.host.CoreV1().Pods(namespace).Create(t.Context(), pod, metav1.CreateOptions{})
		if err == nil {
			pod = created
		}
		return err == nil, err
	})
	t.Cleanup(func() {
		none := int64(0)
		_ = w.host.CoreV1().Pods(namespace).Delete(context.Background(), pod.Name, metav1.DeleteOptions{GracePeriodSeconds: &none})
		_ = w.host.CoreV1().Namespaces().Delete(context.Background(), namespace, metav1.DeleteOptions{})
	})
	return pod
}

// TestPriorities: a pod displaces pods of its own tenant that have less priority, and
// nobody else's; a patient one waits. The tenant is told why its pod ended.
func TestPriorities(t *testing.T) {
	if os.Getenv(hostVariable) != "" {
		t.Skip("upstream's scheduler, unchanged, does not know the ranks of tenants' pods")
	}
	ns := namespace(t)
	priorityClass(t, "urgent", 1000, corev1.PreemptLowerPriority)
	priorityClass(t, "patient", 1000, corev1.PreemptNever)
	neighbour := neighboursPod(t, "20")
	wait(t, "the neighbour's place", func() (bool, any) {
		p, err := w.host.CoreV1().Pods(neighbour.Namespace).Get(t.Context(), neighbour.Name, metav1.GetOptions{})
		return err == nil && p.Spec.NodeName == hostNode, p
	})
	low := create(t, largePod(ns, "low", "", "40"))
	lowOnHost := waitHostPod(t, ns, "low", low.UID)
	setRunning(t, lowOnHost, "10.244.0.41")
	create(t, largePod(ns, "greedy", "urgent", "60"))
	waitUnschedulable(t, ns, "greedy")
	create(t, largePod(ns, "patient", "patient", "30"))
	waitUnschedulable(t, ns, "patient")
	if p, err := w.host.CoreV1().Pods(lowOnHost.Namespace).Get(t.Context(), lowOnHost.Name, metav1.GetOptions{}); err != nil || p.DeletionTimestamp != nil {
		t.Fatalf("a pod that waits, or one that would need the neighbour's place, displaced one: %v, %v", p.ObjectMeta, err)
	}

	urgent := create(t, largePod(ns, "urgent", "urgent", "30"))
	waitTenantPod(t, ns, "low", "to be displaced", func(p *corev1.Pod) bool {
		return slices.ContainsFunc(p.Status.Conditions, func(c corev1.PodCondition) bool {
			return c.Type == corev1.DisruptionTarget && c.Reason == corev1.PodReasonPreemptionByScheduler
		})
	})
	waitEvent(t, ns, "low", "Preempted", "a pod of higher priority on node "+acme.ID.NodeName(hostNode))
	remove(t, lowOnHost)
	waitHostPod(t, ns, "urgent", urgent.UID)
	ended := waitTenantPod(t, ns, "low", "failed", func(p *corev1.Pod) bool { return p.Status.Phase == corev1.PodFailed })
	if ended.Status.Reason != corev1.PodReasonPreemptionByScheduler {
		t.Errorf("the tenant is told %q: %s", ended.Status.Reason, ended.Status.Message)
	}
	p, err := w.host.CoreV1().Pods(neighbour.Namespace).Get(t.Context(), neighbour.Name, metav1.GetOptions{})
	if err != nil || p.UID != neighbour.UID || p.DeletionTimestamp != nil {
		t.Errorf("the neighbour's pod: %v, %v", p.ObjectMeta, err)
	}
	events, err := w.tenant.CoreV1().Events(ns).List(t.Context(), metav1.ListOptions{})
	if data, _ := json.Marshal(events); err != nil || strings.Contains(string(data), hostNode) || strings.Contains(string(data), neighbour.Namespace) {
		t.Errorf("the tenant's events: %v, %s", err, data)
	}
	hostPod := waitHostPod(t, ns, "urgent", urgent.UID)
	if hostPod.Spec.PriorityClassName != "" || hostPod.Spec.Priority != nil && *hostPod.Spec.Priority != 0 {
		t.Errorf("it has a priority on the host: %q, %v", hostPod.Spec.PriorityClassName, hostPod.Spec.Priority)
	}
	for _, name := range []string{"greedy", "patient", "low"} {
		if err := w.tenant.CoreV1().Pods(ns).Delete(t.Context(), name, metav1.DeleteOptions{GracePeriodSeconds: new(int64)}); err != nil {
			t.Error(err)
		}
	}
	dropPod(t, urgent, hostPod)
}
