package kube

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/managedfields"
	"k8s.io/kube-openapi/pkg/util"
	"k8s.io/kubernetes/pkg/api/legacyscheme"
)

// story is what happens to a Service and to who owns its fields; err is of the last step
// that failed.
func story(t *testing.T, converter managedfields.TypeConverter) (owners [][]metav1.ManagedFieldsEntry, errs []string) {
	t.Helper()
	scheme, v1 := legacyscheme.Scheme, corev1.SchemeGroupVersion
	fields, err := managedfields.NewDefaultFieldManager(converter, scheme, scheme, scheme, v1.WithKind("Service"), v1, "", nil)
	if err != nil {
		t.Fatal(err)
	}
	live := runtime.Object(&corev1.Service{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Service"}})
	step := func(now runtime.Object, err error) {
		text := ""
		if err != nil {
			text = err.Error()
		} else {
			live = now.DeepCopyObject()
		}
		errs = append(errs, text)
		m, ok := live.(*corev1.Service)
		if !ok {
			t.Fatalf("a %T", live)
		}
		entries := m.DeepCopy().ManagedFields
		for i := range entries {
			entries[i].Time = nil
		}
		owners = append(owners, entries)
	}
	update := func(manager string, change func(*corev1.Service)) {
		now := live.DeepCopyObject().(*corev1.Service)
		change(now)
		step(fields.Update(live, now, manager))
	}
	apply := func(manager string, spec map[string]any) {
		step(fields.Apply(live, &unstructured.Unstructured{Object: map[string]any{
			"apiVersion": "v1", "kind": "Service", "metadata": map[string]any{"name": "a"}, "spec": spec,
		}}, manager, false))
	}
	ports := func(port ...int32) []corev1.ServicePort {
		var all []corev1.ServicePort
		for _, p := range port {
			all = append(all, corev1.ServicePort{Port: p, Protocol: corev1.ProtocolTCP})
		}
		return all
	}
	update("client", func(s *corev1.Service) { s.Name, s.Labels, s.Spec.Ports = "a", map[string]string{"a": "b"}, ports(80) })
	update("client", func(s *corev1.Service) { s.Spec.Ports = ports(80, 81) })
	update("other", func(s *corev1.Service) { s.Labels["c"], s.Spec.ClusterIPs = "d", []string{"10.0.0.1"} })
	apply("applier", map[string]any{"ports": []any{map[string]any{"port": int64(82), "protocol": "TCP"}}})
	apply("applier", map[string]any{"ports": []any{map[string]any{"port": int64(81), "protocol": "TCP", "name": "mine"}}})
	apply("applier", map[string]any{"unheard": "of"})
	apply("applier", map[string]any{"ports": "none"})
	update("client", func(s *corev1.Service) { s.Spec.Ports = ports(80, 80, 81) }) // twice the same
	update("client", func(s *corev1.Service) { s.Spec.Ports, s.Finalizers = nil, []string{"x/y", "x/y"} })
	return owners, errs
}

// TestOwnersAreUpstreams: who owns which fields is what upstream says, and what is applied is
// refused for the same reasons.
func TestOwnersAreUpstreams(t *testing.T) {
	if err := Prepare(); err != nil {
		t.Fatal(err)
	}
	upstream, err := newConverter([]string{util.GetCanonicalTypeName(&corev1.Service{})})
	if err != nil {
		t.Fatal(err)
	}
	ours := &ownersConverter{TypeConverter: upstream}
	want, wantErrs := story(t, upstream)
	for range 2 { // with types that are known, too
		got, gotErrs := story(t, ours)
		for i := range want {
			if !apiequality.Semantic.DeepEqual(got[i], want[i]) || gotErrs[i] != wantErrs[i] {
				t.Errorf("step %d:\n%v %q, not\n%v %q", i, got[i], gotErrs[i], want[i], wantErrs[i])
			}
		}
	}
	for i, refused := range []bool{false, false, false, false, false, true, true, false, false} {
		if (wantErrs[i] != "") != refused || len(want[i]) == 0 {
			t.Errorf("step %d: %v %q", i, want[i], wantErrs[i])
		}
	}
	if _, ok := ours.known.Load(corev1.SchemeGroupVersion.WithKind("Service")); !ok {
		t.Error("no type is known")
	}
}
