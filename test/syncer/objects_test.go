package syncer

import (
	"fmt"
	"maps"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"sublet.dev/isolation/tenant"
)

func TestReferencedObjectsFollow(t *testing.T) {
	ns := namespace(t)
	for _, name := range []string{"settings", "unused"} {
		if _, err := w.tenant.CoreV1().ConfigMaps(ns).Create(t.Context(), &corev1.ConfigMap{
			ObjectMeta: metav1.ObjectMeta{Name: name}, Data: map[string]string{"a": "1"},
		}, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := w.tenant.CoreV1().Secrets(ns).Create(t.Context(), &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: "creds"}, Data: map[string][]byte{"password": []byte("x")},
	}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	own := simplePod(ns, "web")
	own.Spec.Containers[0].EnvFrom = []corev1.EnvFromSource{
		{ConfigMapRef: &corev1.ConfigMapEnvSource{LocalObjectReference: corev1.LocalObjectReference{Name: "settings"}}},
		{SecretRef: &corev1.SecretEnvSource{LocalObjectReference: corev1.LocalObjectReference{Name: "creds"}}},
	}
	own = create(t, own)
	hostPod := waitHostPod(t, ns, "web", own.UID)
	hostMaps := w.host.CoreV1().ConfigMaps(acme.HostNamespace)
	hostMap := func(want map[string]string) func() (bool, any) {
		return func() (bool, any) {
			m, err := hostMaps.Get(t.Context(), hostName(ns, "settings"), metav1.GetOptions{})
			return err == nil && maps.Equal(m.Data, want), m
		}
	}
	if ok, last := hostMap(map[string]string{"a": "1"})(); !ok {
		t.Errorf("the pod came before its ConfigMap: %v", last)
	}
	for _, name := range []string{"creds"} {
		if _, err := w.host.CoreV1().Secrets(acme.HostNamespace).Get(t.Context(), hostName(ns, name), metav1.GetOptions{}); err != nil {
			t.Errorf("the pod came before its Secret: %v", err)
		}
	}
	if _, err := hostMaps.Get(t.Context(), hostName(ns, "kube-root-ca.crt"), metav1.GetOptions{}); err != nil {
		t.Errorf("the tenant's root certificate: %v", err)
	}
	if _, err := hostMaps.Get(t.Context(), hostName(ns, "unused"), metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("an unused ConfigMap is on the host: %v", err)
	}

	patch := []byte(`{"data":{"a":"2"}}`)
	if _, err := w.tenant.CoreV1().ConfigMaps(ns).Patch(t.Context(), "settings", types.MergePatchType, patch, metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	wait(t, "update", hostMap(map[string]string{"a": "2"}))
	if _, err := hostMaps.Patch(t.Context(), hostName(ns, "settings"), types.MergePatchType, []byte(`{"data":{"b":"drift"}}`), metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	wait(t, "repair of a drift", hostMap(map[string]string{"a": "2"}))
	if err := hostMaps.Delete(t.Context(), hostName(ns, "settings"), metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	wait(t, "repair of a deletion", hostMap(map[string]string{"a": "2"}))
	dropPod(t, own, hostPod)
	wait(t, "end with its last pod", func() (bool, any) {
		_, err := hostMaps.Get(t.Context(), hostName(ns, "settings"), metav1.GetOptions{})
		return apierrors.IsNotFound(err), err
	})
}

// TestForeignObjectIsNotAdopted puts somebody else's object under a name of ours.
func TestForeignObjectIsNotAdopted(t *testing.T) {
	ns := namespace(t)
	hostMaps := w.host.CoreV1().ConfigMaps(acme.HostNamespace)
	labels, annotations := tenant.Owner{Tenant: "another", Name: tenant.Name{Namespace: ns, Name: "settings"}, UID: "u"}.Marks()
	foreign, err := hostMaps.Create(t.Context(), &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Name: hostName(ns, "settings"), Labels: labels, Annotations: annotations}, Data: map[string]string{"not": "ours"},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.tenant.CoreV1().ConfigMaps(ns).Create(t.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "settings"}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	own := simplePod(ns, "web")
	own.Spec.Containers[0].EnvFrom = []corev1.EnvFromSource{{ConfigMapRef: &corev1.ConfigMapEnvSource{LocalObjectReference: corev1.LocalObjectReference{Name: "settings"}}}}
	own = create(t, own)
	// A pod that is made after it shows that the syncer went on.
	other := create(t, simplePod(ns, "other"))
	waitHostPod(t, ns, "other", other.UID)
	now, err := hostMaps.Get(t.Context(), foreign.Name, metav1.GetOptions{})
	if err != nil || now.UID != foreign.UID || now.ResourceVersion != foreign.ResourceVersion {
		t.Errorf("the foreign object was touched: %v %v", now, err)
	}
	if err := hostMaps.Delete(t.Context(), foreign.Name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	waitHostPod(t, ns, "web", own.UID)
}

func TestServicesAndEndpoints(t *testing.T) {
	ns := namespace(t)
	offer(t, "0")
	own := create(t, simplePod(ns, "web"))
	hostPod := waitHostPod(t, ns, "web", own.UID)
	service := newService(t, &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "web"},
		Spec:       corev1.ServiceSpec{Type: corev1.ServiceTypeNodePort, Selector: map[string]string{"app": "web"}, ExternalIPs: []string{"8.8.8.8"}, Ports: []corev1.ServicePort{{Name: "http", Port: 80}}},
	})
	hostServices := w.host.CoreV1().Services(acme.HostNamespace)
	wait(t, "host service", func() (bool, any) {
		s, err := hostServices.Get(t.Context(), hostName(ns, "web"), metav1.GetOptions{})
		return err == nil && s.Spec.ClusterIP == service.Spec.ClusterIP && len(s.Spec.Selector) == 0 && len(s.Spec.ExternalIPs) == 0 && s.Spec.Type == corev1.ServiceTypeClusterIP, s
	})
	setRunning(t, hostPod, "10.244.0.9")
	endpoints := func() []string {
		slices, err := w.host.DiscoveryV1().EndpointSlices(acme.HostNamespace).List(t.Context(), metav1.ListOptions{LabelSelector: discoveryv1.LabelServiceName + "=" + hostName(ns, "web")})
		if err != nil {
			t.Fatal(err)
		}
		var addresses []string
		for _, s := range slices.Items {
			for _, e := range s.Endpoints {
				addresses = append(addresses, e.Addresses...)
			}
		}
		return addresses
	}
	wait(t, "endpoint", func() (bool, any) { e := endpoints(); return len(e) == 1 && e[0] == "10.244.0.9", e })

	port := int32(80)
	_, err := w.tenant.DiscoveryV1().EndpointSlices(ns).Create(t.Context(), &discoveryv1.EndpointSlice{
		ObjectMeta:  metav1.ObjectMeta{Name: "forged", Labels: map[string]string{discoveryv1.LabelServiceName: "web"}},
		AddressType: discoveryv1.AddressTypeIPv4,
		Endpoints:   []discoveryv1.Endpoint{{Addresses: []string{"10.0.0.1"}}, {Addresses: []string{"10.244.0.9"}}},
		Ports:       []discoveryv1.EndpointPort{{Port: &port}},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	wait(t, "the tenant's own slice", func() (bool, any) {
		e := endpoints()
		return len(e) == 2 && e[0] == "10.244.0.9" && e[1] == "10.244.0.9", e
	})
	dropPod(t, own, hostPod)
	wait(t, "no endpoint", func() (bool, any) { e := endpoints(); return len(e) == 0, e })

	if _, err := w.tenant.CoreV1().Services(ns).Patch(t.Context(), "web", types.MergePatchType, []byte(`{"spec":{"type":"ExternalName","externalName":"db.example.com","externalIPs":null,"selector":null}}`), metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	wait(t, "alias", func() (bool, any) {
		s, err := hostServices.Get(t.Context(), hostName(ns, "web"), metav1.GetOptions{})
		return err == nil && s.Spec.ClusterIP == corev1.ClusterIPNone && s.Annotations[tenant.AnnotationExternalName] == "db.example.com", s
	})
	if err := w.tenant.CoreV1().Services(ns).Delete(t.Context(), "web", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	wait(t, "end of the host service", func() (bool, any) {
		_, err := hostServices.Get(t.Context(), hostName(ns, "web"), metav1.GetOptions{})
		return apierrors.IsNotFound(err), err
	})
}

func TestNodeViewIsKept(t *testing.T) {
	name := acme.ID.NodeName(hostNode)
	nodes := w.tenant.CoreV1().Nodes()
	is := func() (bool, any) {
		n, err := nodes.Get(t.Context(), name, metav1.GetOptions{})
		if err != nil {
			return false, err
		}
		ready := len(n.Status.Conditions) == 1 && n.Status.Conditions[0].Status == corev1.ConditionTrue
		return ready && !n.Spec.Unschedulable && len(n.Spec.Taints) == 0 && n.Labels[corev1.LabelHostname] == name, n
	}
	wait(t, "node view", is)
	n, err := nodes.Get(t.Context(), name, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if n.Labels["rack"] != "" || len(n.Status.Images) > 0 || n.Status.Addresses[0].Address == hostNodeIP {
		t.Errorf("the view shows the host: %+v", n)
	}
	if _, err := nodes.Patch(t.Context(), name, types.MergePatchType, []byte(`{"metadata":{"labels":{"mine":"yes","kubernetes.io/hostname":"other"}},"spec":{"taints":[{"key":"sublet.dev/x","effect":"NoSchedule"}]}}`), metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := nodes.Patch(t.Context(), name, types.MergePatchType, []byte(`{"status":{"addresses":[{"type":"InternalIP","address":"169.254.169.254"}],"conditions":[]}}`), metav1.PatchOptions{}, "status"); err != nil {
		t.Fatal(err)
	}
	wait(t, "restored view", is)
	if n, err := nodes.Get(t.Context(), name, metav1.GetOptions{}); err != nil || n.Labels["mine"] != "yes" {
		t.Errorf("the tenant's own label is gone: %v (%v)", n.Labels, err)
	}
	if n, err := w.host.CoreV1().Nodes().Get(t.Context(), hostNode, metav1.GetOptions{}); err != nil || n.Labels["mine"] != "" {
		t.Errorf("the tenant's own label reached the host: %v (%v)", n.Labels, err)
	}
	if err := nodes.Delete(t.Context(), name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	wait(t, "view made again", is)
	list, err := nodes.List(t.Context(), metav1.ListOptions{})
	if err != nil || len(list.Items) != 1 {
		t.Errorf("%d nodes, %v", len(list.Items), err)
	}

	t.Run("it goes with the host's label", func(t *testing.T) {
		label := func(value string) {
			patch := fmt.Sprintf(`{"metadata":{"labels":{%q:%s}}}`, acme.Sandbox.NodeLabel(), value)
			if _, err := w.host.CoreV1().Nodes().Patch(t.Context(), hostNode, types.MergePatchType, []byte(patch), metav1.PatchOptions{}); err != nil {
				t.Fatal(err)
			}
		}
		label("null")
		wait(t, "no use of the node", func() (bool, any) {
			n, err := nodes.Get(t.Context(), name, metav1.GetOptions{})
			return apierrors.IsNotFound(err) || err == nil && len(n.Spec.Taints) == 1, n // pods of other tests may hold it
		})
		label(`"true"`)
		wait(t, "use of the node", is)
	})
	t.Run("a node of the tenant's own is left alone", func(t *testing.T) {
		own, err := nodes.Create(t.Context(), &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "mine"}}, metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		w.restart()
		pod := create(t, simplePod(namespace(t), "web")) // the new syncer has seen all nodes when this is there
		waitHostPod(t, pod.Namespace, "web", pod.UID)
		if now, err := nodes.Get(t.Context(), "mine", metav1.GetOptions{}); err != nil || now.UID != own.UID {
			t.Errorf("%v, %v", now, err)
		}
		if err := nodes.Delete(t.Context(), "mine", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
	})
}

// TestRestart changes both sides while no syncer runs.
func TestRestart(t *testing.T) {
	ns := namespace(t)
	kept, dropped := create(t, simplePod(ns, "kept")), create(t, simplePod(ns, "dropped"))
	hostKept, hostDropped := waitHostPod(t, ns, "kept", kept.UID), waitHostPod(t, ns, "dropped", dropped.UID)
	waitTenantPod(t, ns, "kept", "bound", func(p *corev1.Pod) bool { return p.Spec.NodeName != "" })
	waitTenantPod(t, ns, "dropped", "bound", func(p *corev1.Pod) bool { return p.Spec.NodeName != "" })
	setRunning(t, hostKept, "10.244.0.20")
	waitTenantPod(t, ns, "kept", "running", func(p *corev1.Pod) bool { return p.Status.Phase == corev1.PodRunning })
	version := func() string {
		p, err := w.host.CoreV1().Pods(hostKept.Namespace).Get(t.Context(), hostKept.Name, metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		return p.ResourceVersion
	}
	before := version()
	w.restart()
	remove(t, hostDropped)
	waitTenantPod(t, ns, "dropped", "lost", func(p *corev1.Pod) bool { return p.Status.Phase == corev1.PodFailed })
	fresh := create(t, simplePod(ns, "fresh"))
	waitHostPod(t, ns, "fresh", fresh.UID)
	if after := version(); after != before {
		t.Errorf("a pod in step was written after a restart: %s, %s", before, after)
	}
}
