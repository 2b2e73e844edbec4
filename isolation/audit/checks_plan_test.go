package audit

import (
	"maps"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/utils/ptr"

	"sublet.dev/api/v1alpha1"
	"sublet.dev/isolation/baseline"
)

// Node ports and load balancers are no finding where the tenant's plan has them.
func TestReachOfThePlan(t *testing.T) {
	for typ, give := range map[corev1.ServiceType]func(*v1alpha1.Plan){
		corev1.ServiceTypeNodePort:     func(p *v1alpha1.Plan) { p.Spec.NodePorts = 1 },
		corev1.ServiceTypeLoadBalancer: func(p *v1alpha1.Plan) { p.Spec.LoadBalancers.Count = 1 },
	} {
		f := good()
		edit(&f.Services, func(s *[]corev1.Service) { (*s)[1].Spec.Type = typ })
		if o := evalServices(f); o.Status != Fail {
			t.Errorf("%s without a plan: %v", typ, o.Status)
		}
		edit(&f.Plan, give)
		if o := evalServices(f); o.Status != Pass {
			t.Errorf("%s with a plan: %+v", typ, o)
		}
		f.Plan = Unknown[v1alpha1.Plan](errTest)
		if o := evalServices(f); o.Status != Error {
			t.Errorf("%s with a plan that was not read: %+v", typ, o)
		}
	}
}

// A quota whose new kinds are being counted limits one thing more, which is nobody's, and
// is as it was rendered. Any other limit is drift.
func TestRecountsAreNoDrift(t *testing.T) {
	for name, want := range map[corev1.ResourceName]Status{baseline.ResourceRecounts: Pass, "count/widgets.example.org": Fail} {
		f, quotas := good(), 0
		onBaseline(func(o baseline.Object) {
			if q, ok := o.(*corev1.ResourceQuota); ok {
				q.Spec.Hard = maps.Clone(q.Spec.Hard)
				q.Spec.Hard[name] = resource.MustParse("1")
				quotas++
			}
		})(f)
		if o := evalBaseline(f); o.Status != want || quotas == 0 {
			t.Errorf("%s in %d quotas: %+v", name, quotas, o)
		}
	}
}

// A pod has the PriorityClass of its tenant's plan, and the priority that the host makes of it.
func TestPriorityOfThePlan(t *testing.T) {
	f := good()
	onPod(func(p *corev1.Pod) { p.Spec.PriorityClassName, p.Spec.Priority = "gold", ptr.To[int32](1000) })(f)
	f.Plan = Known(v1alpha1.Plan{Spec: v1alpha1.PlanSpec{PriorityClasses: []string{"gold"}}})
	if o := evalPodPolicy(f); o.Status != Pass {
		t.Errorf("%s: %s", o.Status, o.Reason)
	}
}
