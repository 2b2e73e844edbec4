package syncer

import (
	"context"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	extensions "k8s.io/apiextensions-apiserver/pkg/client/clientset/clientset"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/restmapper"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"sublet.dev/api/v1alpha1"
	"sublet.dev/isolation/baseline"
	"sublet.dev/tenant-apiserver/manager"
)

// customWorld has clients of both sides.
type customWorld struct {
	t                 *testing.T
	host, tenant      dynamic.Interface
	hostCRDs, ownCRDs extensions.Interface
}

func newCustomWorld(t *testing.T) customWorld {
	c := customWorld{t: t}
	for _, side := range []struct {
		config  *rest.Config
		objects *dynamic.Interface
		crds    *extensions.Interface
	}{{hostConfig, &c.host, &c.hostCRDs}, {w.tenantConfig, &c.tenant, &c.ownCRDs}} {
		objects, err := dynamic.NewForConfig(quick(side.config))
		if err != nil {
			t.Fatal(err)
		}
		crds, err := extensions.NewForConfig(quick(side.config))
		if err != nil {
			t.Fatal(err)
		}
		*side.objects, *side.crds = objects, crds
	}
	return c
}

// define gives the host kinds, early: its quota controller looks for new ones twice a
// minute.
func define(ctx context.Context, host *rest.Config) error {
	api, err := extensions.NewForConfig(quick(host))
	if err != nil {
		return err
	}
	gateways, err := gatewayDefinitions(ctx)
	if err != nil {
		return err
	}
	texts := append(gateways, certificatesDefinition, issuersDefinition, snapshotsDefinition, snapshotClassesDefinition)
	for _, manifest := range v1alpha1.Manifests() {
		texts = append(texts, string(manifest))
	}
	for _, text := range texts {
		crd := &apiextensionsv1.CustomResourceDefinition{}
		if err := yaml.UnmarshalStrict([]byte(text), crd); err != nil {
			return err
		}
		if _, err := api.ApiextensionsV1().CustomResourceDefinitions().Create(ctx, crd, metav1.CreateOptions{}); err != nil {
			return err
		}
	}
	return nil
}

// counted waits until the host's quota counts a resource, and has it computed as the
// manager does.
func (c customWorld) counted(name corev1.ResourceName) {
	c.t.Helper()
	api, err := client.New(quick(hostConfig), client.Options{})
	if err != nil {
		c.t.Fatal(err)
	}
	quotas, tries := w.host.CoreV1().ResourceQuotas(acme.HostNamespace), 0
	wait(c.t, "the quota of "+string(name), func() (bool, any) {
		q, err := quotas.Get(c.t.Context(), "sublet", metav1.GetOptions{})
		if err != nil {
			return false, err
		}
		if _, known := q.Status.Used[name]; known {
			return true, manager.Recount(c.t.Context(), api, q, false)
		}
		if tries++; tries%50 == 0 {
			err = manager.Recount(c.t.Context(), api, q, true)
		}
		return false, err
	})
}

// offer gives the tenant a plan, as the manager does.
func (c customWorld) offer(text string) {
	c.t.Helper()
	var spec v1alpha1.PlanSpec
	if err := yaml.UnmarshalStrict([]byte(text), &spec); err != nil {
		c.t.Fatal(err)
	}
	mapper := restmapper.NewDeferredDiscoveryRESTMapper(memory.NewMemCacheClient(w.host.Discovery()))
	for _, o := range baseline.Tenant(acme, cell, spec) {
		content, err := runtime.DefaultUnstructuredConverter.ToUnstructured(o)
		if err != nil {
			c.t.Fatal(err)
		}
		u := &unstructured.Unstructured{Object: content}
		unstructured.RemoveNestedField(u.Object, "metadata", "creationTimestamp")
		mapping, err := mapper.RESTMapping(u.GroupVersionKind().GroupKind(), u.GroupVersionKind().Version)
		if err != nil {
			c.t.Fatal(err)
		}
		if _, err := c.host.Resource(mapping.Resource).Namespace(o.GetNamespace()).Apply(c.t.Context(), o.GetName(), u, metav1.ApplyOptions{FieldManager: "test", Force: true}); err != nil {
			c.t.Fatal(err)
		}
	}
	w.syncer().SetCustomResources(baseline.CustomResources(spec))
}

func (c customWorld) make(side dynamic.ResourceInterface, text string) *unstructured.Unstructured {
	c.t.Helper()
	u := parse(c.t, text)
	var made *unstructured.Unstructured
	wait(c.t, "the kind of "+u.GetName(), func() (bool, any) {
		var err error
		made, err = side.Create(c.t.Context(), u, metav1.CreateOptions{})
		return err == nil, err
	})
	return made
}

func parse(t *testing.T, text string) *unstructured.Unstructured {
	t.Helper()
	data, err := yaml.YAMLToJSON([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	u := &unstructured.Unstructured{}
	if err := u.UnmarshalJSON(data); err != nil {
		t.Fatal(err)
	}
	return u
}

// waitObject waits until an object is as asked.
func (c customWorld) waitObject(side dynamic.ResourceInterface, name, what string, is func(*unstructured.Unstructured) bool) *unstructured.Unstructured {
	c.t.Helper()
	var u *unstructured.Unstructured
	wait(c.t, what, func() (ok bool, last any) {
		var err error
		if u, err = side.Get(c.t.Context(), name, metav1.GetOptions{}); err != nil {
			return false, err
		}
		return is(u), u
	})
	return u
}

func (c customWorld) gone(side dynamic.ResourceInterface, name, what string) {
	c.t.Helper()
	wait(c.t, what, func() (bool, any) {
		u, err := side.Get(c.t.Context(), name, metav1.GetOptions{})
		return apierrors.IsNotFound(err), u
	})
}

func patch(t *testing.T, side dynamic.ResourceInterface, name, text string, subresources ...string) {
	t.Helper()
	if _, err := side.Patch(t.Context(), name, types.MergePatchType, []byte(text), metav1.PatchOptions{}, subresources...); err != nil {
		t.Fatal(err)
	}
}

func at(u *unstructured.Unstructured, path ...string) any {
	v, _, _ := unstructured.NestedFieldNoCopy(u.Object, path...)
	return v
}

func told(t *testing.T, namespace, reason, text string) {
	t.Helper()
	wait(t, "event "+reason, func() (bool, any) {
		events, err := w.tenant.CoreV1().Events(namespace).List(t.Context(), metav1.ListOptions{})
		if err != nil {
			return false, err
		}
		return slices.ContainsFunc(events.Items, func(e corev1.Event) bool { return e.Reason == reason && strings.Contains(e.Message, text) }), events.Items
	})
}
