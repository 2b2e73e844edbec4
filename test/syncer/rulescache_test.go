package syncer

import (
	"strings"
	"testing"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"

	"sublet.dev/isolation/tenant"
	"sublet.dev/syncer/rules"
)

const certificate = `
apiVersion: certs.example.org/v1
kind: Certificate
metadata: {name: web}
spec: {secretName: web-tls, dnsNames: [web.example.org]}
`

const issuer = `
apiVersion: certs.example.org/v1
kind: Issuer
metadata: {name: shared, labels: {offered: "yes"}}
spec: {display: One, token: secret}
`

// commons waits until so many kinds of the host are followed for all tenants of the cell.
func (c customWorld) commons(n int) {
	c.t.Helper()
	wait(c.t, "the kinds that are shown", func() (bool, any) { now := w.shared.Stats(); return now.Commons == n, now })
}

// undefine takes definitions from the host, with all objects of their kinds.
func (c customWorld) undefine(names ...string) {
	c.t.Helper()
	api := c.hostCRDs.ApiextensionsV1().CustomResourceDefinitions()
	for _, name := range names {
		if err := api.Delete(c.t.Context(), name, metav1.DeleteOptions{}); err != nil {
			c.t.Fatal(err)
		}
		wait(c.t, "the end of "+name, func() (bool, any) {
			_, err := api.Get(c.t.Context(), name, metav1.GetOptions{})
			return apierrors.IsNotFound(err), err
		})
	}
}

func (c customWorld) redefine(texts ...string) {
	c.t.Helper()
	for _, text := range texts {
		crd := &apiextensionsv1.CustomResourceDefinition{}
		if err := yaml.UnmarshalStrict([]byte(text), crd); err != nil {
			c.t.Fatal(err)
		}
		if _, err := c.hostCRDs.ApiextensionsV1().CustomResourceDefinitions().Create(c.t.Context(), crd, metav1.CreateOptions{}); err != nil {
			c.t.Fatal(err)
		}
	}
}

// serve says which versions of a definition of the host are served.
func (c customWorld) serve(name string, versions map[string]bool) {
	c.t.Helper()
	api := c.hostCRDs.ApiextensionsV1().CustomResourceDefinitions()
	wait(c.t, "other versions of "+name, func() (bool, any) {
		crd, err := api.Get(c.t.Context(), name, metav1.GetOptions{})
		if err != nil {
			return false, err
		}
		one := crd.Spec.Versions[0]
		crd.Spec.Versions = nil
		for _, version := range []string{"v1", "v2"} {
			v := *one.DeepCopy()
			v.Name, v.Served, v.Storage = version, versions[version], version == "v1"
			crd.Spec.Versions = append(crd.Spec.Versions, v)
		}
		_, err = api.Update(c.t.Context(), crd, metav1.UpdateOptions{})
		return err == nil, err
	})
}

// TestParkedRule: of a kind that goes to the host nothing is watched while the tenant has
// none there. What somebody makes of it by hand the patrol finds.
func TestParkedRule(t *testing.T) {
	c := newCustomWorld(t)
	c.offer(customPlan)
	t.Cleanup(func() { w.syncer().SetCustomResources(nil) })
	c.counted("count/certificates.certs.example.org")
	host, offered := c.host.Resource(certificates).Namespace(acme.HostNamespace), c.host.Resource(issuers)
	catalogue := c.tenant.Resource(issuers)
	c.make(offered, issuer)
	c.waitObject(catalogue, "shared", "the view", func(u *unstructured.Unstructured) bool { return at(u, "spec", "display") == "One" })
	wait(t, "a look at the host", func() (bool, any) {
		_, err := w.syncer().ExplainObject(t.Context(), "certificates.certs.example.org", tenant.Name{Namespace: "default", Name: "none"})
		return err != nil && !strings.Contains(err.Error(), "rule"), err
	})
	owner := tenant.Owner{Tenant: acme.ID, Name: tenant.Name{Namespace: "default", Name: "nobody's"}, UID: "nobody"}
	byHand := parse(t, certificate)
	labels, annotations := owner.Marks()
	byHand.SetName(string(acme.ID.HostName(owner.Name)))
	byHand.SetLabels(labels)
	byHand.SetAnnotations(annotations)
	patrols := w.syncer().PatrolStats()
	if _, err := host.Create(t.Context(), byHand, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	patch(t, offered, "shared", `{"spec": {"display": "Two"}}`) // others are worked on
	c.waitObject(catalogue, "shared", "a change", func(u *unstructured.Unstructured) bool { return at(u, "spec", "display") == "Two" })
	if _, err := host.Get(t.Context(), byHand.GetName(), metav1.GetOptions{}); err != nil && w.syncer().PatrolStats() == patrols {
		t.Errorf("the kind is watched: %v", err)
	}
	wait(t, "the end of what is nobody's", func() (bool, any) {
		w.syncer().Patrol(t.Context())
		_, err := host.Get(t.Context(), byHand.GetName(), metav1.GetOptions{})
		return apierrors.IsNotFound(err), err
	})
}

// TestDefinitionsComeAndGo: a rule ends with the host's definition, or with the version
// that it is about, and what followed the host for it ends, too. When it comes again, so
// does what the tenant has.
func TestDefinitionsComeAndGo(t *testing.T) {
	c := newCustomWorld(t)
	c.commons(0)
	c.offer(customPlan)
	t.Cleanup(func() { w.syncer().SetCustomResources(nil) })
	c.counted("count/certificates.certs.example.org")
	ns := namespace(t)
	own, host := c.tenant.Resource(certificates).Namespace(ns), c.host.Resource(certificates).Namespace(acme.HostNamespace)
	catalogue, offered, name := c.tenant.Resource(issuers), c.host.Resource(issuers), hostName(ns, "web")
	shows := func(display string) func(*unstructured.Unstructured) bool {
		return func(u *unstructured.Unstructured) bool { return at(u, "spec", "display") == display }
	}
	c.make(own, certificate)
	c.make(offered, strings.ReplaceAll(issuer, "shared", "passing"))
	first := c.waitObject(host, name, "the host object", func(*unstructured.Unstructured) bool { return true })
	c.waitObject(catalogue, "passing", "the view", shows("One"))
	c.commons(1)

	c.undefine("certificates.certs.example.org", "issuers.certs.example.org")
	c.commons(0)
	wait(t, "the end of the rule", func() (bool, any) {
		_, err := w.syncer().ExplainObject(t.Context(), "certificates.certs.example.org", tenant.Name{Namespace: ns, Name: "web"})
		return err != nil && strings.Contains(err.Error(), "the host has no definition"), err
	})
	patch(t, own, "web", `{"spec": {"dnsNames": ["two.example.org"]}}`)
	c.redefine(certificatesDefinition, issuersDefinition)
	c.waitObject(host, name, "its return", func(u *unstructured.Unstructured) bool {
		names, _ := at(u, "spec", "dnsNames").([]any)
		return u.GetUID() != first.GetUID() && len(names) == 1 && names[0] == "two.example.org"
	})
	c.gone(catalogue, "passing", "the end of the view")
	again := c.make(offered, strings.ReplaceAll(issuer, "shared", "passing"))
	c.waitObject(catalogue, "passing", "another view", func(u *unstructured.Unstructured) bool {
		return u.GetAnnotations()[rules.AnnotationView] == string(again.GetUID())
	})
	c.commons(1)

	c.serve("issuers.certs.example.org", map[string]bool{"v2": true})
	c.commons(0)
	later := c.host.Resource(issuers.GroupResource().WithVersion("v2"))
	wait(t, "the other version", func() (bool, any) {
		_, err := later.Get(t.Context(), "passing", metav1.GetOptions{})
		return err == nil, err
	})
	patch(t, later, "passing", `{"spec": {"display": "Two"}}`)
	c.serve("issuers.certs.example.org", map[string]bool{"v1": true, "v2": true})
	c.waitObject(catalogue, "passing", "what changed meanwhile", shows("Two"))
	c.commons(1)

	if err := own.Delete(t.Context(), "web", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	c.gone(host, name, "the end on the host")
	c.offer(`{}`)
	c.commons(0)
}
