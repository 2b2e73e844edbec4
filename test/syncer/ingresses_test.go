package syncer

import (
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"sublet.dev/isolation/tenant"
	"sublet.dev/syncer/translate"
)

// served gives the tenant a plan with an ingress class of the host's.
func served(t *testing.T) {
	t.Helper()
	class := &networkingv1.IngressClass{ObjectMeta: metav1.ObjectMeta{Name: "public"}, Spec: networkingv1.IngressClassSpec{Controller: "example.com/ingress"}}
	if _, err := w.host.NetworkingV1().IngressClasses().Create(t.Context(), class, metav1.CreateOptions{}); err != nil && !apierrors.IsAlreadyExists(err) {
		t.Fatal(err)
	}
	grant(t, map[string]string{tenant.AnnotationIngressClasses: "public", tenant.AnnotationForced: "example.com/pool=tenants"})
	allow(t, "count/ingresses.networking.k8s.io", "10")
	s := w.syncer()
	s.SetIngress(translate.Ingresses{Classes: []string{"public"}, Annotations: map[string]string{"example.com/pool": "tenants"}})
	t.Cleanup(func() { s.SetIngress(translate.Ingresses{}) })
}

// grant annotates the host namespace as the manager does.
func grant(t *testing.T, annotations map[string]string) {
	t.Helper()
	text := ""
	for k, v := range annotations {
		text += `,"` + k + `":"` + v + `"`
	}
	if _, err := w.host.CoreV1().Namespaces().Patch(t.Context(), acme.HostNamespace, types.MergePatchType, []byte(`{"metadata":{"annotations":{`+text[1:]+`}}}`), metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
}

// answer waits until an Ingress asks for these hostnames, and answers as the manager
// does.
func answer(t *testing.T, ns, name, asked, granted, taken string) {
	t.Helper()
	answerTo(t, ns, name+translate.SuffixHostnames, asked, granted, taken)
}

// answerTo is answer for whatever asks by a ConfigMap of that name.
func answerTo(t *testing.T, ns, asker, asked, granted, taken string) {
	t.Helper()
	grant(t, map[string]string{tenant.AnnotationHostnames: granted})
	asks, host := w.host.CoreV1().ConfigMaps(acme.HostNamespace), hostName(ns, asker)
	wait(t, "it asks for "+asked, func() (bool, any) {
		m, err := asks.Get(t.Context(), host, metav1.GetOptions{})
		if err != nil || m.Data[tenant.HostnamesKey] != asked || m.Labels[tenant.LabelHostnames] == "" {
			return false, m
		}
		m.Annotations[tenant.AnnotationGranted], m.Annotations[tenant.AnnotationTaken], m.Annotations[tenant.AnnotationAnswered] = granted, taken, asked
		_, err = asks.Update(t.Context(), m, metav1.UpdateOptions{})
		return err == nil, err
	})
}

// snippet is an annotation with which some controllers take parts of their configuration.
const snippet = "nginx.ingress.kubernetes.io/configuration-snippet"

// ingress is one whose annotations reach for the controller's configuration.
func ingress(ns, name string, hosts ...string) *networkingv1.Ingress {
	prefix := networkingv1.PathTypePrefix
	i := &networkingv1.Ingress{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: name, Annotations: map[string]string{snippet: "return 200 theirs;", "example.com/pool": "system"}}}
	i.Spec.TLS = []networkingv1.IngressTLS{{Hosts: hosts[:1], SecretName: "cert"}}
	for _, h := range hosts {
		i.Spec.Rules = append(i.Spec.Rules, networkingv1.IngressRule{Host: h, IngressRuleValue: networkingv1.IngressRuleValue{HTTP: &networkingv1.HTTPIngressRuleValue{
			Paths: []networkingv1.HTTPIngressPath{{Path: "/", PathType: &prefix, Backend: networkingv1.IngressBackend{Service: &networkingv1.IngressServiceBackend{Name: "web", Port: networkingv1.ServiceBackendPort{Number: 80}}}}}}}})
	}
	return i
}

func hostIngress(t *testing.T, ns, name, what string, is func(*networkingv1.Ingress) bool) {
	t.Helper()
	wait(t, what, func() (bool, any) {
		i, err := w.host.NetworkingV1().Ingresses(acme.HostNamespace).Get(t.Context(), hostName(ns, name), metav1.GetOptions{})
		return err == nil && is(i), i
	})
}

// An Ingress from its class to its status: it is on the host with the hostnames that the
// tenant has, its certificate is there, and a conflict is told.
func TestIngress(t *testing.T) {
	ns := namespace(t)
	served(t)
	wait(t, "the class, as the default", func() (bool, any) {
		c, err := w.tenant.NetworkingV1().IngressClasses().Get(t.Context(), "public", metav1.GetOptions{})
		return err == nil && c.Spec.Controller == translate.IngressController && c.Annotations[networkingv1.AnnotationIsDefaultIngressClass] == "true", c
	})
	cert := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "cert"}, Type: corev1.SecretTypeTLS, Data: map[string][]byte{"tls.crt": []byte("x"), "tls.key": []byte("y")}}
	if _, err := w.tenant.CoreV1().Secrets(ns).Create(t.Context(), cert, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	ingresses := w.tenant.NetworkingV1().Ingresses(ns)
	wait(t, "an Ingress of the default class", func() (bool, any) { // the tenant's API learns of the class by watching it
		i, err := ingresses.Create(t.Context(), ingress(ns, "web", "shop.test", "bank.test"), metav1.CreateOptions{})
		if err != nil || i.Spec.IngressClassName != nil {
			return err == nil, err
		}
		return false, ingresses.Delete(t.Context(), "web", metav1.DeleteOptions{})
	})
	answer(t, ns, "web", "bank.test\nshop.test", "shop.test", "bank.test")
	hostIngress(t, ns, "web", "it serves what the tenant has", func(i *networkingv1.Ingress) bool {
		return len(i.Spec.Rules) == 1 && i.Spec.Rules[0].Host == "shop.test" && *i.Spec.IngressClassName == "public" &&
			i.Spec.Rules[0].HTTP.Paths[0].Backend.Service.Name == hostName(ns, "web") && i.Spec.TLS[0].SecretName == hostName(ns, "cert") &&
			i.Annotations["example.com/pool"] == "tenants" && i.Annotations[snippet] == "" // the plan's, and none of the tenant's
	})
	wait(t, "an event", func() (bool, any) { return said(t.Context(), ns, "web", "the hostname bank.test is another's") })
	e, err := w.syncer().Explain(t.Context(), "ingresses", tenant.Name{Namespace: ns, Name: "web"})
	taken := translate.Fate{Field: "spec.rules[1].host", Fate: "refused", Rule: "ingress", Reason: "the hostname bank.test is another's, or overlaps one that is: choose another"}
	if err != nil || !strings.Contains(e.Pairing, "this very object") || !slices.Contains(e.Fields, taken) || !slices.Contains(e.Fields, translate.Fate{Field: "spec.rules[0].host", Fate: "copied"}) {
		t.Errorf("explained is %+v, %v", e, err)
	}
	if asks, err := w.syncer().ExplainHost(t.Context(), "configmaps", hostName(ns, "web"+translate.SuffixHostnames)); err != nil || asks.Kind != "ingresses" || asks.Name != "web" {
		t.Errorf("what asks for its hostnames is %+v, %v", asks, err)
	}
	wait(t, "the certificate", func() (bool, any) {
		s, err := w.host.CoreV1().Secrets(acme.HostNamespace).Get(t.Context(), hostName(ns, "cert"), metav1.GetOptions{})
		return err == nil && s.Type == corev1.SecretTypeTLS, s
	})
	status := []byte(`{"status":{"loadBalancer":{"ingress":[{"ip":"203.0.113.80"}]}}}`)
	if _, err := w.host.NetworkingV1().Ingresses(acme.HostNamespace).Patch(t.Context(), hostName(ns, "web"), types.MergePatchType, status, metav1.PatchOptions{}, "status"); err != nil {
		t.Fatal(err)
	}
	wait(t, "the address", func() (bool, any) {
		i, err := ingresses.Get(t.Context(), "web", metav1.GetOptions{})
		return err == nil && len(i.Status.LoadBalancer.Ingress) == 1 && i.Status.LoadBalancer.Ingress[0].IP == "203.0.113.80", i
	})

	// What the tenant says of that is put right.
	lie := []byte(`{"status":{"loadBalancer":{"ingress":[{"ip":"192.0.2.1"},{"hostname":"bank.test"}]}}}`)
	if _, err := ingresses.Patch(t.Context(), "web", types.MergePatchType, lie, metav1.PatchOptions{}, "status"); err != nil {
		t.Fatal(err)
	}
	wait(t, "the address again", func() (bool, any) {
		i, err := ingresses.Get(t.Context(), "web", metav1.GetOptions{})
		return err == nil && len(i.Status.LoadBalancer.Ingress) == 1 && i.Status.LoadBalancer.Ingress[0].IP == "203.0.113.80", i
	})

	// What the manager takes away is gone from the host, what it gives is there.
	answer(t, ns, "web", "bank.test\nshop.test", "bank.test", "shop.test")
	hostIngress(t, ns, "web", "the other one", func(i *networkingv1.Ingress) bool {
		return len(i.Spec.Rules) == 1 && i.Spec.Rules[0].Host == "bank.test"
	})
	if _, err := w.host.NetworkingV1().Ingresses(acme.HostNamespace).Patch(t.Context(), hostName(ns, "web"), types.MergePatchType, status, metav1.PatchOptions{}, "status"); err != nil {
		t.Fatal(err)
	}
	answer(t, ns, "web", "bank.test\nshop.test", "", "bank.test,shop.test")
	wait(t, "one that serves nothing has no address", func() (bool, any) {
		i, err := ingresses.Get(t.Context(), "web", metav1.GetOptions{})
		return err == nil && len(i.Status.LoadBalancer.Ingress) == 0, i
	})
	if err := ingresses.Delete(t.Context(), "web", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	wait(t, "nothing is left", func() (bool, any) {
		_, err := w.host.NetworkingV1().Ingresses(acme.HostNamespace).Get(t.Context(), hostName(ns, "web"), metav1.GetOptions{})
		_, asks := w.host.CoreV1().ConfigMaps(acme.HostNamespace).Get(t.Context(), hostName(ns, "web"+translate.SuffixHostnames), metav1.GetOptions{})
		_, secret := w.host.CoreV1().Secrets(acme.HostNamespace).Get(t.Context(), hostName(ns, "cert"), metav1.GetOptions{})
		return apierrors.IsNotFound(err) && apierrors.IsNotFound(asks) && apierrors.IsNotFound(secret), err
	})
}

// The tenant's identity on the host, in the wrong hands: hostnames that are not the
// tenant's, and what configures controllers, are refused by the host itself.
func TestHostRefusesIngresses(t *testing.T) {
	served(t)
	grant(t, map[string]string{tenant.AnnotationHostnames: "shop.test,*.shop.test"})
	c := rest.CopyConfig(quick(hostConfig))
	c.Impersonate.UserName = tenant.WriteUser(acme.HostNamespace)
	writer, err := kubernetes.NewForConfig(c)
	if err != nil {
		t.Fatal(err)
	}
	create := func(change func(*networkingv1.Ingress)) error {
		class := "public"
		i := ingress(acme.HostNamespace, "forged", "shop.test")
		i.Annotations, i.Labels, i.Spec.IngressClassName = map[string]string{"example.com/pool": "tenants"}, map[string]string{tenant.LabelTenant: string(acme.ID)}, &class
		change(i)
		_, err := writer.NetworkingV1().Ingresses(acme.HostNamespace).Create(t.Context(), i, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
		return err
	}
	for name, change := range map[string]func(*networkingv1.Ingress){
		"a snippet":             func(i *networkingv1.Ingress) { i.Annotations[snippet] = "x" },
		"another value":         func(i *networkingv1.Ingress) { i.Annotations["example.com/pool"] = "system" },
		"a class by annotation": func(i *networkingv1.Ingress) { i.Annotations["kubernetes.io/ingress.class"] = "system" },
		"another class":         func(i *networkingv1.Ingress) { *i.Spec.IngressClassName = "system" },
		"another's hostname":    func(i *networkingv1.Ingress) { i.Spec.Rules[0].Host = "bank.test" },
		"a wildcard over it":    func(i *networkingv1.Ingress) { i.Spec.Rules[0].Host = "*.test" },
		"below its wildcard":    func(i *networkingv1.Ingress) { i.Spec.Rules[0].Host = "x.shop.test" }, // it has to be asked for
		"all hostnames":         func(i *networkingv1.Ingress) { i.Spec.Rules[0].Host = "" },
		"a default backend":     func(i *networkingv1.Ingress) { i.Spec.DefaultBackend = &i.Spec.Rules[0].HTTP.Paths[0].Backend },
		"another's certificate": func(i *networkingv1.Ingress) { i.Spec.TLS[0].Hosts = []string{"bank.test"} },
		"another's mark":        func(i *networkingv1.Ingress) { i.Labels[tenant.LabelTenant] = "another" },
	} {
		wait(t, "refusal of "+name, func() (bool, any) { err := create(change); return apierrors.IsInvalid(err), err }) // admission learns of the namespace by watching it
	}
	for name, change := range map[string]func(*networkingv1.Ingress){
		"its own":      func(*networkingv1.Ingress) {},
		"its wildcard": func(i *networkingv1.Ingress) { i.Spec.Rules[0].Host = "*.shop.test" },
	} {
		wait(t, name, func() (bool, any) { err := create(change); return err == nil, err })
	}
	if _, err := writer.CoreV1().Namespaces().Patch(t.Context(), acme.HostNamespace, types.MergePatchType, []byte(`{"metadata":{"annotations":{"`+tenant.AnnotationHostnames+`":"bank.test"}}}`), metav1.PatchOptions{}); !apierrors.IsForbidden(err) {
		t.Errorf("it may give itself hostnames: %v", err)
	}
}
