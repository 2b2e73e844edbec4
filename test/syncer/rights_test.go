package syncer

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/yaml"

	"sublet.dev/api/v1alpha1"
	"sublet.dev/isolation/policy"
	"sublet.dev/isolation/tenant"
)

// resources are those of an API with a verb, Sublet's own among them on the host.
func resources(t *testing.T, api *kubernetes.Clientset, verb, group string) map[schema.GroupVersionResource]metav1.APIResource {
	t.Helper()
	all := map[schema.GroupVersionResource]metav1.APIResource{}
	wait(t, "discovery of "+group, func() (bool, any) {
		_, lists, err := api.Discovery().ServerGroupsAndResources()
		if err != nil {
			return false, err
		}
		for _, list := range lists {
			gv, err := schema.ParseGroupVersion(list.GroupVersion)
			if err != nil {
				return false, err
			}
			for _, r := range list.APIResources {
				if slices.Contains(r.Verbs, verb) && !strings.Contains(r.Name, "/") {
					all[gv.WithResource(r.Name)] = r
				}
			}
		}
		for r := range all {
			if r.Group == group {
				return true, nil
			}
		}
		return false, slices.Collect(maps.Keys(all))
	})
	return all
}

// anything is a client for objects of all kinds, as a user of the host.
func anything(t *testing.T, user string) *dynamic.DynamicClient {
	t.Helper()
	config := quick(hostConfig)
	config.Impersonate = rest.ImpersonationConfig{UserName: user}
	api, err := dynamic.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	return api
}

// notAllowed says whether somebody has no right, which is not what a fence or quota says.
func notAllowed(err error) bool {
	return apierrors.IsForbidden(err) && strings.Contains(err.Error(), " cannot ")
}

// TestTenantMakesNothingElsewhere: with a tenant's identity, whatever brought it to write
// what a tenant wrote, nothing is made on the host that has no namespace or another's. In
// the tenant's own it makes what the syncer does. The resources are those that the host
// says it has.
func TestTenantMakesNothingElsewhere(t *testing.T) {
	writer := anything(t, tenant.WriteUser(acme.HostNamespace))
	var questions, own []string
	for r, of := range resources(t, w.host, "create", v1alpha1.GroupVersion.Group) {
		try := func(namespace string) error {
			o := &unstructured.Unstructured{}
			o.SetGroupVersionKind(r.GroupVersion().WithKind(of.Kind))
			o.SetName("planted")
			_, err := writer.Resource(r).Namespace(namespace).Create(t.Context(), o, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
			return err
		}
		if !of.Namespaced {
			if err := try(""); !notAllowed(err) {
				questions = append(questions, r.Resource)
			}
			continue
		}
		for _, namespace := range []string{"default", "kube-system", v1alpha1.SystemNamespace, tenant.HostNamespace("other", "1d9f2c1e-7b6a-4c58-9a3e-2f1d5c4b3a29")} {
			if err := try(namespace); !notAllowed(err) {
				t.Errorf("%s in %s: %v", r, namespace, err)
			}
		}
		if policy.MayCross(r.Group, r.Resource) {
			continue // by the tenant's plan, which other tests change
		}
		if err := try(acme.HostNamespace); !notAllowed(err) {
			own = append(own, r.Resource)
		}
	}
	slices.Sort(questions)
	slices.Sort(own)
	// Everybody may ask what he may do; nothing is kept of that.
	if want := []string{"selfsubjectaccessreviews", "selfsubjectreviews", "selfsubjectrulesreviews"}; !slices.Equal(questions, want) {
		t.Errorf("without a namespace it may create %q, want %q", questions, want)
	}
	if want := []string{"configmaps", "endpointslices", "ingresses", "networkpolicies", "persistentvolumeclaims", "pods", "secrets", "services"}; !slices.Equal(own, want) {
		t.Errorf("in its own namespace it may create %q, want %q", own, want)
	}
}

// TestOwnObjectsAreTheProviders: neither a tenant's identity nor its cell's reads or
// writes the objects that say what tenants have, and whom Sublet connects to.
func TestOwnObjectsAreTheProviders(t *testing.T) {
	kinds := 0
	for r := range resources(t, w.host, "create", v1alpha1.GroupVersion.Group) {
		if r.Group != v1alpha1.GroupVersion.Group {
			continue
		}
		kinds++
		for who, user := range map[string]string{"the tenant": tenant.WriteUser(acme.HostNamespace), "the cell": tenant.CellUser(cell), "the provider": ""} {
			api := anything(t, user).Resource(r)
			for what, try := range map[string]func(context.Context) error{
				"reads":   func(ctx context.Context) error { _, err := api.Get(ctx, "x", metav1.GetOptions{}); return err },
				"changes": func(ctx context.Context) error { return patched(ctx, api) },
				"reports": func(ctx context.Context) error { return patched(ctx, api, "status") },
				"deletes": func(ctx context.Context) error { return api.Delete(ctx, "x", metav1.DeleteOptions{}) },
				"deletes them all": func(ctx context.Context) error {
					o := metav1.DeleteOptions{DryRun: []string{metav1.DryRunAll}}
					return api.DeleteCollection(ctx, o, metav1.ListOptions{})
				},
			} {
				switch err := try(t.Context()); {
				case user != "" && !notAllowed(err):
					t.Errorf("%s %s %s: %v", who, what, r.Resource, err)
				case user == "" && err != nil && !apierrors.IsNotFound(err):
					t.Errorf("%s, who may, %s %s: %v", who, what, r.Resource, err)
				}
			}
		}
	}
	if kinds != len(v1alpha1.Manifests()) {
		t.Errorf("the host has %d of our kinds", kinds)
	}
}

func patched(ctx context.Context, api dynamic.ResourceInterface, subresource ...string) error {
	_, err := api.Patch(ctx, "x", types.MergePatchType, []byte(`{"status":{"endpoint":"https://169.254.169.254"}}`), metav1.PatchOptions{}, subresource...)
	return err
}

// chartsDefinition is a kind whose objects other clusters make objects of.
const chartsDefinition = `
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: helmcharts.helm.cattle.io}
spec:
  group: helm.cattle.io
  names: {plural: helmcharts, singular: helmchart, kind: HelmChart}
  scope: Namespaced
  versions:
  - {name: v1, served: true, storage: true, schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}}
`

// TestManifestsAreData: what elsewhere is a bootstrap manifest, an add-on or a chart comes
// to the host as what it is, data of a pod, if at all. Nobody makes objects of it.
func TestManifestsAreData(t *testing.T) {
	ns := namespace(t)
	name := "planted-" + ns
	manifest, err := json.Marshal(map[string]any{"apiVersion": "v1", "kind": "List", "items": []any{
		&corev1.Namespace{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Namespace"}, ObjectMeta: metav1.ObjectMeta{Name: name}},
		&corev1.Secret{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Secret"}, ObjectMeta: metav1.ObjectMeta{Namespace: "kube-system", Name: name}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	marks := metav1.ObjectMeta{
		Name:        "bootstrap",
		Labels:      map[string]string{"addonmanager.kubernetes.io/mode": "Reconcile", "kubernetes.io/bootstrapping": "rbac-defaults", "objectset.rio.cattle.io/hash": "x"},
		Annotations: map[string]string{corev1.LastAppliedConfigAnnotation: string(manifest), "objectset.rio.cattle.io/applied": string(manifest)},
	}
	plantChart(t, ns, name, string(manifest))
	if _, err := w.tenant.CoreV1().ConfigMaps(ns).Create(t.Context(), &corev1.ConfigMap{ObjectMeta: marks, Data: map[string]string{"manifest.yaml": string(manifest)}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	pod := simplePod(ns, "web")
	pod.Annotations = marks.Annotations
	pod.Spec.Containers[0].EnvFrom = []corev1.EnvFromSource{{ConfigMapRef: &corev1.ConfigMapEnvSource{LocalObjectReference: corev1.LocalObjectReference{Name: "bootstrap"}}}}
	own := create(t, pod)
	hostPod := waitHostPod(t, ns, "web", own.UID)
	// It is there, as data: the control.
	there, err := w.host.CoreV1().ConfigMaps(acme.HostNamespace).Get(t.Context(), hostName(ns, "bootstrap"), metav1.GetOptions{})
	if err != nil || there.Data["manifest.yaml"] != string(manifest) {
		t.Errorf("the pod's ConfigMap: %v, %v", there, err)
	}
	looked, admin := 0, anything(t, "")
	for r := range resources(t, w.host, "list", v1alpha1.GroupVersion.Group) {
		all, err := admin.Resource(r).List(t.Context(), metav1.ListOptions{})
		if err != nil {
			t.Logf("%s: %v", r, err) // a kind whose conversion is broken on purpose
			continue
		}
		looked++
		for _, o := range all.Items {
			if o.GetName() == name || o.GetName() == "helmcharts.helm.cattle.io" {
				t.Errorf("%s %s is on the host", r, o.GetName())
			}
		}
	}
	if looked < 30 {
		t.Errorf("the host was looked at in %d resources", looked)
	}
	dropPod(t, own, hostPod)
}

// plantChart makes a chart of a manifest in the tenant.
func plantChart(t *testing.T, ns, name, manifest string) {
	t.Helper()
	api, err := dynamic.NewForConfig(quick(w.tenantConfig))
	if err != nil {
		t.Fatal(err)
	}
	definition := &unstructured.Unstructured{}
	if err := yaml.Unmarshal([]byte(chartsDefinition), &definition.Object); err != nil {
		t.Fatal(err)
	}
	definitions := api.Resource(schema.GroupVersionResource{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"})
	if _, err := definitions.Create(t.Context(), definition, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := definitions.Delete(context.Background(), definition.GetName(), metav1.DeleteOptions{}); err != nil {
			t.Error(err)
		}
	})
	chart := &unstructured.Unstructured{Object: map[string]any{"apiVersion": "helm.cattle.io/v1", "kind": "HelmChart",
		"spec": map[string]any{"chart": "https://127.0.0.1:1/x.tgz", "targetNamespace": "kube-system", "valuesContent": manifest, "rawItems": []any{manifest}}}}
	chart.SetName(name)
	wait(t, "the chart", func() (bool, any) {
		_, err := api.Resource(schema.GroupVersionResource{Group: "helm.cattle.io", Version: "v1", Resource: "helmcharts"}).Namespace(ns).Create(t.Context(), chart, metav1.CreateOptions{})
		return err == nil, fmt.Sprint(err)
	})
}
