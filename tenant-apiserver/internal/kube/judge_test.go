package kube

import (
	"context"
	"errors"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/warning"
	"k8s.io/kubernetes/pkg/apis/core"
)

// What the companion says of an object comes to the client: a refusal as 403, and what
// is only not carried out as a warning. What changes nothing for the host is not judged.
func TestCompanionJudges(t *testing.T) {
	custom := func(label, spec string) *unstructured.Unstructured {
		return &unstructured.Unstructured{Object: map[string]any{"metadata": map[string]any{"labels": map[string]any{"l": label}}, "spec": spec, "status": label}}
	}
	claim := func(volume string) *core.PersistentVolumeClaim {
		return &core.PersistentVolumeClaim{Spec: core.PersistentVolumeClaimSpec{VolumeName: volume}}
	}
	service := func(name string) *core.Service { return &core.Service{Spec: core.ServiceSpec{ExternalName: name}} }
	plugin := &tenantAdmission{judgeObject: func(o runtime.Object) ([]string, error) {
		switch o := o.(type) {
		case *unstructured.Unstructured:
			if o.Object["spec"] == "bad" {
				return nil, errors.New("it is bad")
			}
		case *corev1.PersistentVolumeClaim:
			return []string{"claim " + o.Spec.VolumeName}, nil
		case *corev1.Service:
			return []string{"service " + o.Spec.ExternalName}, nil
		}
		return nil, nil
	}}
	for name, c := range map[string]struct {
		now, old    runtime.Object
		subresource string
		refused     bool
		want        []string
	}{
		"a good one":           {custom("a", "good"), nil, "", false, nil},
		"a bad one":            {custom("a", "bad"), nil, "", true, nil},
		"made bad":             {custom("a", "bad"), custom("a", "good"), "", true, nil},
		"a bad one, labelled":  {custom("b", "bad"), custom("a", "bad"), "", false, nil},
		"the status of a bad":  {custom("a", "bad"), custom("a", "good"), "status", false, nil},
		"a claim":              {claim("x"), nil, "", false, []string{"claim x"}},
		"a claim, changed":     {claim("x"), claim(""), "", false, []string{"claim x"}},
		"a claim, as it was":   {claim("x"), claim("x"), "", false, nil},
		"a service":            {service("x"), nil, "", false, []string{"service x"}},
		"a service, as it was": {service("x"), service("x"), "", false, nil},
		"something else":       {&core.Secret{}, nil, "", false, nil},
	} {
		var got heard
		ctx := warning.WithWarningRecorder(context.Background(), &got)
		a := admission.NewAttributesRecord(c.now, c.old, schema.GroupVersionKind{}, "ns", "n", schema.GroupVersionResource{Resource: "x"}, c.subresource, admission.Update, nil, false, nil)
		if err := plugin.Validate(ctx, a, nil); (err != nil) != c.refused || !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, warned of %q", name, err, got)
		}
	}
}
