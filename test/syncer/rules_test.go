package syncer

import (
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"sublet.dev/isolation/tenant"
	"sublet.dev/syncer"
	"sublet.dev/syncer/translate"
)

// certificatesDefinition is a kind of the host as cert-manager has one, with a webhook
// that nobody may call.
const certificatesDefinition = `
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: certificates.certs.example.org}
spec:
  group: certs.example.org
  names: {plural: certificates, singular: certificate, kind: Certificate, listKind: CertificateList, shortNames: [crt]}
  scope: Namespaced
  conversion: {strategy: Webhook, webhook: {conversionReviewVersions: [v1], clientConfig: {url: "https://127.0.0.1:1/convert"}}}
  versions:
  - name: v1
    served: true
    storage: true
    subresources: {status: {}}
    schema:
      openAPIV3Schema:
        type: object
        properties:
          spec:
            type: object
            required: [secretName]
            properties:
              secretName: {type: string}
              dnsNames: {type: array, items: {type: string}}
              duration: {type: string, default: 2160h}
              issuerRef: {type: object, properties: {name: {type: string}, kind: {type: string}}}
              passwordRef: {type: object, properties: {name: {type: string}, key: {type: string}}}
              hostPath: {type: string}
          status:
            type: object
            properties:
              observedGeneration: {type: integer}
              ready: {type: boolean}
              secret: {type: string}
              internal: {type: string}
`

const issuersDefinition = `
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: issuers.certs.example.org}
spec:
  group: certs.example.org
  names: {plural: issuers, singular: issuer, kind: Issuer, listKind: IssuerList}
  scope: Cluster
  versions:
  - name: v1
    served: true
    storage: true
    schema:
      openAPIV3Schema:
        type: object
        properties:
          spec:
            type: object
            properties: {display: {type: string}, token: {type: string}}
`

const customPlan = `
customResources:
- group: certs.example.org
  version: v1
  kind: Certificate
  resource: certificates
  direction: ToHost
  max: 5
  fields:
  - path: spec.dnsNames
  - path: spec.duration
  - {path: spec.secretName, result: Secret}
  - {path: spec.passwordRef.name, reference: Secret}
  - path: spec.passwordRef.key
  - {path: spec.issuerRef.name, values: [public, internal]}
  - {path: spec.issuerRef.kind, value: Issuer}
  status: [status.ready, status.observedGeneration, status.secret]
  hostLabels: [{name: certs.example.org/zone, value: tenants}]
- group: certs.example.org
  version: v1
  kind: Issuer
  resource: issuers
  direction: FromHost
  fields: [{path: spec.display}]
  select: {matchLabels: {offered: "yes"}}
`

var (
	certificates = schema.GroupVersionResource{Group: "certs.example.org", Version: "v1", Resource: "certificates"}
	issuers      = schema.GroupVersionResource{Group: "certs.example.org", Version: "v1", Resource: "issuers"}
)

// A tenant's object of a kind of the host takes its way by the plan's rule: down with
// what the rule names, up with its status and its secret, and to its end.
func TestCustomResources(t *testing.T) {
	c := newCustomWorld(t)
	c.offer(customPlan)
	c.counted("count/certificates.certs.example.org")
	ns := namespace(t)
	own, host := c.tenant.Resource(certificates).Namespace(ns), c.host.Resource(certificates).Namespace(acme.HostNamespace)

	if _, err := w.tenant.CoreV1().Secrets(ns).Create(t.Context(), &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "password"}, StringData: map[string]string{"p": "x"}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	made := c.make(own, `
apiVersion: certs.example.org/v1
kind: Certificate
metadata: {name: web, labels: {app: web, certs.example.org/zone: other}, annotations: {issue-temporary: "yes"}, finalizers: [acme.example.org/own]}
spec: {secretName: web-tls, dnsNames: [web.example.org], issuerRef: {kind: Root}, passwordRef: {name: password, key: p}}
`)
	view, err := c.ownCRDs.ApiextensionsV1().CustomResourceDefinitions().Get(t.Context(), "certificates.certs.example.org", metav1.GetOptions{})
	if err != nil || view.Spec.Conversion.Strategy != apiextensionsv1.NoneConverter || view.Spec.Conversion.Webhook != nil || len(view.Spec.Names.ShortNames) != 1 {
		t.Errorf("the tenant's definition: %v, %+v", err, view.Spec)
	}
	name := hostName(ns, "web")
	onHost := c.waitObject(host, name, "the host object", func(*unstructured.Unstructured) bool { return true })
	secretName, _ := at(onHost, "spec", "secretName").(string)
	want := map[string]any{
		"dnsNames": []any{"web.example.org"}, "duration": "2160h", "secretName": secretName,
		"issuerRef": map[string]any{"name": "public", "kind": "Issuer"}, "passwordRef": map[string]any{"name": hostName(ns, "password"), "key": "p"},
	}
	if got, _ := json.Marshal(onHost.Object["spec"]); string(got) != string(must(json.Marshal(want))) {
		t.Errorf("on the host:\n%s\nwant\n%s", got, must(json.Marshal(want)))
	}
	if l := onHost.GetLabels(); len(l) != 4 || l[tenant.LabelTenant] != string(acme.ID) || l["certs.example.org/zone"] != "tenants" || len(onHost.GetFinalizers()) != 0 {
		t.Errorf("labels %v, finalizers %v", l, onHost.GetFinalizers())
	}
	for key := range onHost.GetAnnotations() {
		if !tenant.IsKey(key) {
			t.Errorf("the annotation %s is on the host", key)
		}
	}
	wait(t, "the secret that it refers to", func() (bool, any) {
		s, err := w.host.CoreV1().Secrets(acme.HostNamespace).Get(t.Context(), hostName(ns, "password"), metav1.GetOptions{})
		return err == nil && string(s.Data["p"]) == "x", err
	})

	e, err := w.syncer().ExplainObject(t.Context(), "certificates.certs.example.org", tenant.Name{Namespace: ns, Name: "web"})
	if err != nil || e.HostName != name || e.TenantObject == nil || e.HostObject == nil || len(e.Passes) != 3 ||
		!slices.Contains(e.Fields, translate.Fate{Field: "spec.issuerRef.kind", Fate: "forced"}) || !slices.Contains(e.Fields, translate.Fate{Field: "spec.passwordRef.name", Fate: "translated"}) {
		t.Errorf("%v, %+v", err, e)
	}
	for _, kind := range []string{"issuers.certs.example.org", "others.example.org"} {
		if _, err := w.syncer().ExplainObject(t.Context(), kind, tenant.Name{Namespace: ns, Name: "web"}); !errors.Is(err, syncer.ErrNotFound) {
			t.Errorf("%s: %v", kind, err)
		}
	}

	// What the host's controller does.
	issued := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: secretName, Namespace: acme.HostNamespace}, Type: corev1.SecretTypeTLS,
		Data: map[string][]byte{"tls.crt": []byte("one"), "tls.key": []byte("key")}}
	if _, err = w.host.CoreV1().Secrets(acme.HostNamespace).Create(t.Context(), issued, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	patch(t, host, name, `{"status": {"ready": true, "observedGeneration": `+itoa(onHost.GetGeneration())+`, "secret": "in `+secretName+` of `+acme.HostNamespace+`", "internal": "10.0.0.1"}}`, "status")
	c.waitObject(own, "web", "the status", func(u *unstructured.Unstructured) bool {
		return at(u, "status", "ready") == true && at(u, "status", "secret") == "in web-tls of "+ns && at(u, "status", "internal") == nil && at(u, "status", "observedGeneration") == u.GetGeneration()
	})
	brought := c.waitSecret(ns, "web-tls", "one")
	if brought.Type != corev1.SecretTypeTLS || len(brought.OwnerReferences) != 1 || brought.OwnerReferences[0].UID != made.GetUID() {
		t.Errorf("the tenant's secret: %s, %v", brought.Type, brought.OwnerReferences)
	}
	issued, err = w.host.CoreV1().Secrets(acme.HostNamespace).Get(t.Context(), secretName, metav1.GetOptions{})
	if err != nil || len(issued.OwnerReferences) != 1 || issued.OwnerReferences[0].UID != onHost.GetUID() {
		t.Fatalf("the host's secret: %v, %v", err, issued.OwnerReferences)
	}
	renewal := []byte(`{"data":{"tls.crt":"dHdv"}}`) // "two"; nothing else changes
	if _, err := w.host.CoreV1().Secrets(acme.HostNamespace).Patch(t.Context(), secretName, types.MergePatchType, renewal, metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	c.waitSecret(ns, "web-tls", "two")

	// Drift on the host is repaired, what its controllers add stays.
	patch(t, host, name, `{"spec": {"dnsNames": ["evil.example.org"], "hostPath": "/added"}}`)
	c.waitObject(host, name, "the repair", func(u *unstructured.Unstructured) bool {
		names, _ := at(u, "spec", "dnsNames").([]any)
		return len(names) == 1 && names[0] == "web.example.org" && at(u, "spec", "hostPath") == "/added"
	})
	// A field that the rule does not name is refused, and leaves the host as it was.
	patch(t, own, "web", `{"spec": {"hostPath": "/etc", "dnsNames": ["two.example.org"]}}`)
	told(t, ns, "NotOnHost", "spec.hostPath")
	c.judged(parse(t, "apiVersion: certs.example.org/v1\nkind: Certificate\nspec: {secretName: x, hostPath: /etc}"), "spec.hostPath: your plan")
	c.judged(parse(t, "apiVersion: certs.example.org/v1\nkind: Certificate\nspec: {secretName: x}"), "")
	c.judged(parse(t, "apiVersion: certs.example.org/v1\nkind: Issuer\nspec: {hostPath: /etc}"), "") // a kind that is shown: the tenant's own object
	if u, err := host.Get(t.Context(), name, metav1.GetOptions{}); err != nil || at(u, "spec", "hostPath") != "/added" {
		t.Errorf("%v: %v", err, u.Object["spec"])
	}
	patch(t, own, "web", `{"spec": {"hostPath": null, "dnsNames": ["two.example.org"], "passwordRef": null}}`)
	c.waitObject(host, name, "the change", func(u *unstructured.Unstructured) bool {
		names, _ := at(u, "spec", "dnsNames").([]any)
		password, _ := at(u, "spec", "passwordRef").(map[string]any)
		return len(names) == 1 && names[0] == "two.example.org" && len(password) == 0
	})
	wait(t, "the end of the secret that nothing refers to", func() (bool, any) {
		_, err := w.host.CoreV1().Secrets(acme.HostNamespace).Get(t.Context(), hostName(ns, "password"), metav1.GetOptions{})
		return apierrors.IsNotFound(err), err
	})

	// Deleted on the host, it comes again; deleted by the tenant, it goes when the
	// host's controllers are done, and when the tenant's own are.
	before := c.waitObject(host, name, "it", func(*unstructured.Unstructured) bool { return true })
	if err := host.Delete(t.Context(), name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	c.waitObject(host, name, "its return", func(u *unstructured.Unstructured) bool { return u.GetUID() != before.GetUID() })
	patch(t, host, name, `{"metadata": {"finalizers": ["certs.example.org/revoke"]}}`)
	if err := own.Delete(t.Context(), "web", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	c.waitObject(host, name, "the end on the host", func(u *unstructured.Unstructured) bool { return u.GetDeletionTimestamp() != nil })
	patch(t, own, "web", `{"metadata": {"finalizers": ["sublet.dev/host"]}}`)
	if u, err := own.Get(t.Context(), "web", metav1.GetOptions{}); err != nil || !slices.Contains(u.GetFinalizers(), "sublet.dev/host") {
		t.Errorf("the tenant's object did not wait for the host's: %v", err)
	}
	patch(t, host, name, `{"metadata": {"finalizers": null}}`)
	c.gone(own, "web", "the end in the tenant")
	c.gone(host, name, "the end on the host")
	wait(t, "the end of the secret", func() (bool, any) {
		_, err := w.tenant.CoreV1().Secrets(ns).Get(t.Context(), "web-tls", metav1.GetOptions{})
		return apierrors.IsNotFound(err), err
	})

	t.Run("shown", func(t *testing.T) { c.shown(t) })

	// Without a rule nothing is followed, and an unused kind goes.
	c.offer(`{}`)
	wait(t, "the end of the kind", func() (bool, any) {
		_, err := c.ownCRDs.ApiextensionsV1().CustomResourceDefinitions().Get(t.Context(), "certificates.certs.example.org", metav1.GetOptions{})
		return apierrors.IsNotFound(err), err
	})
}

// shown: the tenant sees what the rule selects, as the rule says, and cannot change it.
func (c customWorld) shown(t *testing.T) {
	c.t = t
	own, host := c.tenant.Resource(issuers), c.host.Resource(issuers)
	const one = `
apiVersion: certs.example.org/v1
kind: Issuer
metadata: {name: public, labels: {offered: "yes"}}
spec: {display: Public, token: secret}
`
	c.make(host, one)
	c.make(host, strings.NewReplacer("public", "private", `"yes"`, `"no"`).Replace(one))
	view := c.waitObject(own, "public", "the view", func(u *unstructured.Unstructured) bool { return at(u, "spec", "display") == "Public" })
	if at(view, "spec", "token") != nil || len(view.GetLabels()) != 0 {
		t.Errorf("the view has %v", view.Object)
	}
	patch(t, own, "public", `{"spec": {"display": "Mine", "token": "x"}}`)
	c.waitObject(own, "public", "the repair", func(u *unstructured.Unstructured) bool {
		return at(u, "spec", "display") == "Public" && at(u, "spec", "token") == nil
	})
	c.make(own, strings.NewReplacer("public", "mine").Replace(one)) // the tenant's own stays, and leads to nothing
	if _, err := own.Get(t.Context(), "private", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("what is not offered is shown: %v", err)
	}
	patch(t, host, "public", `{"metadata": {"labels": {"offered": null}}}`)
	c.gone(own, "public", "the end of the view")
	if u, err := own.Get(t.Context(), "mine", metav1.GetOptions{}); err != nil || at(u, "spec", "token") != "secret" {
		t.Errorf("the tenant's own: %v, %v", err, u)
	}
	if _, err := host.Get(t.Context(), "mine", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("the tenant's own is on the host: %v", err)
	}
}

// judged: the tenant's API is told at once of what would not get to the host; with "" it
// gets there.
func (c customWorld) judged(o *unstructured.Unstructured, says string) {
	c.t.Helper()
	_, err := w.syncer().Judge(o)
	if says == "" && err != nil || says != "" && (err == nil || !strings.Contains(err.Error(), says) || !strings.Contains(err.Error(), "[custom-resource-fields]")) {
		c.t.Errorf("%s: %v, want %q", o.GetKind(), err, says)
	}
}

func (c customWorld) waitSecret(namespace, name, crt string) *corev1.Secret {
	c.t.Helper()
	var s *corev1.Secret
	wait(c.t, "the tenant's secret", func() (bool, any) {
		var err error
		s, err = w.tenant.CoreV1().Secrets(namespace).Get(c.t.Context(), name, metav1.GetOptions{})
		return err == nil && string(s.Data["tls.crt"]) == crt, err
	})
	return s
}

func must(b []byte, err error) []byte {
	if err != nil {
		panic(err)
	}
	return b
}

func itoa(n int64) string { return string(must(json.Marshal(n))) }
