package kube

import (
	"context"
	"slices"
	"testing"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/warning"
	"k8s.io/kubernetes/pkg/apis/core"
	"k8s.io/kubernetes/pkg/apis/networking"

	"sublet.dev/tenant-apiserver/plan"
)

// heard are the warnings that a client gets.
type heard []string

func (h *heard) AddWarning(_, text string) { *h = append(*h, text) }

func TestWarnsOfWhatIsNotCarriedOut(t *testing.T) {
	for name, c := range map[string]struct {
		object      runtime.Object
		subresource string
		want        []string
	}{
		"ingress":       {&networking.Ingress{}, "", []string{warnIngress}},
		"its status":    {&networking.Ingress{}, "status", nil},
		"load balancer": {&core.Service{Spec: core.ServiceSpec{Type: core.ServiceTypeLoadBalancer}}, "", []string{warnLoadBalancer}},
		//lint:ignore SA1019 as in what is tested
		"external IPs":    {&core.Service{Spec: core.ServiceSpec{ExternalIPs: []string{"8.8.8.8"}}}, "", []string{warnExternalIPs}},
		"a plain service": {&core.Service{Spec: core.ServiceSpec{Type: core.ServiceTypeNodePort}}, "", nil},
		"a policy":        {&networking.NetworkPolicy{}, "", nil},
	} {
		var got heard
		ctx := warning.WithWarningRecorder(context.Background(), &got)
		a := admission.NewAttributesRecord(c.object, nil, schema.GroupVersionKind{}, "ns", "n", schema.GroupVersionResource{Resource: "x"}, c.subresource, admission.Create, nil, false, nil)
		if err := (&tenantAdmission{}).Validate(ctx, a, nil); err != nil || !slices.Equal(got, c.want) {
			t.Errorf("%s: warned of %q, %v", name, got, err)
		}
	}
}

// A plan that offers it is not warned of.
func TestWarnsByPlan(t *testing.T) {
	for offered, want := range map[bool]int{true: 0, false: 1} {
		var got heard
		ctx := warning.WithWarningRecorder(context.Background(), &got)
		service := &core.Service{Spec: core.ServiceSpec{Type: core.ServiceTypeLoadBalancer}}
		a := admission.NewAttributesRecord(service, nil, schema.GroupVersionKind{}, "ns", "n", schema.GroupVersionResource{Resource: "x"}, "", admission.Create, nil, false, nil)
		plugin := &tenantAdmission{terms: func() *plan.Terms { return &plan.Terms{LoadBalancers: plan.LoadBalancers{Offered: offered}} }}
		if err := plugin.Validate(ctx, a, nil); err != nil || len(got) != want {
			t.Errorf("offered=%v: warned of %q, %v", offered, got, err)
		}
	}
}
