package server

import (
	"context"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/utils/ptr"
)

func deployment(name string, replicas int32) *appsv1.Deployment {
	labels := map[string]string{"app": name}
	return &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: appsv1.DeploymentSpec{
			Replicas: &replicas,
			Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: pod(name).Spec},
		},
	}
}

func awaitPods(t *testing.T, k kubernetes.Interface, ns, selector string, n int) []corev1.Pod {
	t.Helper()
	var pods []corev1.Pod
	await(t, "pods "+selector, func(ctx context.Context) (bool, error) {
		list, err := k.CoreV1().Pods(ns).List(ctx, metav1.ListOptions{LabelSelector: selector})
		if err != nil {
			return false, err
		}
		pods = list.Items
		return len(pods) == n, nil
	})
	return pods
}

func TestDeploymentMakesPodsAndServiceEndpoints(t *testing.T) {
	k := client(t, w.a.admin(t))
	ns := namespace(t, k)
	if _, err := k.AppsV1().Deployments(ns).Create(t.Context(), deployment("web", 3), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	service := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: "web"}, Spec: corev1.ServiceSpec{
		Selector: map[string]string{"app": "web"}, Ports: []corev1.ServicePort{{Port: 80}},
	}}
	created, err := k.CoreV1().Services(ns).Create(t.Context(), service, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if ip := created.Spec.ClusterIP; !w.a.config.ServiceCIDR.Contains(mustAddr(t, ip)) {
		t.Errorf("cluster IP %s is outside of %s", ip, w.a.config.ServiceCIDR)
	}
	pods := awaitPods(t, k, ns, "app=web", 3)
	// What a node and its kubelet would do, done by the loopback. Endpoints
	// want the node to exist.
	node := client(t, w.a.server.Loopback())
	n1 := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1"}}
	if _, err := node.CoreV1().Nodes().Create(t.Context(), n1, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	for i, p := range pods {
		bind := &corev1.Binding{ObjectMeta: metav1.ObjectMeta{Name: p.Name}, Target: corev1.ObjectReference{Kind: "Node", Name: "n1"}}
		if err := node.CoreV1().Pods(ns).Bind(t.Context(), bind, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		ip := []string{"10.244.0.7", "10.244.0.8", "10.244.0.9"}[i]
		status := corev1.PodStatus{Phase: corev1.PodRunning, PodIP: ip, PodIPs: []corev1.PodIP{{IP: ip}},
			Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}}
		patchStatus(t, node, ns, p.Name, status)
	}
	await(t, "endpoints", func(ctx context.Context) (bool, error) {
		slices, err := k.DiscoveryV1().EndpointSlices(ns).List(ctx, metav1.ListOptions{LabelSelector: "kubernetes.io/service-name=web"})
		return err == nil && len(slices.Items) == 1 && len(slices.Items[0].Endpoints) == 3, err
	})
	await(t, "ready replicas", func(ctx context.Context) (bool, error) {
		d, err := k.AppsV1().Deployments(ns).Get(ctx, "web", metav1.GetOptions{})
		return err == nil && d.Status.ReadyReplicas == 3, err
	})
}

func patchStatus(t *testing.T, k kubernetes.Interface, ns, name string, status corev1.PodStatus) {
	t.Helper()
	p, err := k.CoreV1().Pods(ns).Get(t.Context(), name, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	p.Status = status
	if _, err := k.CoreV1().Pods(ns).UpdateStatus(t.Context(), p, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
}

func TestOtherControllersWork(t *testing.T) {
	k := client(t, w.a.admin(t))
	ns := namespace(t, k)
	template := corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"kind": "job"}}, Spec: pod("x").Spec}
	template.Spec.RestartPolicy = corev1.RestartPolicyNever
	job := &batchv1.Job{ObjectMeta: metav1.ObjectMeta{Name: "j"}, Spec: batchv1.JobSpec{Template: template}}
	if _, err := k.BatchV1().Jobs(ns).Create(t.Context(), job, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	awaitPods(t, k, ns, "kind=job", 1)
	labels := map[string]string{"kind": "rc"}
	rc := &corev1.ReplicationController{ObjectMeta: metav1.ObjectMeta{Name: "rc"}, Spec: corev1.ReplicationControllerSpec{
		Replicas: ptr.To[int32](2), Selector: labels,
		Template: &corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: pod("x").Spec},
	}}
	if _, err := k.CoreV1().ReplicationControllers(ns).Create(t.Context(), rc, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	awaitPods(t, k, ns, "kind=rc", 2)
	// The garbage collector follows owner references.
	background := metav1.DeletePropagationBackground
	if err := k.CoreV1().ReplicationControllers(ns).Delete(t.Context(), "rc", metav1.DeleteOptions{PropagationPolicy: &background}); err != nil {
		t.Fatal(err)
	}
	awaitPods(t, k, ns, "kind=rc", 0)
	await(t, "root CA", func(ctx context.Context) (bool, error) {
		cm, err := k.CoreV1().ConfigMaps(ns).Get(ctx, "kube-root-ca.crt", metav1.GetOptions{})
		if err == nil && cm.Data["ca.crt"] != string(w.a.ca.CAPEM()) {
			t.Error("the root CA of the namespace is another's")
		}
		return found(err)
	})
}

func TestNamespaceDeletion(t *testing.T) {
	k := client(t, w.a.admin(t))
	ns := namespace(t, k)
	if _, err := k.AppsV1().Deployments(ns).Create(t.Context(), deployment("web", 1), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	awaitPods(t, k, ns, "app=web", 1)
	if err := k.CoreV1().Namespaces().Delete(t.Context(), ns, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	await(t, "namespace gone", func(ctx context.Context) (bool, error) {
		_, err := k.CoreV1().Namespaces().Get(ctx, ns, metav1.GetOptions{})
		ok, err := found(err)
		return !ok && err == nil, err
	})
}

var (
	crds = schema.GroupVersionResource{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"}
	foos = schema.GroupVersionResource{Group: "example.com", Version: "v1", Resource: "foos"}
)

func fooDefinition() *unstructured.Unstructured {
	object := func(properties map[string]any) map[string]any {
		return map[string]any{"type": "object", "properties": properties}
	}
	return &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
		"metadata": map[string]any{"name": "foos.example.com"},
		"spec": map[string]any{
			"group": "example.com", "scope": "Namespaced",
			"names": map[string]any{"plural": "foos", "singular": "foo", "kind": "Foo"},
			"versions": []any{map[string]any{
				"name": "v1", "served": true, "storage": true,
				"schema": map[string]any{"openAPIV3Schema": object(map[string]any{
					"spec": object(map[string]any{"size": map[string]any{"type": "integer", "maximum": int64(10)}}),
				})},
			}},
		},
	}}
}

func foo(size int64) *unstructured.Unstructured {
	return &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "example.com/v1", "kind": "Foo", "metadata": map[string]any{"name": "one"},
		"spec": map[string]any{"size": size},
	}}
}

func TestCustomResources(t *testing.T) {
	config := w.a.admin(t)
	k := client(t, config)
	ns := namespace(t, k)
	d := dynamic.NewForConfigOrDie(config)
	if _, err := d.Resource(crds).Create(t.Context(), fooDefinition(), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Resource(crds).Delete(context.Background(), "foos.example.com", metav1.DeleteOptions{}); err != nil {
			t.Error(err)
		}
	})
	await(t, "custom resource", func(ctx context.Context) (bool, error) {
		_, err := d.Resource(foos).Namespace(ns).Create(ctx, foo(3), metav1.CreateOptions{})
		return found(err)
	})
	if _, err := d.Resource(foos).Namespace(ns).Apply(t.Context(), "one", foo(4), metav1.ApplyOptions{FieldManager: "test", Force: true}); err != nil {
		t.Error(err)
	}
	if _, err := d.Resource(foos).Namespace(ns).Apply(t.Context(), "one", foo(40), metav1.ApplyOptions{FieldManager: "test"}); err == nil {
		t.Error("the schema is not enforced")
	}
	await(t, "discovery", func(context.Context) (bool, error) {
		groups, err := k.Discovery().ServerGroups()
		return err == nil && hasGroup(groups, "example.com") && hasGroup(groups, "apiextensions.k8s.io"), err
	})
	await(t, "plain discovery", func(ctx context.Context) (bool, error) {
		groups := &metav1.APIGroupList{}
		err := k.Discovery().RESTClient().Get().AbsPath("/apis").SetHeader("Accept", "application/json").Do(ctx).Into(groups)
		return err == nil && hasGroup(groups, "example.com") && hasGroup(groups, "apiextensions.k8s.io"), err
	})
	await(t, "OpenAPI", func(context.Context) (bool, error) {
		paths, err := k.Discovery().OpenAPIV3().Paths()
		return err == nil && paths["apis/example.com/v1"] != nil && paths["apis/apps/v1"] != nil, err
	})
	await(t, "OpenAPI of version 2", func(context.Context) (bool, error) {
		return documented(k, "com.example.v1.Foo", "io.k8s.api.apps.v1.Deployment")
	})
	other := client(t, w.b.admin(t))
	if groups, err := other.Discovery().ServerGroups(); err != nil || hasGroup(groups, "example.com") {
		t.Errorf("the other tenant sees the group, error %v", err)
	}
	if all, err := documented(other, "io.k8s.api.apps.v1.Deployment"); err != nil || !all {
		t.Errorf("the other tenant's OpenAPI of version 2 lacks built-in types, error %v", err)
	}
	if leaked, err := documented(other, "com.example.v1.Foo"); err != nil || leaked {
		t.Errorf("the other tenant's OpenAPI of version 2 has the type, error %v", err)
	}
}

// documented says whether all of some types are in a control plane's OpenAPI of version 2.
func documented(k kubernetes.Interface, types ...string) (bool, error) {
	document, err := k.Discovery().OpenAPISchema()
	if err != nil {
		return false, err
	}
	defined := map[string]bool{}
	for _, d := range document.GetDefinitions().GetAdditionalProperties() {
		defined[d.GetName()] = true
	}
	for _, name := range types {
		if !defined[name] {
			return false, nil
		}
	}
	return true, nil
}

func hasGroup(groups *metav1.APIGroupList, name string) bool {
	for _, g := range groups.Groups {
		if g.Name == name {
			return true
		}
	}
	return false
}

func TestWatch(t *testing.T) {
	k := client(t, w.a.admin(t))
	ns := namespace(t, k)
	watcher, err := k.CoreV1().ConfigMaps(ns).Watch(t.Context(), metav1.ListOptions{FieldSelector: "metadata.name=x"})
	if err != nil {
		t.Fatal(err)
	}
	defer watcher.Stop()
	cm := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "x"}}
	if _, err := k.CoreV1().ConfigMaps(ns).Create(t.Context(), cm, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	patch := []byte(`{"data":{"a":"b"}}`)
	if _, err := k.CoreV1().ConfigMaps(ns).Patch(t.Context(), "x", types.MergePatchType, patch, metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := k.CoreV1().ConfigMaps(ns).Delete(t.Context(), "x", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	for _, want := range []watch.EventType{watch.Added, watch.Modified, watch.Deleted} {
		select {
		case e := <-watcher.ResultChan():
			if e.Type != want {
				t.Errorf("event %s, want %s: %v", e.Type, want, e.Object)
			}
		case <-t.Context().Done():
			t.Fatal("no event")
		}
	}
}
