package syncer

import (
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"sublet.dev/isolation/tenant"
	"sublet.dev/syncer/translate"
)

// waitDefaultClass waits until the host gives pods without a PriorityClass this one. Its
// admission learns by watching.
func waitDefaultClass(t *testing.T, class string) {
	t.Helper()
	wait(t, "the host's default class "+class, func() (bool, any) {
		pod := simplePod("default", "any")
		off := false
		pod.Spec.AutomountServiceAccountToken = &off
		p, err := w.host.CoreV1().Pods("default").Create(t.Context(), pod, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
		return err == nil && p.Spec.PriorityClassName == class, err
	})
}

// TestDefaultClassOfTheHost: a host may give its default PriorityClass to all pods that
// name none. The tenants' are refused, and say why, unless their plan has that class; then
// they run with it, and go on following the tenant's.
func TestDefaultClassOfTheHost(t *testing.T) {
	ns := namespace(t)
	hostPriority(t, "usual", 10, corev1.PreemptNever)
	if _, err := w.host.SchedulingV1().PriorityClasses().Patch(t.Context(), "usual", types.MergePatchType, []byte(`{"globalDefault":true}`), metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	waitDefaultClass(t, "usual")
	pod := simplePod(ns, "web")
	priorityClass(t, "mine", 7, corev1.PreemptLowerPriority)
	pod.Spec.PriorityClassName = "mine"
	own := create(t, pod)
	waitTenantPod(t, ns, "web", "refused", func(p *corev1.Pod) bool {
		return slices.ContainsFunc(p.Status.Conditions, func(c corev1.PodCondition) bool {
			return c.Type == corev1.PodScheduled && c.Reason == "HostRefused" && strings.Contains(c.Message, "have a PriorityClass of their tenant's plan, or none")
		})
	})
	ranksOffered(t, "usual")
	t.Cleanup(func() { w.syncer().SetPodTerms(translate.PodTerms{}) })
	hostPod := waitHostPod(t, ns, "web", own.UID)
	if s := hostPod.Spec; s.PriorityClassName != "usual" || *s.Priority != 10 || hostPod.Annotations[tenant.AnnotationRank] != "7" {
		t.Errorf("on the host it has %q, %d, %v", s.PriorityClassName, *s.Priority, hostPod.Annotations)
	}
	if _, err := w.tenant.CoreV1().Pods(ns).Patch(t.Context(), "web", types.MergePatchType, []byte(`{"metadata":{"labels":{"later":"yes"}}}`), metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	wait(t, "the same pod with the label", func() (bool, any) {
		p, err := w.host.CoreV1().Pods(acme.HostNamespace).Get(t.Context(), hostPod.Name, metav1.GetOptions{})
		return err == nil && p.UID == hostPod.UID && p.DeletionTimestamp == nil && p.Labels[tenant.HostLabel("later")] != "", p
	})
	dropPod(t, own, hostPod)
	grant(t, map[string]string{tenant.AnnotationPriorityClasses: ""})
	if err := w.host.SchedulingV1().PriorityClasses().Delete(t.Context(), "usual", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	waitDefaultClass(t, "") // before the next test makes pods
}
