package manager_test

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"sublet.dev/api/v1alpha1"
	"sublet.dev/isolation/policy"
	"sublet.dev/isolation/tenant"
)

// ask asks for hostnames as a tenant's syncer does.
func (h *host) ask(t *testing.T, vc *v1alpha1.VirtualCluster, name string, hostnames ...string) *corev1.ConfigMap {
	t.Helper()
	m := &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Namespace: vc.Status.Namespace, Name: name, Labels: map[string]string{tenant.LabelManagedBy: tenant.ManagedBySyncer, tenant.LabelHostnames: "true"}},
		Data:       map[string]string{tenant.HostnamesKey: strings.Join(hostnames, "\n")},
	}
	if err := h.api.Create(t.Context(), m); err != nil {
		t.Error(err)
	}
	return m
}

// wantAnswer waits until what asks has been answered so.
func (h *host) wantAnswer(m *corev1.ConfigMap, granted, taken string) {
	h.t.Helper()
	h.eventually("the answer to "+m.Name, func() error {
		if err := h.api.Get(h.t.Context(), client.ObjectKeyFromObject(m), m); err != nil {
			return err
		}
		if a := m.Annotations; a[tenant.AnnotationGranted] != granted || a[tenant.AnnotationTaken] != taken || a[tenant.AnnotationAnswered] != m.Data[tenant.HostnamesKey] {
			return fmt.Errorf("it is %v", a)
		}
		return nil
	})
}

// hostnamesOf are those that a tenant has, as the host's admission policy sees them.
func (h *host) hostnamesOf(t *testing.T, vc *v1alpha1.VirtualCluster) []string {
	t.Helper()
	ns := &corev1.Namespace{}
	if err := h.api.Get(t.Context(), client.ObjectKey{Name: vc.Status.Namespace}, ns); err != nil {
		t.Fatal(err)
	}
	return strings.Split(ns.Annotations[tenant.AnnotationHostnames], ",")
}

func hostIngress(vc *v1alpha1.VirtualCluster, hostname string) *networkingv1.Ingress {
	class, prefix := "public", networkingv1.PathTypePrefix
	return &networkingv1.Ingress{
		ObjectMeta: metav1.ObjectMeta{Namespace: vc.Status.Namespace, Name: "web", Labels: map[string]string{tenant.LabelTenant: string(vc.UID), tenant.LabelManagedBy: tenant.ManagedBySyncer}},
		Spec: networkingv1.IngressSpec{IngressClassName: &class, Rules: []networkingv1.IngressRule{{Host: hostname, IngressRuleValue: networkingv1.IngressRuleValue{
			HTTP: &networkingv1.HTTPIngressRuleValue{Paths: []networkingv1.HTTPIngressPath{{Path: "/", PathType: &prefix, Backend: networkingv1.IngressBackend{
				Service: &networkingv1.IngressServiceBackend{Name: "web", Port: networkingv1.ServiceBackendPort{Number: 80}}}}}}}}}},
	}
}

// hostnames gives hostnames to one tenant each, and holds their Ingresses to that.
func (h *host) hostnames(t *testing.T, a, b *v1alpha1.VirtualCluster) {
	p := &v1alpha1.Plan{}
	if err := h.api.Get(t.Context(), client.ObjectKey{Name: a.Spec.Plan}, p); err != nil {
		t.Fatal(err)
	}
	h.change(p, func() {
		p.Spec.Ingress = v1alpha1.IngressTerms{Classes: []string{"public"}, Hostnames: []string{"*.{tenant}.example", "*.test", "*.race"}}
	})
	first := h.ask(t, a, "first", "shop.test", "www.a.example", "www.b.example")
	h.wantAnswer(first, "shop.test,www.a.example", "")
	second := h.ask(t, b, "second", "*.test", "www.b.example")
	h.wantAnswer(second, "www.b.example", "*.test")
	h.ingressesAreHeld(t, a, b)

	var group sync.WaitGroup
	for i := range 10 {
		name := fmt.Sprintf("x%d.race", i)
		group.Go(func() { h.ask(t, a, fmt.Sprint("race-", i), name) })
		group.Go(func() { h.ask(t, b, fmt.Sprint("race-", i), name) })
	}
	group.Wait()
	h.eventually("all are somebody's", func() error {
		of, other := h.hostnamesOf(t, a), h.hostnamesOf(t, b)
		for i := range 10 {
			name := fmt.Sprintf("x%d.race", i)
			if slices.Contains(of, name) == slices.Contains(other, name) {
				return fmt.Errorf("%v, %v", of, other)
			}
		}
		return nil
	})

	// It is another's only once nothing serves it any more.
	serving := hostIngress(a, "shop.test")
	if err := h.api.Create(t.Context(), serving); err != nil {
		t.Fatal(err)
	}
	if err := h.api.Delete(t.Context(), first); err != nil {
		t.Fatal(err)
	}
	h.eventually("it is given up", func() error {
		if of := h.hostnamesOf(t, a); slices.Contains(of, "shop.test") {
			return fmt.Errorf("%v", of)
		}
		return nil
	})
	h.wantAnswer(second, "www.b.example", "*.test")
	if err := h.api.Delete(t.Context(), serving); err != nil {
		t.Fatal(err)
	}
	h.wantAnswer(second, "*.test,www.b.example", "")
	h.routesServe(t, a)
	h.gatewaysMissing(t, a, p)
	h.asksNothing(t, a, b)
}

// routesServe has an HTTPRoute of the provider's serve a name, on a host that has the
// kind only now: it is nobody's until the route is gone.
func (h *host) routesServe(t *testing.T, a *v1alpha1.VirtualCluster) {
	names := map[string]any{"plural": "httproutes", "singular": "httproute", "kind": policy.HTTPRouteKind, "listKind": "HTTPRouteList"}
	schema := map[string]any{"openAPIV3Schema": map[string]any{"type": "object", "x-kubernetes-preserve-unknown-fields": true}}
	crd := &unstructured.Unstructured{Object: map[string]any{"spec": map[string]any{
		"group": policy.GatewayGroup, "scope": "Namespaced", "names": names,
		"versions": []any{map[string]any{"name": policy.GatewayVersion, "served": true, "storage": true, "schema": schema}},
	}}}
	crd.SetAPIVersion("apiextensions.k8s.io/v1")
	crd.SetKind("CustomResourceDefinition")
	crd.SetName(policy.HTTPRoutes)
	crd.SetAnnotations(map[string]string{"api-approved.kubernetes.io": "unapproved, for a test"})
	if err := h.api.Create(t.Context(), crd); err != nil {
		t.Fatal(err)
	}
	route := &unstructured.Unstructured{Object: map[string]any{"spec": map[string]any{"hostnames": []any{"routed.race"}}}}
	route.SetAPIVersion(policy.GatewayGroup + "/" + policy.GatewayVersion)
	route.SetKind(policy.HTTPRouteKind)
	route.SetNamespace("default")
	route.SetName("the-providers")
	h.eventually("the route", func() error { return h.api.Create(t.Context(), route) })
	third := h.ask(t, a, "third", "routed.race", "free.race")
	h.wantAnswer(third, "free.race", "routed.race")
	if err := h.api.Delete(t.Context(), route); err != nil {
		t.Fatal(err)
	}
	h.ask(t, a, "fourth", "other.race") // so that nobody has to wait until names are looked at again
	h.wantAnswer(third, "routed.race,free.race", "")
}

// gatewaysMissing wants a tenant to be told that its plan offers what the host has not.
func (h *host) gatewaysMissing(t *testing.T, a *v1alpha1.VirtualCluster, p *v1alpha1.Plan) {
	for _, classes := range [][]string{{"edge"}, nil} {
		h.change(p, func() { p.Spec.Ingress.GatewayClasses = classes })
		h.eventually("what the plan offers", func() error {
			vc := &v1alpha1.VirtualCluster{}
			if err := h.api.Get(t.Context(), client.ObjectKeyFromObject(a), vc); err != nil {
				return err
			}
			c := meta.FindStatusCondition(vc.Status.Conditions, v1alpha1.ConditionPlanApplied)
			if missing := c != nil && c.Reason == "GatewayAPIMissing" && strings.Contains(c.Message, "GatewayClass"); c == nil || missing != (len(classes) > 0) {
				return fmt.Errorf("%+v", c)
			}
			return nil
		})
	}
}

// asksNothing takes all questions back, and waits until nobody has a hostname.
func (h *host) asksNothing(t *testing.T, tenants ...*v1alpha1.VirtualCluster) {
	for _, vc := range tenants {
		if err := h.api.DeleteAllOf(t.Context(), &corev1.ConfigMap{}, client.InNamespace(vc.Status.Namespace), client.HasLabels{tenant.LabelHostnames}); err != nil {
			t.Fatal(err)
		}
	}
	h.eventually("nobody has a hostname", func() error {
		for _, vc := range tenants {
			if of := h.hostnamesOf(t, vc); !slices.Equal(of, []string{""}) {
				return fmt.Errorf("%s has %v", vc.Name, of)
			}
		}
		return nil
	})
}

// ingressesAreHeld wants the host's API to refuse Ingresses that reach for others.
func (h *host) ingressesAreHeld(t *testing.T, a, b *v1alpha1.VirtualCluster) {
	create := func(vc *v1alpha1.VirtualCluster, hostname string, change func(*networkingv1.Ingress)) error {
		i := hostIngress(vc, hostname)
		change(i)
		return h.api.Create(t.Context(), i, client.DryRunAll)
	}
	same := func(*networkingv1.Ingress) {}
	h.eventually("its own", func() error { return create(a, "shop.test", same) }) // admission learns of the namespace by watching it
	h.eventually("the other's own", func() error { return create(b, "www.b.example", same) })
	for what, err := range map[string]error{
		"another's hostname":   create(b, "shop.test", same),
		"a wildcard over it":   create(b, "*.test", same),
		"a name of the plan's": create(a, "mail.a.example", same),
		"no hostname":          create(a, "", same),
		"no rules": create(a, "shop.test", func(i *networkingv1.Ingress) {
			i.Spec.DefaultBackend, i.Spec.Rules = &i.Spec.Rules[0].HTTP.Paths[0].Backend, nil
		}),
		"a default backend": create(a, "shop.test", func(i *networkingv1.Ingress) { i.Spec.DefaultBackend = &i.Spec.Rules[0].HTTP.Paths[0].Backend }),
		"another class":     create(a, "shop.test", func(i *networkingv1.Ingress) { *i.Spec.IngressClassName = "system" }),
		"no class":          create(a, "shop.test", func(i *networkingv1.Ingress) { i.Spec.IngressClassName = nil }),
		"another's certificate": create(a, "shop.test", func(i *networkingv1.Ingress) {
			i.Spec.TLS = []networkingv1.IngressTLS{{Hosts: []string{"www.b.example"}, SecretName: "x"}}
		}),
		"everybody's certificate": create(a, "shop.test", func(i *networkingv1.Ingress) { i.Spec.TLS = []networkingv1.IngressTLS{{SecretName: "x"}} }),
		"another's mark":          create(a, "shop.test", func(i *networkingv1.Ingress) { i.Labels[tenant.LabelTenant] = string(b.UID) }),
		"a resource": create(a, "shop.test", func(i *networkingv1.Ingress) {
			i.Spec.Rules[0].HTTP.Paths[0].Backend = networkingv1.IngressBackend{Resource: &corev1.TypedLocalObjectReference{Kind: "Bucket", Name: "b"}}
		}),
	} {
		if !apierrors.IsInvalid(err) {
			t.Errorf("%s: %v", what, err)
		}
	}
}
