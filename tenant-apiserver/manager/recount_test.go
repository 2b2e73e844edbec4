package manager_test

import (
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"sublet.dev/api/v1alpha1"
	"sublet.dev/tenant-apiserver/manager"
)

const widgets = `
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: widgets.example.org}
spec:
  group: example.org
  names: {plural: widgets, singular: widget, kind: Widget, listKind: WidgetList}
  scope: Namespaced
  versions: [{name: v1, served: true, storage: true, schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}}]
`

// newKinds gives a tenant a plan that limits kinds of which the host has one for less time
// than its quota controller takes to see it, and the other after the plan. They are counted
// when the function that it returns does: without help that takes minutes.
func (h *host) newKinds(t *testing.T, vc *v1alpha1.VirtualCluster) (counted func(*testing.T)) {
	t.Helper()
	define := func(name string) {
		crd := &unstructured.Unstructured{}
		if err := yaml.Unmarshal([]byte(strings.NewReplacer("widget", name, "Widget", strings.ToUpper(name[:1])+name[1:]).Replace(widgets)), &crd.Object); err != nil {
			t.Fatal(err)
		}
		if err := manager.Apply(t.Context(), h.api, crd); err != nil {
			t.Fatal(err)
		}
	}
	own := &v1alpha1.Plan{}
	if err := h.api.Get(t.Context(), client.ObjectKey{Name: v1alpha1.DefaultPlan}, own); err != nil {
		t.Fatal(err)
	}
	own.ObjectMeta = metav1.ObjectMeta{Name: "kinds"}
	for _, kind := range []string{"Widget", "Gadget"} {
		own.Spec.CustomResources = append(own.Spec.CustomResources, v1alpha1.CustomResourceRule{
			Group: "example.org", Version: "v1", Kind: kind, Resource: strings.ToLower(kind) + "s", Direction: v1alpha1.ToHost,
			Max: ptr[int32](7), Fields: []v1alpha1.CustomResourceField{{Path: "spec"}},
		})
	}
	if err := h.api.Create(t.Context(), own); err != nil {
		t.Fatal(err)
	}
	define("widget")
	h.setPlan(t, vc.Name, own.Name)
	var q *corev1.ResourceQuota
	read := func() error {
		q = &corev1.ResourceQuota{}
		return h.api.Get(t.Context(), client.ObjectKey{Namespace: vc.Status.Namespace, Name: "sublet"}, q)
	}
	h.eventually("the host has looked at the quota", func() error {
		if err := read(); err != nil {
			return err
		}
		if limit := q.Status.Hard["count/gadgets.example.org"]; limit.Value() != 7 {
			return fmt.Errorf("it has seen %v", q.Status.Hard)
		}
		return nil
	})
	if _, known := q.Status.Used["count/widgets.example.org"]; known {
		t.Log("the host's quota controller was just looking for kinds: it knows one already")
	}
	define("gadget")
	h.eventually("the quota is changed, which stays so until all is counted", func() error {
		if err := read(); err != nil {
			return err
		}
		if _, changed := q.Spec.Hard["count/recounts.sublet.dev"]; !changed {
			return fmt.Errorf("it limits %v, and has counted %v", q.Spec.Hard, q.Status.Used)
		}
		return nil
	})
	return func(t *testing.T) {
		h.eventually("both are counted", func() error {
			if err := read(); err != nil {
				return err
			}
			for _, name := range []corev1.ResourceName{"count/widgets.example.org", "count/gadgets.example.org"} {
				limit := q.Spec.Hard[name]
				if _, known := q.Status.Used[name]; !known || limit.Value() != 7 {
					return fmt.Errorf("%s: limits %v, used %v", name, q.Spec.Hard, q.Status.Used)
				}
			}
			if _, left := q.Spec.Hard["count/recounts.sublet.dev"]; left {
				return fmt.Errorf("what was written to have it counted is left: %v", q.Spec.Hard)
			}
			return nil
		})
	}
}
