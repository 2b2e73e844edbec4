package translate_test

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"sublet.dev/isolation/tenant"
	"sublet.dev/syncer/engine"
	"sublet.dev/syncer/translate"
)

func balancedService() *corev1.Service {
	return &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web", UID: "s1"},
		Spec: corev1.ServiceSpec{Type: corev1.ServiceTypeLoadBalancer, ClusterIP: "10.96.4.31", ExternalTrafficPolicy: corev1.ServiceExternalTrafficPolicyLocal,
			Ports: []corev1.ServicePort{{Port: 80, NodePort: 30080}}},
	}
}

// What the host's controllers wrote on a load balancer stays; what the plan put there
// goes with the plan, and the class stays as it was made.
func TestMergeOfLoadBalancers(t *testing.T) {
	tr := translation(tenant.GVisor)
	service := balancedService()
	old := translate.LoadBalancers{Classes: []string{"example.com/a"}, Annotations: map[string]string{"example.com/pool": "a", "example.com/logs": "on"}}
	have, _ := old.Balance(tr.Service(service), service, nil)
	have.Annotations["cloud.example/id"] = "7"
	have.Finalizers = []string{"service.kubernetes.io/load-balancer-cleanup"}
	have.Spec.HealthCheckNodePort = 31234
	if _, d := translate.MergeService(have, have.DeepCopy()); d != engine.Same {
		t.Error("one that is as it should be is written")
	}
	next := translate.LoadBalancers{Classes: []string{"example.com/b"}, Annotations: map[string]string{"example.com/pool": "b"}}
	want, refused := next.Balance(tr.Service(service), service, have)
	if len(refused) > 0 {
		t.Fatal(refused)
	}
	merged, d := translate.MergeService(have, want)
	if d != engine.Changed || *merged.Spec.LoadBalancerClass != "example.com/a" || merged.Spec.HealthCheckNodePort != 31234 || len(merged.Finalizers) != 1 {
		t.Errorf("%v: %+v", d, merged)
	}
	if a := merged.Annotations; a["example.com/pool"] != "b" || a["cloud.example/id"] != "7" || a["example.com/logs"] != "" {
		t.Errorf("annotations %v", a)
	}

	inside, d := translate.MergeService(merged, translate.Inside(tr.Service(service)))
	if s := inside.Spec; d != engine.Changed || s.Type != corev1.ServiceTypeClusterIP || s.LoadBalancerClass != nil || s.HealthCheckNodePort != 0 || s.ExternalTrafficPolicy != "" || s.AllocateLoadBalancerNodePorts != nil || s.Ports[0].NodePort != 0 {
		t.Errorf("made a plain one: %v %+v", d, s)
	}
	if a := inside.Annotations; a["example.com/pool"] != "" || a[tenant.AnnotationForcedKeys] != "" || a["cloud.example/id"] != "7" {
		t.Errorf("made a plain one: annotations %v", a)
	}
}

// Without node ports of the plan's: those that it had go, and none come back.
func TestWithoutNodePorts(t *testing.T) {
	tr := translation(tenant.GVisor)
	service := balancedService()
	have, _ := translate.LoadBalancers{}.Balance(tr.Service(service), service, nil)
	merged, d := translate.MergeService(have, translate.WithoutNodePorts(have))
	if d != engine.Changed || merged.Spec.Ports[0].NodePort != 0 || *merged.Spec.AllocateLoadBalancerNodePorts {
		t.Errorf("%v %+v", d, merged.Spec)
	}
	if up, changed := translate.NodePorts(merged, service); changed {
		t.Errorf("the tenant's numbers changed: %+v", up.Spec.Ports)
	}
	if _, d := translate.MergeService(merged, translate.WithoutNodePorts(have)); d != engine.Same {
		t.Error("written again")
	}
}

// A status is brought up from a load balancer alone: what a tenant's own controller
// wrote elsewhere stays.
func TestStatusWithoutLoadBalancer(t *testing.T) {
	service := balancedService()
	service.Status.LoadBalancer.Ingress = []corev1.LoadBalancerIngress{{IP: "198.51.100.1"}}
	host := translation(tenant.GVisor).Service(service)
	if _, changed := translate.ServiceStatus(host, service); changed {
		t.Error("changed without a load balancer")
	}
	host.Spec.Type = corev1.ServiceTypeLoadBalancer
	up, changed := translate.ServiceStatus(host, service)
	if !changed || len(up.Status.LoadBalancer.Ingress) != 0 {
		t.Errorf("a forged address stays: %+v", up.Status)
	}
	host.Status.LoadBalancer.Ingress = []corev1.LoadBalancerIngress{{IP: "203.0.113.80", IPMode: ptr.To(corev1.LoadBalancerIPModeVIP)}}
	if up, changed = translate.ServiceStatus(host, up); !changed || up.Status.LoadBalancer.Ingress[0].IP != "203.0.113.80" {
		t.Errorf("%+v", up.Status)
	}
}

// A tenant's Service that nobody annotated can be asked about as it is.
func TestBalanceWithoutAnnotations(t *testing.T) {
	service := balancedService()
	plan := translate.LoadBalancers{Annotations: map[string]string{"example.com/pool": "a"}}
	if got, refused := plan.Balance(service, service, nil); len(refused) > 0 || got.Annotations["example.com/pool"] != "a" || service.Annotations != nil {
		t.Errorf("%v %v %v", got, refused, service.Annotations)
	}
}
