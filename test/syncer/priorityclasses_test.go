package syncer

import (
	"context"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"

	"sublet.dev/isolation/policy"
	"sublet.dev/isolation/tenant"
	"sublet.dev/syncer/translate"
)

// hostPriority makes a class of the host's, until the test ends.
func hostPriority(t *testing.T, name string, value int32, policy corev1.PreemptionPolicy) {
	t.Helper()
	class := &schedulingv1.PriorityClass{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"team": "secret"}}, Value: value, PreemptionPolicy: &policy, Description: name + " of the provider"}
	classes := w.host.SchedulingV1().PriorityClasses()
	if _, err := classes.Create(t.Context(), class, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = classes.Delete(context.Background(), name, metav1.DeleteOptions{}) })
}

// ranksOffered gives the tenant a plan with these PriorityClasses, as the manager and the
// cell do.
func ranksOffered(t *testing.T, classes ...string) {
	t.Helper()
	grant(t, map[string]string{tenant.AnnotationPriorityClasses: strings.Join(classes, ",")})
	w.syncer().SetPodTerms(translate.PodTerms{Offer: policy.Offer{PriorityClasses: classes}})
}

// waitPriority waits until the tenant has a class of that value, and returns it.
func waitPriority(t *testing.T, name string, is func(*schedulingv1.PriorityClass) bool) {
	t.Helper()
	wait(t, "the tenant's PriorityClass "+name, func() (bool, any) {
		class, err := w.tenant.SchedulingV1().PriorityClasses().Get(t.Context(), name, metav1.GetOptions{})
		return err == nil && is(class), class
	})
}

func isGold(c *schedulingv1.PriorityClass) bool {
	return c.Value == 1000 && c.Description == "gold of the provider" && !c.GlobalDefault && *c.PreemptionPolicy == corev1.PreemptLowerPriority && c.Labels["team"] == ""
}

// TestPriorityClassesByPlan: a tenant sees the host's PriorityClasses that its plan offers,
// and pods that name one have it on the host; other tenants' pods make room for them. What
// the tenant calls so itself stays its own. A plan that offers one no more takes it from no
// pod that runs.
func TestPriorityClassesByPlan(t *testing.T) {
	ns := namespace(t)
	for name, value := range map[string]int32{"gold": 1000, "silver": 500, "platinum": 1000000} {
		hostPriority(t, name, value, corev1.PreemptLowerPriority)
	}
	priorityClass(t, "silver", 7, corev1.PreemptLowerPriority)
	priorityClass(t, "platinum", 8, corev1.PreemptLowerPriority)
	neighbour := neighboursPod(t, "40")
	wait(t, "the neighbour's place", func() (bool, any) {
		p, err := w.host.CoreV1().Pods(neighbour.Namespace).Get(t.Context(), neighbour.Name, metav1.GetOptions{})
		return err == nil && p.Spec.NodeName == hostNode, p
	})
	missing := simplePod(ns, "early")
	missing.Spec.PriorityClassName = "gold"
	if _, err := w.tenant.CoreV1().Pods(ns).Create(t.Context(), missing, metav1.CreateOptions{}); !apierrors.IsForbidden(err) || !strings.Contains(err.Error(), "no PriorityClass with name gold") {
		t.Errorf("a class that the plan does not have: %v", err)
	}

	ranksOffered(t, "gold", "silver", "none-such")
	t.Cleanup(func() { w.syncer().SetPodTerms(translate.PodTerms{}) })
	waitPriority(t, "gold", isGold)
	waitEvent(t, "default", "silver", "PriorityClassNotShown", "which is yours")
	viewStays(t)

	// Its own: ranked among the tenant's pods, and nobody makes room for it.
	for class, rank := range map[string]string{"silver": "7", "platinum": "8"} {
		own := create(t, largePod(ns, class, class, "1"))
		hostPod := waitHostPod(t, ns, class, own.UID)
		if s := hostPod.Spec; s.PriorityClassName != "" || s.Priority == nil || *s.Priority != 0 || hostPod.Annotations[tenant.AnnotationRank] != rank {
			t.Errorf("a pod of the tenant's own class %s: %q, %v, rank %q", class, s.PriorityClassName, s.Priority, hostPod.Annotations[tenant.AnnotationRank])
		}
		dropPod(t, own, hostPod)
	}
	if err := w.tenant.SchedulingV1().PriorityClasses().Delete(t.Context(), "silver", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	waitPriority(t, "silver", func(c *schedulingv1.PriorityClass) bool { return c.Value == 500 })
	gold := create(t, largePod(ns, "gold", "gold", "40"))
	wait(t, "the neighbour to be displaced", func() (bool, any) {
		p, err := w.host.CoreV1().Pods(neighbour.Namespace).Get(t.Context(), neighbour.Name, metav1.GetOptions{})
		if err == nil && p.DeletionTimestamp != nil {
			remove(t, p)
		}
		return apierrors.IsNotFound(err), p
	})
	hostPod := waitHostPod(t, ns, "gold", gold.UID)
	if s := hostPod.Spec; s.PriorityClassName != "gold" || *s.Priority != 1000 || hostPod.Annotations[tenant.AnnotationRank] != "" {
		t.Errorf("on the host it has %q, %d, %v", s.PriorityClassName, *s.Priority, hostPod.Annotations)
	}
	ranksAreFenced(t, hostPod)
	large := create(t, largePod(ns, "large", "gold", "60"))
	waitUnschedulable(t, ns, "large")

	ranksOffered(t)
	classGoes(t, gold, large, hostPod)
	dropPod(t, gold, hostPod)
}

// viewStays: what the tenant makes of a view is undone; what it makes itself is not.
func viewStays(t *testing.T) {
	t.Helper()
	classes := w.tenant.SchedulingV1().PriorityClasses()
	patch := []byte(`{"globalDefault":true,"description":"mine"}`)
	if _, err := classes.Patch(t.Context(), "gold", types.MergePatchType, patch, metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	waitPriority(t, "gold", isGold)
	if err := classes.Delete(t.Context(), "gold", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	waitPriority(t, "gold", isGold)
	for name, value := range map[string]int32{"silver": 7, "platinum": 8} {
		if own, err := classes.Get(t.Context(), name, metav1.GetOptions{}); err != nil || own.Value != value || len(own.Labels) > 0 {
			t.Errorf("the tenant's own class %s: %v, %v", name, own, err)
		}
	}
	if _, err := classes.Get(t.Context(), "none-such", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("a class that the host does not have: %v", err)
	}
}

// ranksAreFenced: the host lets the tenant's identity make pods of the plan's classes, and of
// no others.
func ranksAreFenced(t *testing.T, made *corev1.Pod) {
	t.Helper()
	writer := hostAs(t, tenant.WriteUser(acme.HostNamespace))
	for class, allowed := range map[string]bool{"": true, "gold": true, "platinum": false, "system-node-critical": false} {
		if err := fencedPod(t, writer, made, class); (err == nil) != allowed || !allowed && !strings.Contains(err.Error(), "have a PriorityClass of their tenant's plan, or none") {
			t.Errorf("%q at the host's API: %v", class, err)
		}
	}
}

// fencedPod tries to make a pod as the syncer made one, of a class, without doing it.
func fencedPod(t *testing.T, writer *kubernetes.Clientset, made *corev1.Pod, class string) error {
	t.Helper()
	planted := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: made.Namespace, Name: "planted", Labels: made.Labels, Annotations: made.Annotations}, Spec: *made.Spec.DeepCopy()}
	planted.Spec.NodeName, planted.Spec.Priority, planted.Spec.PreemptionPolicy, planted.Spec.PriorityClassName = "", nil, nil, class
	_, err := writer.CoreV1().Pods(acme.HostNamespace).Create(t.Context(), planted, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
	return err
}

// classGoes: the plan has the class no more. The pod that runs keeps it, and still follows
// its tenant's; the one that waits has it no more; no other gets it.
func classGoes(t *testing.T, runs, waits, before *corev1.Pod) {
	t.Helper()
	wait(t, "the view is gone", func() (bool, any) {
		_, err := w.tenant.SchedulingV1().PriorityClasses().Get(t.Context(), "gold", metav1.GetOptions{})
		return apierrors.IsNotFound(err), err
	})
	hostPods := w.host.CoreV1().Pods(acme.HostNamespace)
	wait(t, "the waiting pod without the class", func() (bool, any) {
		p, err := hostPods.Get(t.Context(), hostName(waits.Namespace, waits.Name), metav1.GetOptions{})
		return err == nil && p.Spec.PriorityClassName == "" && *p.Spec.Priority == 0 && p.Annotations[tenant.AnnotationRank] == "1000", p
	})
	if _, err := w.tenant.CoreV1().Pods(runs.Namespace).Patch(t.Context(), runs.Name, types.MergePatchType, []byte(`{"metadata":{"labels":{"later":"yes"}}}`), metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	wait(t, "the change of the pod that runs", func() (bool, any) {
		p, err := hostPods.Get(t.Context(), before.Name, metav1.GetOptions{})
		return err == nil && p.UID == before.UID && p.DeletionTimestamp == nil && p.Spec.PriorityClassName == "gold" && p.Labels[tenant.HostLabel("later")] != "", p
	})
	late := simplePod(runs.Namespace, "late")
	late.Spec.PriorityClassName = "gold"
	if _, err := w.tenant.CoreV1().Pods(runs.Namespace).Create(t.Context(), late, metav1.CreateOptions{}); !apierrors.IsForbidden(err) {
		t.Errorf("a pod of the class: %v", err)
	}
	if err := fencedPod(t, hostAs(t, tenant.WriteUser(acme.HostNamespace)), before, "gold"); err == nil || !strings.Contains(err.Error(), "PriorityClass") {
		t.Errorf("the same at the host's API: %v", err)
	}
	e, err := w.syncer().ExplainPod(t.Context(), translate.NameOf(waits))
	if err != nil || !slices.ContainsFunc(e.Fields, func(f translate.Fate) bool {
		return f.Field == "spec.priorityClassName" && f.Fate == "translated"
	}) {
		t.Errorf("explained as %+v, %v", e, err)
	}
	if err := w.tenant.CoreV1().Pods(waits.Namespace).Delete(t.Context(), waits.Name, metav1.DeleteOptions{}); err != nil {
		t.Error(err)
	}
}
