package syncer

import (
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	nodev1 "k8s.io/api/node/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"sublet.dev/isolation/policy"
	"sublet.dev/syncer/translate"
)

// A tenant sees the RuntimeClasses that its plan offers; pods that name one, or a class of
// the tenant's with its handler, run in the tenant's one sandbox. Others never run.
func TestRuntimeClassesByPlan(t *testing.T) {
	ns := namespace(t)
	w.syncer().SetPodTerms(translate.PodTerms{Offer: policy.Offer{RuntimeClasses: []string{"offered"}}})
	t.Cleanup(func() { w.syncer().SetPodTerms(translate.PodTerms{}) })
	classes := w.tenant.NodeV1().RuntimeClasses()
	wait(t, "the view", func() (bool, any) {
		view, err := classes.Get(t.Context(), "offered", metav1.GetOptions{})
		return err == nil && view.Handler == "offered", view
	})
	for name, handler := range map[string]string{"mine": "offered", "foreign": "runc"} {
		class := &nodev1.RuntimeClass{ObjectMeta: metav1.ObjectMeta{Name: name}, Handler: handler}
		if _, err := classes.Create(t.Context(), class, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = classes.Delete(t.Context(), name, metav1.DeleteOptions{}) })
	}
	pod := func(class string) *corev1.Pod {
		p := simplePod(ns, class)
		p.Spec.RuntimeClassName = &class
		return p
	}
	refused := create(t, pod("foreign"))
	for _, class := range []string{"offered", "mine"} {
		own := create(t, pod(class))
		hostPod := waitHostPod(t, ns, class, own.UID)
		if c := hostPod.Spec.RuntimeClassName; c == nil || *c != acme.Sandbox.RuntimeClass() {
			t.Errorf("%s runs in %v", class, c)
		}
	}
	waitTenantPod(t, ns, "foreign", "refused", func(p *corev1.Pod) bool {
		return slices.ContainsFunc(p.Status.Conditions, func(c corev1.PodCondition) bool {
			return c.Reason == "Refused" && strings.Contains(c.Message, "runtime-class")
		})
	})
	if _, err := w.host.CoreV1().Pods(acme.HostNamespace).Get(t.Context(), hostName(ns, refused.Name), metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("the pod of another class is on the host: %v", err)
	}
	missing := pod("missing")
	if _, err := w.tenant.CoreV1().Pods(ns).Create(t.Context(), missing, metav1.CreateOptions{}); !apierrors.IsForbidden(err) || !strings.Contains(err.Error(), "not found") {
		t.Errorf("a class that there is not: %v", err)
	}
	w.syncer().SetPodTerms(translate.PodTerms{})
	wait(t, "the view is gone", func() (bool, any) {
		_, err := classes.Get(t.Context(), "offered", metav1.GetOptions{})
		return apierrors.IsNotFound(err), err
	})
	if _, err := classes.Get(t.Context(), "mine", metav1.GetOptions{}); err != nil {
		t.Errorf("the tenant's own class: %v", err)
	}
}
