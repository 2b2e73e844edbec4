package kube

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/warning"
	"k8s.io/kubernetes/pkg/apis/core"
	corev1conversion "k8s.io/kubernetes/pkg/apis/core/v1"
)

// judged returns an object as the tenant's companion knows it, if it is of a kind that
// is judged; nil otherwise, and when an update changes nothing that the host gets: what
// was admitted once can always be labelled, finalized and deleted.
func judged(object, old runtime.Object) (runtime.Object, error) {
	switch o := object.(type) {
	case *unstructured.Unstructured:
		if was, ok := old.(*unstructured.Unstructured); ok && was != nil && apiequality.Semantic.DeepEqual(withoutMeta(was), withoutMeta(o)) {
			return nil, nil
		}
		return o, nil
	case *core.Service:
		if was, ok := old.(*core.Service); ok && was != nil && apiequality.Semantic.DeepEqual(was.Spec, o.Spec) {
			return nil, nil
		}
		versioned := &corev1.Service{}
		return versioned, corev1conversion.Convert_core_Service_To_v1_Service(o, versioned, nil)
	case *core.PersistentVolumeClaim:
		if was, ok := old.(*core.PersistentVolumeClaim); ok && was != nil && apiequality.Semantic.DeepEqual(was.Spec, o.Spec) {
			return nil, nil
		}
		versioned := &corev1.PersistentVolumeClaim{}
		return versioned, corev1conversion.Convert_core_PersistentVolumeClaim_To_v1_PersistentVolumeClaim(o, versioned, nil)
	}
	return nil, nil
}

// withoutMeta is what an object says beside its metadata and its status.
func withoutMeta(o *unstructured.Unstructured) map[string]any {
	fields := make(map[string]any, len(o.Object))
	for name, v := range o.Object {
		if name != "metadata" && name != "status" {
			fields[name] = v
		}
	}
	return fields
}

// judge asks the companion about what a client writes, and passes on what it says.
func (t *tenantAdmission) judge(ctx context.Context, a admission.Attributes) error {
	if t.judgeObject == nil || a.GetSubresource() != "" {
		return nil
	}
	object, err := judged(a.GetObject(), a.GetOldObject())
	if err != nil {
		return admission.NewForbidden(a, fmt.Errorf("the object cannot be read: %w", err))
	}
	if object == nil {
		return nil
	}
	warnings, err := t.judgeObject(object)
	for _, w := range warnings {
		warning.AddWarning(ctx, "", w)
	}
	if err != nil {
		return admission.NewForbidden(a, err)
	}
	return nil
}
