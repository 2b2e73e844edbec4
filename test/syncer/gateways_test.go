package syncer

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"

	"sublet.dev/isolation/policy"
	"sublet.dev/isolation/tenant"
	"sublet.dev/syncer/translate"
)

var (
	gateways       = schema.GroupVersionResource{Group: policy.GatewayGroup, Version: "v1", Resource: "gateways"}
	httpRoutes     = schema.GroupVersionResource{Group: policy.GatewayGroup, Version: "v1", Resource: "httproutes"}
	gatewayClasses = schema.GroupVersionResource{Group: policy.GatewayGroup, Version: "v1", Resource: "gatewayclasses"}
	grants         = schema.GroupVersionResource{Group: policy.GatewayGroup, Version: "v1beta1", Resource: "referencegrants"}
)

// gatewayDefinitions are the definitions of the Gateway API, of the linked version.
func gatewayDefinitions(ctx context.Context) ([]string, error) {
	dir, err := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}", "sigs.k8s.io/gateway-api").Output()
	if err != nil {
		return nil, fmt.Errorf("find the Gateway API: %w", err)
	}
	var all []string
	for _, kind := range []string{"gatewayclasses", "gateways", "httproutes", "referencegrants"} {
		text, err := os.ReadFile(filepath.Join(strings.TrimSpace(string(dir)), "config/crd/standard", policy.GatewayGroup+"_"+kind+".yaml"))
		if err != nil {
			return nil, err
		}
		_, text2, _ := strings.Cut(string(text), "\n---\n")
		if text2 == "" {
			text2 = string(text)
		}
		all = append(all, text2)
	}
	return all, nil
}

const hostGatewayClass = `
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: edge}
spec: {controllerName: vendor.example/gateway, description: "rack 7", parametersRef: {group: vendor.example, kind: Config, name: root}}
`

// offerGateways gives the tenant a plan with the class "edge" of a host that has more,
// and the hostnames of granted.
func (c customWorld) offerGateways(granted string) {
	c.t.Helper()
	c.offer("ingress: {gatewayClasses: [edge]}\n")
	for _, text := range []string{hostGatewayClass, strings.ReplaceAll(hostGatewayClass, "edge", "inner")} {
		u := parse(c.t, text)
		if _, err := c.host.Resource(gatewayClasses).Create(c.t.Context(), u, metav1.CreateOptions{}); err != nil && !apierrors.IsAlreadyExists(err) {
			c.t.Fatal(err)
		}
	}
	grant(c.t, map[string]string{tenant.AnnotationHostnames: granted})
	c.counted("count/gateways.gateway.networking.k8s.io")
	c.counted("count/httproutes.gateway.networking.k8s.io")
	s := w.syncer()
	s.SetIngress(translate.Ingresses{GatewayClasses: []string{"edge"}})
	c.t.Cleanup(func() { s.SetIngress(translate.Ingresses{}); s.SetCustomResources(nil) })
}

func gateway(name, listeners string) string {
	return "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {name: " + name + "}\nspec: {gatewayClassName: edge, listeners: [" + listeners + "]}\n"
}

func httpRoute(name, spec string) string {
	return "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: " + name + ", annotations: {example.com/pool: system}}\nspec: " + spec + "\n"
}

// conditionOf is STATUS/REASON of a condition in a list of them.
func conditionOf(list any, kind string) string {
	all, _ := list.([]any)
	for _, item := range all {
		if c, ok := item.(map[string]any); ok && c["type"] == kind {
			return fmt.Sprint(c["status"], "/", c["reason"])
		}
	}
	return ""
}

// parentCondition is conditionOf for the parent of a route that is ours; "": it is none.
func parentCondition(u *unstructured.Unstructured, parent, kind string) string {
	all, _ := at(u, "status", "parents").([]any)
	for _, item := range all {
		p, _ := item.(map[string]any)
		ref, _ := p["parentRef"].(map[string]any)
		if ref["name"] == parent && p["controllerName"] == tenant.GatewayController {
			return conditionOf(p["conditions"], kind)
		}
	}
	return ""
}

// A Gateway and an HTTPRoute from their class to their status: they are on the host with
// the hostnames that the tenant has, the certificate is there, and a conflict is told.
func TestGateways(t *testing.T) {
	c := newCustomWorld(t)
	c.offerGateways("shop.test")
	ns := namespace(t)
	view := c.waitObject(c.tenant.Resource(gatewayClasses), "edge", "the class", func(*unstructured.Unstructured) bool { return true })
	if at(view, "spec", "controllerName") != tenant.GatewayController || at(view, "spec", "parametersRef") != nil || at(view, "spec", "description") != nil {
		t.Errorf("the class is %v", view.Object)
	}
	if _, err := c.tenant.Resource(gatewayClasses).Get(t.Context(), "inner", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("a class that is not offered: %v", err)
	}
	if _, err := w.tenant.CoreV1().Secrets(ns).Create(t.Context(), &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "cert"}, Type: corev1.SecretTypeTLS,
		Data: map[string][]byte{"tls.crt": []byte("x"), "tls.key": []byte("y")}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	own, host := c.tenant.Resource(gateways).Namespace(ns), c.host.Resource(gateways).Namespace(acme.HostNamespace)
	c.make(own, gateway("web", "{name: https, port: 443, protocol: HTTPS, hostname: shop.test, tls: {certificateRefs: [{name: cert}]}}, {name: bank, port: 80, protocol: HTTP, hostname: bank.test}"))
	answerTo(t, ns, "web"+translate.SuffixGatewayHostnames, "bank.test\nshop.test", "shop.test", "bank.test")
	hostGateway := c.waitObject(host, hostName(ns, "web"), "the host's gateway", func(*unstructured.Unstructured) bool { return true })
	if l, _ := at(hostGateway, "spec", "listeners").([]any); len(l) != 1 || !strings.Contains(fmt.Sprint(l), hostName(ns, "cert")) || !strings.Contains(fmt.Sprint(l), "from:Same") {
		t.Errorf("its listeners are %v", l)
	}
	wait(t, "the certificate", func() (bool, any) {
		s, err := w.host.CoreV1().Secrets(acme.HostNamespace).Get(t.Context(), hostName(ns, "cert"), metav1.GetOptions{})
		return err == nil && s.Type == corev1.SecretTypeTLS, s
	})
	patch(t, host, hostName(ns, "web"), `{"status": {"addresses": [{"type": "IPAddress", "value": "203.0.113.80"}], "conditions": [
		{"type": "Accepted", "status": "True", "reason": "Accepted", "message": "by `+hostName(ns, "web")+`", "lastTransitionTime": "2026-01-02T03:04:05Z", "observedGeneration": 1}]}}`, "status")
	told := func(u *unstructured.Unstructured) bool {
		l, _ := at(u, "status", "listeners").([]any)
		if len(l) != 2 {
			return false
		}
		bank, _ := l[1].(map[string]any)
		return conditionOf(bank["conditions"], "Accepted") == "False/HostnameTaken" && conditionOf(at(u, "status", "conditions"), "Accepted") == "True/ListenersNotValid" &&
			strings.Contains(fmt.Sprint(at(u, "status", "addresses")), "203.0.113.80")
	}
	c.waitObject(own, "web", "the status of the gateway", told)
	// What the tenant says of it is put right.
	patch(t, own, "web", `{"status": {"addresses": [{"value": "192.0.2.1"}], "conditions": [{"type": "Accepted", "status": "True", "reason": "Mine", "message": "", "lastTransitionTime": "2026-01-02T03:04:05Z"}]}}`, "status")
	c.waitObject(own, "web", "the status of the gateway again", told)
	c.routes(ns)

	if err := own.Delete(t.Context(), "web", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	c.gone(host, hostName(ns, "web"), "the end of the gateway")
	wait(t, "nothing asks, and the certificate is gone", func() (bool, any) {
		_, asks := w.host.CoreV1().ConfigMaps(acme.HostNamespace).Get(t.Context(), hostName(ns, "web"+translate.SuffixGatewayHostnames), metav1.GetOptions{})
		_, secret := w.host.CoreV1().Secrets(acme.HostNamespace).Get(t.Context(), hostName(ns, "cert"), metav1.GetOptions{})
		return apierrors.IsNotFound(asks) && apierrors.IsNotFound(secret), fmt.Sprint(asks, secret)
	})
}

// routes has HTTPRoutes attach to the Gateway "web" of a namespace.
func (c customWorld) routes(ns string) {
	t := c.t
	own, host := c.tenant.Resource(httpRoutes).Namespace(ns), c.host.Resource(httpRoutes).Namespace(acme.HostNamespace)
	other := namespace(t)
	c.make(own, httpRoute("web", "{parentRefs: [{name: web}], hostnames: [shop.test, bank.test], rules: [{backendRefs: [{name: web, port: 80}, {name: web, namespace: "+other+", port: 80}]}]}"))
	answerTo(t, ns, "web"+translate.SuffixRouteHostnames, "bank.test\nshop.test", "shop.test", "bank.test")
	onHost := c.waitObject(host, hostName(ns, "web"), "the host's route", func(*unstructured.Unstructured) bool { return true })
	text := fmt.Sprint(onHost.Object["spec"])
	if !strings.Contains(text, hostName(ns, "web")) || strings.Contains(text, "bank.test") || strings.Contains(text, hostName(other, "web")+" ") || onHost.GetAnnotations()["example.com/pool"] != "" {
		t.Errorf("the host's route is %s, %v", text, onHost.GetAnnotations())
	}
	patch(t, host, hostName(ns, "web"), `{"status": {"parents": [{"parentRef": {"name": "`+hostName(ns, "web")+`"}, "controllerName": "vendor.example/gateway", "conditions": [
		{"type": "Accepted", "status": "True", "reason": "Accepted", "message": "", "lastTransitionTime": "2026-01-02T03:04:05Z", "observedGeneration": 1}]}]}}`, "status")
	told := func(u *unstructured.Unstructured) bool {
		return parentCondition(u, "web", "Accepted") == "True/Accepted" && parentCondition(u, "web", "PartiallyInvalid") == "True/HostnameTaken" && parentCondition(u, "web", "ResolvedRefs") == "False/RefNotPermitted"
	}
	c.waitObject(own, "web", "the status of the route", told)
	patch(t, own, "web", `{"status": {"parents": [{"parentRef": {"name": "web"}, "controllerName": "`+tenant.GatewayController+`", "conditions": [
		{"type": "Accepted", "status": "True", "reason": "Mine", "message": "", "lastTransitionTime": "2026-01-02T03:04:05Z"}]}]}}`, "status")
	c.waitObject(own, "web", "the status of the route again", told)

	e, err := w.syncer().Explain(t.Context(), policy.HTTPRoutes, tenant.Name{Namespace: ns, Name: "web"})
	if err != nil || !strings.Contains(fmt.Sprint(e.Fields), "the hostname bank.test is another's") || !strings.Contains(e.Pairing, "this very object") {
		t.Errorf("explained is %+v, %v", e, err)
	}
	if asks, err := w.syncer().ExplainHost(t.Context(), "configmaps", hostName(ns, "web"+translate.SuffixRouteHostnames)); err != nil || asks.Kind != policy.HTTPRoutes || asks.Name != "web" {
		t.Errorf("what asks for its hostnames is %+v, %v", asks, err)
	}
	// The owner of the other namespace permits it, and takes that back.
	granted := c.make(c.tenant.Resource(grants).Namespace(other), "apiVersion: gateway.networking.k8s.io/v1beta1\nkind: ReferenceGrant\nmetadata: {name: web}\n"+
		"spec: {from: [{group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: "+ns+"}], to: [{group: \"\", kind: Service}]}\n")
	c.waitObject(host, hostName(ns, "web"), "the backend that is permitted", func(u *unstructured.Unstructured) bool {
		return strings.Contains(fmt.Sprint(u.Object["spec"]), hostName(other, "web"))
	})
	c.waitObject(own, "web", "resolved references", func(u *unstructured.Unstructured) bool { return parentCondition(u, "web", "ResolvedRefs") == "" })
	if err := c.tenant.Resource(grants).Namespace(other).Delete(t.Context(), granted.GetName(), metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	c.waitObject(own, "web", "the reference that is not permitted any more", told)
	// What the manager takes away is gone from the host; what it gives is there.
	answerTo(t, ns, "web"+translate.SuffixRouteHostnames, "bank.test\nshop.test", "bank.test", "shop.test")
	c.waitObject(host, hostName(ns, "web"), "the other hostname", func(u *unstructured.Unstructured) bool {
		return fmt.Sprint(at(u, "spec", "hostnames")) == "[bank.test]"
	})
	grant(t, map[string]string{tenant.AnnotationHostnames: "shop.test,bank.test"})
	c.hostileRoutes(ns)
	if err := own.Delete(t.Context(), "web", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	c.gone(host, hostName(ns, "web"), "the end of the route")
	wait(t, "nothing asks", func() (bool, any) {
		_, err := w.host.CoreV1().ConfigMaps(acme.HostNamespace).Get(t.Context(), hostName(ns, "web"+translate.SuffixRouteHostnames), metav1.GetOptions{})
		return apierrors.IsNotFound(err), err
	})
}

// hostileRoutes writes routes that reach for what is another's: none gets to the host
// but as names of the tenant's own.
func (c customWorld) hostileRoutes(ns string) {
	t := c.t
	own, host := c.tenant.Resource(httpRoutes).Namespace(ns), c.host.Resource(httpRoutes).Namespace(acme.HostNamespace)
	other := namespace(t)
	for name, spec := range map[string]string{
		"extension": "{parentRefs: [{name: web}], rules: [{filters: [{type: ExtensionRef, extensionRef: {group: traefik.io, kind: Middleware, name: any}}], backendRefs: [{name: web, port: 80}]}]}",
		"regex":     "{parentRefs: [{name: web}], rules: [{matches: [{path: {type: RegularExpression, value: /.*}}], backendRefs: [{name: web, port: 80}]}]}",
		"script":    "{parentRefs: [{name: web}], rules: [{matches: [{headers: [{name: x, value: \"`) || Host(`bank.test\"}]}], backendRefs: [{name: web, port: 80}]}]}",
	} {
		u := c.make(own, httpRoute(name, spec))
		if warned, err := w.syncer().Judge(u); err != nil || !strings.Contains(fmt.Sprint(warned), "[gateway-fields]") {
			t.Errorf("%s: at admission: %v, %v", name, warned, err)
		}
		c.waitObject(own, name, "refusal of "+name, func(u *unstructured.Unstructured) bool {
			return parentCondition(u, "web", "Accepted") == "False/NotOffered"
		})
		if _, err := host.Get(t.Context(), hostName(ns, name), metav1.GetOptions{}); !apierrors.IsNotFound(err) {
			t.Errorf("%s is on the host: %v", name, err)
		}
	}
	// A Gateway of another namespace that lets nobody attach, and one of the host.
	c.make(c.tenant.Resource(httpRoutes).Namespace(other), httpRoute("guest", "{parentRefs: [{name: web, namespace: "+ns+"}, {name: web, namespace: "+acme.HostNamespace+"}], rules: [{backendRefs: [{name: web, port: 80}]}]}"))
	c.waitObject(c.tenant.Resource(httpRoutes).Namespace(other), "guest", "refusal of the guest", func(u *unstructured.Unstructured) bool {
		return parentCondition(u, "web", "Accepted") == "False/NotAllowedByListeners"
	})
	if _, err := host.Get(t.Context(), hostName(other, "guest"), metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("the guest is on the host: %v", err)
	}
	// A Service of another tenant, by its very name on the host.
	c.make(own, httpRoute("thief", "{parentRefs: [{name: web}], hostnames: [shop.test], rules: [{backendRefs: [{name: bank-web-50acb6f19bf3afa50529, port: 80}]}]}"))
	answerTo(t, ns, "thief"+translate.SuffixRouteHostnames, "shop.test", "shop.test", "")
	grant(t, map[string]string{tenant.AnnotationHostnames: "shop.test,bank.test"})
	c.waitObject(host, hostName(ns, "thief"), "the thief", func(u *unstructured.Unstructured) bool {
		return strings.Contains(fmt.Sprint(u.Object["spec"]), "name:"+hostName(ns, "bank-web-50acb6f19bf3afa50529")+" ")
	})
	for _, name := range []string{"extension", "regex", "script", "thief"} {
		if err := own.Delete(t.Context(), name, metav1.DeleteOptions{}); err != nil {
			t.Error(err)
		}
	}
	c.gone(host, hostName(ns, "thief"), "the end of the thief")
}

// TestHostRefusesRoutes writes to the host as the tenant's own identity there, as a
// syncer that somebody has taken over would.
func TestHostRefusesRoutes(t *testing.T) {
	c := newCustomWorld(t)
	c.offerGateways("shop.test")
	config := quick(hostConfig)
	config.Impersonate.UserName = tenant.WriteUser(acme.HostNamespace)
	confused, err := dynamic.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	try := func(text string, change func(*unstructured.Unstructured)) error {
		u, resource := parse(t, text), httpRoutes
		if u.GetKind() == policy.GatewayKind {
			resource = gateways
		}
		u.SetAnnotations(nil)
		u.SetLabels(map[string]string{tenant.LabelTenant: string(acme.ID)})
		if change != nil {
			change(u)
		}
		_, err := confused.Resource(resource).Namespace(acme.HostNamespace).Create(t.Context(), u, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
		return err
	}
	listener, rule := "{name: a, port: 80, protocol: HTTP, hostname: shop.test}", "rules: [{backendRefs: [{name: web, port: 80}]}]"
	for name, text := range map[string]string{
		"a gateway": gateway("good", listener),
		"a route":   httpRoute("good", "{parentRefs: [{name: web}], hostnames: [shop.test], "+rule+"}"),
	} {
		wait(t, name, func() (bool, any) { err := try(text, nil); return err == nil, err }) // admission learns of the namespace by watching it
	}
	secure := func(tls string) string {
		return gateway("bad", "{name: a, port: 443, protocol: HTTPS, hostname: shop.test, tls: "+tls+"}")
	}
	parents := "{parentRefs: [{name: web}], "
	for name, text := range map[string]string{
		"another class":           strings.Replace(gateway("bad", listener), "edge", "inner", 1),
		"another's hostname":      gateway("bad", strings.Replace(listener, "shop", "bank", 1)),
		"every hostname":          gateway("bad", "{name: a, port: 80, protocol: HTTP}"),
		"TLS that passes through": gateway("bad", "{name: a, port: 443, protocol: TLS, hostname: shop.test, tls: {mode: Passthrough}}"),
		"routes of all":           gateway("bad", strings.TrimSuffix(listener, "}")+", allowedRoutes: {namespaces: {from: All}}}"),
		"another's certificate":   secure("{certificateRefs: [{name: x, namespace: kube-system}]}"),
		"a certificate's kind":    secure("{certificateRefs: [{name: x, kind: ConfigMap}]}"),
		"options":                 secure("{certificateRefs: [{name: x}], options: {vendor.example/x: any}}"),
		"addresses":               strings.Replace(gateway("bad", listener), "gatewayClassName: edge", "gatewayClassName: edge, addresses: [{value: 203.0.113.1}]", 1),
		"infrastructure":          strings.Replace(gateway("bad", listener), "gatewayClassName: edge", "gatewayClassName: edge, infrastructure: {annotations: {a: b}}", 1),
		"a route's hostname":      httpRoute("bad", parents+"hostnames: [bank.test], "+rule+"}"),
		"another's gateway":       httpRoute("bad", "{parentRefs: [{name: web, namespace: kube-system}], "+rule+"}"),
		"no gateway":              httpRoute("bad", "{"+rule+"}"),
		"a service for a parent":  httpRoute("bad", "{parentRefs: [{name: web, group: \"\", kind: Service}], "+rule+"}"),
		"another's service":       httpRoute("bad", parents+"rules: [{backendRefs: [{name: web, namespace: kube-system, port: 80}]}]}"),
		"a backend's kind":        httpRoute("bad", parents+"rules: [{backendRefs: [{name: web, group: vendor.example, kind: Bucket}]}]}"),
		"an extension":            httpRoute("bad", parents+"rules: [{filters: [{type: ExtensionRef, extensionRef: {group: a, kind: B, name: c}}]}]}"),
		"a backend's extension":   httpRoute("bad", parents+"rules: [{backendRefs: [{name: web, port: 80, filters: [{type: ExtensionRef, extensionRef: {group: a, kind: B, name: c}}]}]}]}"),
		"copies to another":       httpRoute("bad", parents+"rules: [{filters: [{type: RequestMirror, requestMirror: {backendRef: {name: web, namespace: kube-system, port: 80}}}]}]}"),
		"copies by backends, too": httpRoute("bad", parents+"rules: [{backendRefs: [{name: web, port: 80, filters: [{type: RequestMirror, requestMirror: {backendRef: {name: web, namespace: kube-system, port: 80}}}]}]}]}"),
	} {
		if err := try(text, nil); err == nil || !strings.Contains(err.Error(), "ValidatingAdmissionPolicy 'sublet-tenant-gateways'") {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, change := range map[string]func(*unstructured.Unstructured){
		"another's mark": func(u *unstructured.Unstructured) { u.SetLabels(map[string]string{tenant.LabelTenant: "another"}) },
		"an annotation": func(u *unstructured.Unstructured) {
			u.SetAnnotations(map[string]string{"external-dns.alpha.kubernetes.io/hostname": "bank.test"})
		},
		"a label": func(u *unstructured.Unstructured) {
			u.SetLabels(map[string]string{tenant.LabelTenant: string(acme.ID), "istio.io/rev": "x"})
		},
	} {
		if err := try(gateway("bad", listener), change); err == nil || !strings.Contains(err.Error(), "ValidatingAdmissionPolicy 'sublet-tenant-gateways'") {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, resource := range []schema.GroupVersionResource{gatewayClasses, grants} {
		if _, err := confused.Resource(resource).Namespace(acme.HostNamespace).List(t.Context(), metav1.ListOptions{}); !apierrors.IsForbidden(err) {
			t.Errorf("the tenant's identity lists %s: %v", resource.Resource, err)
		}
	}
}
