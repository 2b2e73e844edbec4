package translate_test

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation"

	"sublet.dev/isolation/tenant"
	"sublet.dev/syncer/translate"
)

// FuzzKinds gives objects of the kinds without a fuzz test of their own hostile names,
// keys and texts: the host's is the same each time, under a valid name that says whose
// it is, with our keys alone; the tenant's is not changed, and its addresses are the
// tenant's.
func FuzzKinds(f *testing.F) {
	f.Add("default", "web", "app", "web", "10.244.0.9", "10.96.4.20", int32(80), uint8(0))
	f.Add("default", "dual", "app", "web", "fd00:96::431", "10.96.4.20", int32(80), uint8(0))
	f.Add("default", "theirs", "app", "web", "fd00:96::831", "10.96.4.20", int32(80), uint8(0))
	f.Add("kube-system", strings.Repeat("n", 253), "sublet.dev/tenant", "another", "169.254.169.254", "10.96.8.10", int32(-1), uint8(1))
	f.Add("a-b", "c", "kubernetes.io/service-name", "kubernetes", "::ffff:10.0.0.1", "None", int32(30080), uint8(2))
	f.Add("default", "kubernetes", "pcns.x/y", "\x00ä", "10.244.0.9 ", "", int32(0), uint8(3))
	f.Fuzz(func(t *testing.T, namespace, name, key, text, address, clusterIP string, number int32, shape uint8) {
		m := metav1.ObjectMeta{Namespace: namespace, Name: name, UID: "u1", Labels: map[string]string{key: text, discoveryv1.LabelServiceName: text},
			Annotations: map[string]string{key: text}, Finalizers: []string{key}, OwnerReferences: []metav1.OwnerReference{{Name: text}}}
		types := []corev1.ServiceType{corev1.ServiceTypeClusterIP, corev1.ServiceTypeNodePort, corev1.ServiceTypeLoadBalancer, corev1.ServiceTypeExternalName, corev1.ServiceType(text)}
		claim := plainClaim()
		claim.ObjectMeta, claim.Spec.Resources.Requests = m, corev1.ResourceList{corev1.ResourceName(key): resource.MustParse("1"), "storage": *resource.NewQuantity(int64(number), resource.BinarySI)}
		for _, o := range []runtime.Object{
			&corev1.Service{ObjectMeta: m, Spec: corev1.ServiceSpec{Type: types[int(shape)%len(types)], ClusterIP: clusterIP, ClusterIPs: []string{clusterIP, address}, ExternalName: text, ExternalIPs: []string{address},
				LoadBalancerIP: address, Selector: map[string]string{key: text}, Ports: []corev1.ServicePort{{Name: text, Port: number, NodePort: number}}}},
			&discoveryv1.EndpointSlice{ObjectMeta: m, AddressType: discoveryv1.AddressType(text), Ports: []discoveryv1.EndpointPort{{Name: &text, Port: &number}},
				Endpoints: []discoveryv1.Endpoint{{Addresses: []string{address, "10.244.0.9"}, TargetRef: &corev1.ObjectReference{Name: text}, NodeName: &text}}},
			&corev1.ConfigMap{ObjectMeta: m, Data: map[string]string{key: text}},
			&corev1.Secret{ObjectMeta: m, Type: corev1.SecretType(text), Data: map[string][]byte{key: []byte(text)}},
			claim,
			hostileIngress(m, text, address, number),
		} {
			before := o.DeepCopyObject()
			host := downOf(o)
			if !equality.Semantic.DeepEqual(before, o) {
				t.Fatalf("the tenant's %T was changed", o)
			}
			if !equality.Semantic.DeepEqual(host, downOf(o)) {
				t.Fatalf("the host's %T is another each time", o)
			}
			if host != nil {
				checkHost(t, o.(metav1.Object), host)
			}
		}
	})
}

// hostileIngress is one of the plan's class with a hostname of the tenant's and another.
func hostileIngress(m metav1.ObjectMeta, text, address string, number int32) *networkingv1.Ingress {
	class, kind := "public", networkingv1.PathType(text)
	i := &networkingv1.Ingress{ObjectMeta: m, Spec: networkingv1.IngressSpec{IngressClassName: &class, TLS: []networkingv1.IngressTLS{{Hosts: []string{text, "shop.example"}, SecretName: text}}}}
	for _, host := range []string{"shop.example", text, address, ""} {
		i.Spec.Rules = append(i.Spec.Rules, networkingv1.IngressRule{Host: host, IngressRuleValue: networkingv1.IngressRuleValue{HTTP: &networkingv1.HTTPIngressRuleValue{
			Paths: []networkingv1.HTTPIngressPath{{Path: "/" + text, PathType: &kind, Backend: networkingv1.IngressBackend{Service: &networkingv1.IngressServiceBackend{Name: text, Port: networkingv1.ServiceBackendPort{Name: text, Number: number}}}}}}}})
	}
	i.Spec.DefaultBackend = &networkingv1.IngressBackend{Service: &networkingv1.IngressServiceBackend{Name: "web"}}
	return i
}

// downOf translates; nil when the object is not on the host.
func downOf(o runtime.Object) (host metav1.Object) {
	switch o := o.(type) {
	case *corev1.Service:
		if s := one.Service(o); s != nil {
			return s
		}
	case *discoveryv1.EndpointSlice:
		if s := one.EndpointSlice(o); s != nil {
			return s
		}
	case *corev1.PersistentVolumeClaim:
		if c, _ := one.Claim(o, offered); c != nil {
			return c
		}
	case *networkingv1.Ingress:
		if i, _ := one.Ingress(o, translate.Ingresses{Classes: []string{"public"}}, []string{"shop.example"}, nil); i != nil {
			return i
		}
	case *corev1.ConfigMap:
		return one.ConfigMap(o)
	case *corev1.Secret:
		return one.Secret(o)
	}
	return nil
}

func checkHost(t *testing.T, from, host metav1.Object) {
	t.Helper()
	if msgs := validation.IsDNS1035Label(host.GetName()); len(msgs) > 0 {
		t.Fatalf("host name %q: %v", host.GetName(), msgs)
	}
	owner, err := tenant.ReadOwner(host.GetName(), host.GetLabels(), host.GetAnnotations())
	if from.GetName() != "" && (err != nil || owner.Name != translate.NameOf(from) || owner.UID != "u1" || owner.Tenant != one.Tenant.ID) {
		t.Fatalf("owner %+v, %v", owner, err)
	}
	if from.GetName() != "" {
		onlyOurKeys(t, "fuzzed", []any{host})
	}
	switch h := host.(type) {
	case *corev1.Service:
		s := h.Spec
		if len(s.Selector)+len(s.ExternalIPs) > 0 || s.LoadBalancerIP != "" || s.ExternalName != "" || s.Type != corev1.ServiceTypeClusterIP && s.Type != corev1.ServiceTypeNodePort {
			t.Fatalf("the host's Service is %+v", s)
		}
		if one.ForeignAddress(h) || one.ForeignSecond(h) != "" {
			t.Fatalf("the host's Service has the addresses %q and %q", s.ClusterIP, s.ClusterIPs)
		}
	case *discoveryv1.EndpointSlice:
		for _, e := range h.Endpoints {
			for _, a := range e.Addresses {
				if a != "10.244.0.9" || e.TargetRef.Name != "host-pod" {
					t.Fatalf("the host forwards to %+v", e)
				}
			}
		}
	case *networkingv1.Ingress:
		checkIngress(t, from.GetNamespace(), h)
	case *corev1.Secret:
		if h.Type == corev1.SecretTypeServiceAccountToken {
			t.Fatal("the host would fill the Secret with a token")
		}
	}
}

// checkIngress wants a host Ingress for the tenant's one hostname alone, with its own
// Services and certificates.
func checkIngress(t *testing.T, namespace string, h *networkingv1.Ingress) {
	t.Helper()
	if len(h.Spec.Rules) == 0 || h.Spec.DefaultBackend != nil {
		t.Fatalf("the host's Ingress is %+v", h.Spec)
	}
	own := func(name string) bool { return len(name) > 20 && len(validation.IsDNS1035Label(name)) == 0 }
	for _, r := range h.Spec.Rules {
		if r.Host != "shop.example" {
			t.Fatalf("namespace %s: the host serves %q", namespace, r.Host)
		}
		for _, p := range r.HTTP.Paths {
			if p.Backend.Resource != nil || !own(p.Backend.Service.Name) || *p.PathType != networkingv1.PathTypePrefix && *p.PathType != networkingv1.PathTypeExact || strings.ContainsAny(p.Path, "\n;{}\"'\\ ") {
				t.Fatalf("the host serves %+v", p)
			}
		}
	}
	for _, tls := range h.Spec.TLS {
		if len(tls.Hosts) != 1 || tls.Hosts[0] != "shop.example" || tls.SecretName != "" && !own(tls.SecretName) {
			t.Fatalf("the host has certificates for %+v", tls)
		}
	}
}
