package kube

import (
	"errors"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/kubernetes/pkg/apis/core"
)

// A pod that the provider placed can be updated, and a tenant can't choose a node.
func TestNodeIsTheProvidersToChoose(t *testing.T) {
	plugin := &tenantAdmission{validatePod: func(pod *corev1.Pod) error {
		if pod.Spec.NodeName != "" {
			return errors.New("a node was chosen")
		}
		return nil
	}}
	pod := func(image, node string) *core.Pod {
		return &core.Pod{Spec: core.PodSpec{NodeName: node, Containers: []core.Container{{Name: "c", Image: image}}}}
	}
	for name, c := range map[string]struct {
		old, now *core.Pod
		refused  bool
	}{
		"created":                {nil, pod("a:1", ""), false},
		"created on a node":      {nil, pod("a:1", "n"), true},
		"updated after placing":  {pod("a:1", "n"), pod("a:2", "n"), false},
		"updated to some node":   {pod("a:1", ""), pod("a:2", "n"), true},
		"updated to another one": {pod("a:1", "n"), pod("a:2", "m"), true},
	} {
		operation := admission.Create
		var old *core.Pod
		if c.old != nil {
			operation, old = admission.Update, c.old
		}
		a := admission.NewAttributesRecord(c.now, old, core.Kind("Pod").WithVersion("v1"), "ns", "p", core.Resource("pods").WithVersion("v1"), "", operation, nil, false, nil)
		if err := plugin.Validate(t.Context(), a, nil); (err != nil) != c.refused {
			t.Errorf("%s: %v", name, err)
		}
	}
}
