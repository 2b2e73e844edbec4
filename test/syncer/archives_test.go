package syncer

import (
	"context"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/tools/txtar"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"sigs.k8s.io/yaml"

	"sublet.dev/isolation/tenant"
)

// archived are the kinds whose archives in syncer/translate/testdata say all that the
// syncer needs to know.
var archived = map[string]schema.GroupVersionResource{
	"Service":       {Version: "v1", Resource: "services"},
	"ConfigMap":     {Version: "v1", Resource: "configmaps"},
	"Secret":        {Version: "v1", Resource: "secrets"},
	"NetworkPolicy": {Group: "networking.k8s.io", Version: "v1", Resource: "networkpolicies"},
}

// TestArchives gives the tenant's API what the archives of syncer/translate begin with,
// and holds what arrives on the host, while every third write to it fails, against what
// they end with: what the translation gives by itself, the syncer makes so on a real host.
func TestArchives(t *testing.T) {
	lost := w.faults.ever()
	w.faults.set(false, 1.0/3)
	t.Cleanup(func() { w.faults.set(false, everyday) })
	own, err := dynamic.NewForConfig(quick(w.tenantConfig))
	if err != nil {
		t.Fatal(err)
	}
	host, err := dynamic.NewForConfig(quick(hostConfig))
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob("../../syncer/translate/testdata/*.txtar")
	if err != nil {
		t.Fatal(err)
	}
	unused(t)
	offer(t, "4")
	shown := 0
	for _, file := range files {
		given := archive(t, file)
		tenantObject, want := object(t, given["tenant.yaml"]), object(t, given["host.yaml"])
		resource, ok := archived[tenantObject.GetKind()]
		if !ok || len(want.Object) == 0 || given["plan.yaml"] != nil {
			continue
		}
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			for _, ns := range strings.Split(string(given["world.yaml"])+"\n---\nkind: Namespace\nmetadata: {name: shop}", "\n---\n") {
				ensureNamespace(t, object(t, []byte(ns)))
			}
			arrives(t, own.Resource(resource), host.Resource(resource), tenantObject, want)
			shown++
		})
	}
	if shown < 12 || w.faults.ever() == lost {
		t.Errorf("%d archives were shown, and %d writes failed", shown, w.faults.ever()-lost)
	}
}

// archive reads the files of an archive.
func archive(t *testing.T, file string) map[string][]byte {
	t.Helper()
	a, err := txtar.ParseFile(file)
	if err != nil {
		t.Fatal(err)
	}
	given := map[string][]byte{}
	for _, f := range a.Files {
		given[f.Name] = f.Data
	}
	return given
}

// object reads one; what is none, as the host object of one that must not be there, has
// nothing.
func object(t *testing.T, data []byte) *unstructured.Unstructured {
	t.Helper()
	o := &unstructured.Unstructured{}
	if len(data) == 0 || string(data) == "none\n" {
		return o
	}
	if err := yaml.Unmarshal(data, &o.Object); err != nil {
		t.Fatalf("%v in\n%s", err, data)
	}
	return o
}

// ensureNamespace makes a namespace of the tenant's with the labels that an archive says.
func ensureNamespace(t *testing.T, o *unstructured.Unstructured) {
	t.Helper()
	if o.GetKind() != "Namespace" {
		return
	}
	namespaces := w.tenant.CoreV1().Namespaces()
	_, err := namespaces.Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: o.GetName()}}, metav1.CreateOptions{})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		t.Fatal(err)
	}
	wait(t, "the namespace has its labels", func() (bool, any) {
		ns, err := namespaces.Get(t.Context(), o.GetName(), metav1.GetOptions{})
		if err != nil {
			return false, err
		}
		maps.Copy(ns.Labels, o.GetLabels())
		_, err = namespaces.Update(t.Context(), ns, metav1.UpdateOptions{})
		return err == nil, err
	})
	wait(t, "default service account", func() (bool, any) {
		_, err := w.tenant.CoreV1().ServiceAccounts(o.GetName()).Get(t.Context(), "default", metav1.GetOptions{})
		return err == nil, err
	})
}

// arrives makes the tenant's object, waits until the host has what is wanted, and takes
// the object away again.
func arrives(t *testing.T, own, host dynamic.NamespaceableResourceInterface, tenantObject, want *unstructured.Unstructured) {
	t.Helper()
	ns, name := tenantObject.GetNamespace(), tenantObject.GetName()
	tenantObject.SetUID("")
	created, err := own.Namespace(ns).Create(t.Context(), tenantObject, metav1.CreateOptions{})
	if apierrors.IsInvalid(err) && strings.Contains(err.Error(), "does not match the current range") {
		t.Skipf("the tenant's API refuses the address of another tenant's, unless a range was added: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := own.Namespace(ns).Delete(context.WithoutCancel(t.Context()), name, metav1.DeleteOptions{}); err != nil {
			t.Error(err)
		}
		wait(t, "it is gone", func() (bool, any) {
			_, err := host.Namespace(acme.HostNamespace).Get(t.Context(), want.GetName(), metav1.GetOptions{})
			return apierrors.IsNotFound(err), err
		})
	}()
	if use := userOf(created); use != nil {
		pod := create(t, use)
		defer func() { dropPod(t, pod, waitHostPod(t, ns, pod.Name, pod.UID)) }()
	}
	annotations := want.GetAnnotations()
	annotations[tenant.AnnotationUID] = string(created.GetUID())
	want.SetAnnotations(annotations)
	wait(t, "what the archive wants", func() (bool, any) {
		have, err := host.Namespace(acme.HostNamespace).Get(t.Context(), want.GetName(), metav1.GetOptions{})
		if err != nil {
			return false, err
		}
		lack := lacks("", want.Object, have.Object)
		return lack == "", lack
	})
}

// userOf is a pod that uses a ConfigMap or a Secret, which the host has for its pods
// alone.
func userOf(o *unstructured.Unstructured) *corev1.Pod {
	pod := simplePod(o.GetNamespace(), "uses-"+o.GetName())
	v := corev1.Volume{Name: "used"}
	switch o.GetKind() {
	case "ConfigMap":
		v.ConfigMap = &corev1.ConfigMapVolumeSource{LocalObjectReference: corev1.LocalObjectReference{Name: o.GetName()}}
	case "Secret":
		v.Secret = &corev1.SecretVolumeSource{SecretName: o.GetName()}
	default:
		return nil
	}
	pod.Spec.Volumes = []corev1.Volume{v}
	return pod
}

// lacks says what of want is not in have, in which an API server has filled in what want
// leaves open or has the zero value of; "" for nothing.
func lacks(at string, want, have any) string {
	switch want := want.(type) {
	case map[string]any:
		inside, _ := have.(map[string]any)
		for _, key := range slices.Sorted(maps.Keys(want)) {
			if lack := lacks(at+"."+key, want[key], inside[key]); lack != "" {
				return lack
			}
		}
		return ""
	case []any:
		inside, _ := have.([]any)
		if len(inside) != len(want) {
			return fmt.Sprintf("%s is %v, want %v", at, have, want)
		}
		for i := range want {
			if lack := lacks(fmt.Sprint(at, "[", i, "]"), want[i], inside[i]); lack != "" {
				return lack
			}
		}
		return ""
	case nil:
		return ""
	}
	if text := fmt.Sprint(want); text != "0" && text != "" && text != fmt.Sprint(have) {
		return fmt.Sprintf("%s is %v, want %v", at, have, want)
	}
	return ""
}
