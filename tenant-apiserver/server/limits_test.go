package server

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apiextensions "k8s.io/apiextensions-apiserver/pkg/client/clientset/clientset"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"sublet.dev/tenant-apiserver/plan"
)

// get asks for a path without the client's own repetitions.
func get(t *testing.T, config *rest.Config, path string) (*http.Response, error) {
	t.Helper()
	transport, err := rest.TransportFor(config)
	if err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, config.Host+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	return (&http.Client{Transport: transport}).Do(req)
}

func serveTo(h http.Handler, path string) int {
	r := httptest.NewRecorder()
	h.ServeHTTP(r, httptest.NewRequest(http.MethodGet, path, nil))
	return r.Code
}

func configMap(name, data string) *corev1.ConfigMap {
	return &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name}, Data: map[string]string{"data": data}}
}

// Objects beyond the plan's numbers are refused with 403 and the reason, whoever
// makes them; others, and changes of those there are, go on.
func TestLimitOfObjects(t *testing.T) {
	const most = 12
	terms := plan.Terms{Plan: "tiny", Limits: plan.Limits{Resources: map[string]plan.Count{
		"configmaps": most, "nodes": 0, "leases.coordination.k8s.io": 0, "deployments.apps": 1, "customresourcedefinitions.apiextensions.k8s.io": 1}}}
	m := own(t, "objects", 5, terms)
	k := client(t, m.admin(t))
	ns := namespace(t, k)

	ownMaps(t, k)
	made := fillUp(t, k, ns, most)
	_, err := k.CoreV1().ConfigMaps(ns).Create(t.Context(), configMap("more", ""), metav1.CreateOptions{})
	wantForbidden(t, err, fmt.Sprintf("the plan tiny allows %d configmaps, and there are %d", most, most))
	_, err = client(t, m.server.Loopback()).CoreV1().ConfigMaps(ns).Create(t.Context(), configMap("more", ""), metav1.CreateOptions{})
	wantForbidden(t, err, "the plan tiny allows")
	if _, err := k.CoreV1().ConfigMaps(ns).Update(t.Context(), configMap(made, "changed"), metav1.UpdateOptions{}); err != nil {
		t.Errorf("change one that is there: %v", err)
	}
	if _, err := k.CoreV1().Secrets(ns).Create(t.Context(), &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "s"}}, metav1.CreateOptions{}); err != nil {
		t.Errorf("another resource: %v", err)
	}
	if err := k.CoreV1().ConfigMaps(ns).Delete(t.Context(), made, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := k.CoreV1().ConfigMaps(ns).Create(t.Context(), configMap("more", ""), metav1.CreateOptions{}); err != nil {
		t.Errorf("after one was deleted: %v", err)
	}

	for i, want := range []bool{true, false} {
		_, err := k.AppsV1().Deployments(ns).Create(t.Context(), deployment(fmt.Sprint("d", i), 0), metav1.CreateOptions{})
		if (err == nil) != want {
			t.Errorf("deployment %d: %v", i, err)
		}
	}
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n"}}
	_, err = k.CoreV1().Nodes().Create(t.Context(), node, metav1.CreateOptions{})
	wantForbidden(t, err, "the plan tiny allows 0 nodes")
	lease := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Name: "l"}}
	_, err = k.CoordinationV1().Leases(ns).Create(t.Context(), lease, metav1.CreateOptions{})
	wantForbidden(t, err, "the plan tiny allows 0 leases.coordination.k8s.io")
	if _, err := client(t, m.server.Loopback()).CoreV1().Nodes().Create(t.Context(), node, metav1.CreateOptions{}); err != nil {
		t.Errorf("a node of the provider's: %v", err)
	}
	crds, err := apiextensions.NewForConfig(m.admin(t))
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []bool{true, false} {
		_, err := crds.ApiextensionsV1().CustomResourceDefinitions().Create(t.Context(), definition(fmt.Sprint("w", i)), metav1.CreateOptions{})
		if (err == nil) != want || err != nil && !strings.Contains(err.Error(), "the plan tiny allows 1 customresourcedefinitions.apiextensions.k8s.io") {
			t.Errorf("definition %d: %v", i, err)
		}
	}

	terms.Limits.Objects, terms.Limits.Resources = 1, nil
	m.server.SetTerms(terms)
	_, err = k.CoreV1().Secrets(ns).Create(t.Context(), &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "s2"}}, metav1.CreateOptions{})
	wantForbidden(t, err, "the plan tiny allows 1 objects in all")
	m.server.SetTerms(plan.Terms{})
	if _, err := k.CoreV1().Secrets(ns).Create(t.Context(), &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "s2"}}, metav1.CreateOptions{}); err != nil {
		t.Errorf("another plan: %v", err)
	}
}

// ownMaps waits until the control plane has made all config maps that it makes by itself,
// so that none of them takes a place later.
func ownMaps(t *testing.T, k kubernetes.Interface) {
	t.Helper()
	await(t, "the control plane's own config maps", func(ctx context.Context) (bool, error) {
		all, err := k.CoreV1().Namespaces().List(ctx, metav1.ListOptions{})
		if err != nil {
			return false, err
		}
		names := [][2]string{{"kube-system", "extension-apiserver-authentication"}, {"kube-system", "kube-apiserver-legacy-service-account-token-tracking"}}
		for _, ns := range all.Items {
			names = append(names, [2]string{ns.Name, "kube-root-ca.crt"})
		}
		for _, name := range names {
			if _, err := k.CoreV1().ConfigMaps(name[0]).Get(ctx, name[1], metav1.GetOptions{}); err != nil {
				return found(err)
			}
		}
		return true, nil
	})
}

// fillUp makes config maps until there are so many in the whole cluster, and returns
// the name of one.
func fillUp(t *testing.T, k kubernetes.Interface, ns string, most int) string {
	t.Helper()
	for i := 0; ; i++ {
		all, err := k.CoreV1().ConfigMaps("").List(t.Context(), metav1.ListOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if len(all.Items) >= most {
			return "c0"
		}
		if _, err := k.CoreV1().ConfigMaps(ns).Create(t.Context(), configMap(fmt.Sprint("c", i), ""), metav1.CreateOptions{}); err != nil {
			t.Fatalf("%d of %d: %v", len(all.Items), most, err)
		}
	}
}

func definition(plural string) *apiextensionsv1.CustomResourceDefinition {
	return &apiextensionsv1.CustomResourceDefinition{
		ObjectMeta: metav1.ObjectMeta{Name: plural + ".example.com"},
		Spec: apiextensionsv1.CustomResourceDefinitionSpec{
			Group: "example.com", Scope: apiextensionsv1.NamespaceScoped,
			Names: apiextensionsv1.CustomResourceDefinitionNames{Plural: plural, Kind: strings.ToUpper(plural)},
			Versions: []apiextensionsv1.CustomResourceDefinitionVersion{{Name: "v1", Served: true, Storage: true,
				Schema: &apiextensionsv1.CustomResourceValidation{OpenAPIV3Schema: &apiextensionsv1.JSONSchemaProps{Type: "object"}}}},
		},
	}
}

// Objects beyond the plan's size are refused with 403 and the reason, also when
// they grow by small changes.
func TestLimitOfSize(t *testing.T) {
	m := own(t, "sizes", 6, plan.Terms{Plan: "tiny", Limits: plan.Limits{Size: 4096}})
	k := client(t, m.admin(t))
	ns := namespace(t, k)
	maps := k.CoreV1().ConfigMaps(ns)
	if _, err := maps.Create(t.Context(), configMap("good", strings.Repeat("x", 3000)), metav1.CreateOptions{}); err != nil {
		t.Fatalf("beneath the limit: %v", err)
	}
	_, err := maps.Create(t.Context(), configMap("large", strings.Repeat("x", 5000)), metav1.CreateOptions{})
	wantForbidden(t, err, "bytes as JSON, and the plan tiny allows 4096")
	patch := fmt.Sprintf(`{"data":{"more":%q}}`, strings.Repeat("y", 1500))
	_, err = maps.Patch(t.Context(), "good", types.MergePatchType, []byte(patch), metav1.PatchOptions{})
	wantForbidden(t, err, "the plan tiny allows 4096")
	if _, err := maps.Patch(t.Context(), "good", types.MergePatchType, []byte(`{"data":{"more":"y"}}`), metav1.PatchOptions{}); err != nil {
		t.Errorf("grown beneath the limit: %v", err)
	}
	crds, err := apiextensions.NewForConfig(m.admin(t))
	if err != nil {
		t.Fatal(err)
	}
	d := definition("larges")
	if _, err := crds.ApiextensionsV1().CustomResourceDefinitions().Create(t.Context(), d, metav1.CreateOptions{}); err != nil {
		t.Fatalf("a definition beneath the limit: %v", err)
	}
	d = definition("hugs")
	d.Annotations = map[string]string{"x": strings.Repeat("x", 5000)}
	_, err = crds.ApiextensionsV1().CustomResourceDefinitions().Create(t.Context(), d, metav1.CreateOptions{})
	wantForbidden(t, err, "the plan tiny allows 4096")
}

// A full store takes nothing more, but what makes room goes on.
func TestLimitOfStore(t *testing.T) {
	m := own(t, "stores", 8, plan.Terms{})
	k := client(t, m.admin(t))
	maps := k.CoreV1().ConfigMaps(namespace(t, k))
	large := strings.Repeat("x", 900<<10)
	there, err := maps.Create(t.Context(), configMap("there", ""), metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	m.server.SetTerms(plan.Terms{Plan: "tiny", StoreQuota: 16 << 20})
	var full error
	for i := 0; i < 64 && full == nil; i++ {
		_, full = maps.Create(t.Context(), configMap(fmt.Sprint("c", i), large), metav1.CreateOptions{})
		if full != nil && i < 3 {
			t.Fatalf("beneath the limit: %v", full)
		}
	}
	wantForbidden(t, full, "the plan tiny allows 16Mi in the store")
	_, err = maps.Update(t.Context(), configMap("there", "changed"), metav1.UpdateOptions{})
	wantForbidden(t, err, "the plan tiny allows 16Mi in the store")
	if _, err := client(t, m.server.Loopback()).CoreV1().ConfigMaps("").List(t.Context(), metav1.ListOptions{Limit: 1}); err != nil {
		t.Errorf("read: %v", err)
	}
	// What the control plane writes goes on for a while, and then is refused by
	// the store itself, which makes room by forgetting its history. There is some to
	// forget: how far the store was filled depends on how fast it was measured.
	for i := range 4 {
		if err := maps.Delete(t.Context(), fmt.Sprint("c", i), metav1.DeleteOptions{}); err != nil {
			t.Fatalf("delete when it is full: %v", err)
		}
	}
	own, refused := client(t, m.server.Loopback()).CoreV1().ConfigMaps(there.Namespace), 0
	for i := range 16 {
		await(t, "the control plane writes again", func(ctx context.Context) (bool, error) {
			_, err := own.Update(ctx, configMap("there", fmt.Sprint(i)+large), metav1.UpdateOptions{})
			if err != nil && strings.Contains(err.Error(), "database space exceeded") {
				refused++
				return false, nil
			}
			return err == nil, err
		})
	}
	if refused == 0 {
		t.Error("the store takes more than its limit")
	}
	if err := maps.Delete(t.Context(), "there", metav1.DeleteOptions{}); err != nil {
		t.Errorf("delete: %v", err)
	}
	m.server.SetTerms(plan.Terms{Plan: "larger", StoreQuota: 1 << 30})
	if _, err := maps.Create(t.Context(), configMap("more", large), metav1.CreateOptions{}); err != nil {
		t.Errorf("another plan: %v", err)
	}
}
