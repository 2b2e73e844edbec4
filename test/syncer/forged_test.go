package syncer

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"sublet.dev/isolation/tenant"
)

// obeyed are keys of labels and annotations that something on some host obeys:
// sandboxes, networks, runtimes, meshes, clouds, balancers and we ourselves.
var obeyed = []string{
	"io.katacontainers.config.hypervisor.virtio_fs_extra_args", "dev.gvisor.flag.qdisc", "dev.gvisor.spec.mount.x.source",
	"cni.projectcalico.org/ipAddrs", "cni.projectcalico.org/allowedSourcePrefixes", "cni.projectcalico.org/hwAddr", "kubernetes.io/egress-bandwidth",
	"k8s.v1.cni.cncf.io/networks", "io.kubernetes.cri-o.userns-mode", "cdi.k8s.io/x", "io.containerd.rdt", "blockio.resources.beta.kubernetes.io/pod", "nri.io/x",
	"container.apparmor.security.beta.kubernetes.io/app", "container.seccomp.security.alpha.kubernetes.io/app", "kubernetes.io/config.source", "kubernetes.io/config.hash",
	"sidecar.istio.io/inject", "linkerd.io/inject", "vault.hashicorp.com/agent-inject", "iam.amazonaws.com/role", "eks.amazonaws.com/role-arn", "azure.workload.identity/use",
	"prometheus.io/scrape", "cluster-autoscaler.kubernetes.io/safe-to-evict", "service.beta.kubernetes.io/aws-load-balancer-internal", "metallb.universe.tf/loadBalancerIPs",
	"nginx.ingress.kubernetes.io/configuration-snippet", "traefik.ingress.kubernetes.io/router.tls", "external-dns.alpha.kubernetes.io/hostname",
	"volume.kubernetes.io/selected-node", "volume.beta.kubernetes.io/storage-provisioner",
	"pcns.projectcalico.org/name", "pcsa.x", "projectcalico.org/namespace", "io.cilium.k8s.policy.cluster", "kubernetes.io/metadata.name", "pod-security.kubernetes.io/enforce", "istio-injection",
	"app", "release", // what platforms select their own pods by
	tenant.LabelTenant, tenant.LabelManagedBy, tenant.AnnotationUID, tenant.AnnotationName, tenant.AnnotationExternalName, tenant.HostLabel("app"), "pcns." + tenant.LabelTenant,
	strings.Repeat("k", 63), strings.Repeat("d", 63) + "." + strings.Repeat("e", 63) + "/" + strings.Repeat("k", 63),
}

// anyKind is a client for objects of every kind.
func anyKind(t *testing.T, c *rest.Config) client.Client {
	t.Helper()
	k, err := client.New(quick(c), client.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// forge gives an object all of these keys, a finalizer, and the node as its owner.
func forge(ns, name string, owner *corev1.Node) metav1.ObjectMeta {
	m := metav1.ObjectMeta{Namespace: ns, Name: name, Labels: map[string]string{}, Annotations: map[string]string{}, Finalizers: []string{"example.com/stay"},
		OwnerReferences: []metav1.OwnerReference{{APIVersion: "v1", Kind: "Node", Name: owner.Name, UID: owner.UID}}}
	for _, key := range obeyed {
		m.Labels[key], m.Annotations[key] = "true", "true \u202e ä \n \x1b[31m"
		if strings.HasPrefix(key, "container.") {
			m.Annotations[key] = "runtime/default" // the API looks at these
		}
	}
	return m
}

// forged are objects of the kinds that go to the host as they are written. The pod
// refers to the others.
func forged(ns string, owner *corev1.Node) []client.Object {
	slice := &discoveryv1.EndpointSlice{ObjectMeta: forge(ns, "own", owner), AddressType: discoveryv1.AddressTypeIPv4}
	slice.Labels[discoveryv1.LabelServiceName], slice.Labels[discoveryv1.LabelManagedBy] = "front", "endpointslice-controller.k8s.io"
	pod := simplePod(ns, "web")
	pod.ObjectMeta = forge(ns, "web", owner)
	pod.Spec.Containers[0].EnvFrom = []corev1.EnvFromSource{
		{ConfigMapRef: &corev1.ConfigMapEnvSource{LocalObjectReference: corev1.LocalObjectReference{Name: "settings"}}},
		{SecretRef: &corev1.SecretEnvSource{LocalObjectReference: corev1.LocalObjectReference{Name: "creds"}}},
	}
	return []client.Object{
		&corev1.ConfigMap{ObjectMeta: forge(ns, "settings", owner)},
		&corev1.Secret{ObjectMeta: forge(ns, "creds", owner)},
		&corev1.Service{ObjectMeta: forge(ns, "front", owner), Spec: corev1.ServiceSpec{Ports: []corev1.ServicePort{{Port: 80}}}},
		slice,
		&networkingv1.NetworkPolicy{ObjectMeta: forge(ns, "shut", owner)},
		pod,
	}
}

// onlyOurs fails for what of a host object's metadata is not ours.
func onlyOurs(t *testing.T, hostObject client.Object) {
	t.Helper()
	what := fmt.Sprintf("%T %s", hostObject, hostObject.GetName())
	if f := hostObject.GetFinalizers(); len(f) > 0 {
		t.Errorf("%s: finalizers %v", what, f)
	}
	if o := hostObject.GetOwnerReferences(); len(o) > 0 {
		t.Errorf("%s: owners %v", what, o)
	}
	byProxies := []string{discoveryv1.LabelServiceName, discoveryv1.LabelManagedBy}
	for key := range hostObject.GetLabels() {
		if _, slice := hostObject.(*discoveryv1.EndpointSlice); !tenant.IsKey(key) && !(slice && slices.Contains(byProxies, key)) {
			t.Errorf("%s: label %q", what, key)
		}
	}
	for key, value := range hostObject.GetAnnotations() {
		if !tenant.IsKey(key) || strings.Contains(value, "true") {
			t.Errorf("%s: annotation %q: %q", what, key, value)
		}
	}
	owner, err := tenant.ReadOwner(hostObject.GetName(), hostObject.GetLabels(), hostObject.GetAnnotations())
	if err != nil || owner.Tenant != acme.ID {
		t.Errorf("%s belongs to %+v, %v", what, owner, err)
	}
}

// TestForgedMetadata: no key, owner or finalizer that a tenant writes stands on a host
// object of any kind, neither when it is made nor later, and our own keys say there
// what is true. The values of a pod's labels do, under other keys.
func TestForgedMetadata(t *testing.T) {
	ns := namespace(t)
	var view *corev1.Node
	wait(t, "the node's view", func() (bool, any) {
		var err error
		view, err = w.tenant.CoreV1().Nodes().Get(t.Context(), acme.ID.NodeName(hostNode), metav1.GetOptions{})
		return err == nil, err
	})
	own, host := anyKind(t, w.tenantConfig), anyKind(t, hostConfig)
	objects := forged(ns, view)
	for _, o := range objects {
		if err := own.Create(t.Context(), o); err != nil {
			t.Fatalf("%T: %v", o, err)
		}
	}
	seen := func(what string, is func(client.Object) bool) {
		t.Helper()
		for _, o := range objects {
			hostObject := o.DeepCopyObject().(client.Object)
			wait(t, fmt.Sprintf("%s of a host %T", what, o), func() (bool, any) {
				err := host.Get(t.Context(), client.ObjectKey{Namespace: acme.HostNamespace, Name: hostName(ns, o.GetName())}, hostObject)
				return err == nil && is(hostObject), err
			})
			onlyOurs(t, hostObject)
		}
	}
	seen("the marks", func(client.Object) bool { return true })
	mine := objects[len(objects)-1].(*corev1.Pod)
	hostPod := waitHostPod(t, ns, "web", mine.UID)
	for _, key := range obeyed {
		if hostPod.Labels[tenant.HostLabel(key)] != "true" {
			t.Errorf("the pod's label %q did not follow", key)
		}
	}
	if len(hostPod.Labels) != len(obeyed)+3 {
		t.Errorf("%d labels became %d", len(obeyed), len(hostPod.Labels))
	}

	t.Run("written later", func(t *testing.T) {
		patch := fmt.Appendf(nil, `{"metadata":{"labels":{"later.io/x":"true",%q:"another"},"annotations":{"later.io/x":"true"},"finalizers":["later.io/x"]}}`, tenant.LabelTenant)
		for _, o := range objects {
			if err := own.Patch(t.Context(), o.DeepCopyObject().(client.Object), client.RawPatch(types.MergePatchType, patch)); err != nil {
				t.Fatalf("%T: %v", o, err)
			}
		}
		wait(t, "the label", func() (bool, any) {
			p, err := w.host.CoreV1().Pods(acme.HostNamespace).Get(t.Context(), hostName(ns, "web"), metav1.GetOptions{})
			return err == nil && p.Labels[tenant.HostLabel("later.io/x")] == "true", err
		})
		seen("the marks", func(client.Object) bool { return true })
	})
	t.Run("written while it ends", func(t *testing.T) { endsForGood(t, mine, hostPod) })
}

// endsForGood: a pod that a finalizer keeps in its API has no host pod, whatever its
// author writes on it.
func endsForGood(t *testing.T, own, hostPod *corev1.Pod) {
	dropPod(t, own, hostPod)
	p, err := tenantPod(t, own.Namespace, own.Name)
	if err != nil || p.DeletionTimestamp == nil {
		t.Fatalf("it is not kept: %v", err)
	}
	pods := w.tenant.CoreV1().Pods(own.Namespace)
	if _, err := pods.Patch(t.Context(), own.Name, types.MergePatchType, []byte(`{"metadata":{"labels":{"again":"true"}}}`), metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	p, err = tenantPod(t, own.Namespace, own.Name)
	if err != nil {
		t.Fatal(err)
	}
	p.Spec.EphemeralContainers = []corev1.EphemeralContainer{{EphemeralContainerCommon: corev1.EphemeralContainerCommon{Name: "debug", Image: "debug:1"}}}
	if _, err := pods.UpdateEphemeralContainers(t.Context(), own.Name, p, metav1.UpdateOptions{}); err != nil && !apierrors.IsConflict(err) {
		t.Logf("the API refuses it: %v", err)
	}
	// What is made after it is there: the syncer has seen it.
	after := simplePod(own.Namespace, "after")
	after.Labels = map[string]string{"after": "true"}
	after = create(t, after)
	dropPod(t, after, waitHostPod(t, after.Namespace, after.Name, after.UID))
	if _, err := w.host.CoreV1().Pods(hostPod.Namespace).Get(t.Context(), hostPod.Name, metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("it is on the host again: %v", err)
	}
}

// TestMirrorPod: nobody but a node says that a pod is a static one, and a tenant has no
// node of its own.
func TestMirrorPod(t *testing.T) {
	ns := namespace(t)
	dry := metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}}
	own := simplePod(ns, "mirror")
	if _, err := w.tenant.CoreV1().Pods(ns).Create(t.Context(), own, dry); err != nil {
		t.Fatalf("without the annotation: %v", err)
	}
	own.Annotations = map[string]string{corev1.MirrorPodAnnotationKey: "x"}
	if _, err := w.tenant.CoreV1().Pods(ns).Create(t.Context(), own, dry); !apierrors.IsInvalid(err) || !strings.Contains(err.Error(), "spec.nodeName") {
		t.Errorf("with it: %v", err)
	}
}

// asKubelet asks what answers for the tenant's kubelets, as its API does.
func asKubelet(t *testing.T, path string) (int, string) {
	t.Helper()
	answer := httptest.NewRecorder()
	w.syncer().Kubelet().ServeHTTP(answer, httptest.NewRequestWithContext(t.Context(), http.MethodGet, path, nil))
	return answer.Code, answer.Body.String()
}

// TestNeighbours: names that a careless join would make one are two pods on the host,
// and each of them answers for itself alone.
func TestNeighbours(t *testing.T) {
	first := namespace(t)
	second := first + "-prod"
	if _, err := w.tenant.CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: second}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	wait(t, "default service account", func() (bool, any) {
		_, err := w.tenant.CoreV1().ServiceAccounts(second).Get(t.Context(), "default", metav1.GetOptions{})
		return err == nil, err
	})
	long := strings.Repeat("n", 200)
	pods := []*corev1.Pod{simplePod(first, "prod-nginx"), simplePod(second, "nginx"), simplePod(first, long+".a"), simplePod(first, long+"-a")}
	hosts := map[types.UID]bool{}
	for i, p := range pods {
		p.Labels = nil
		p.Spec.Containers[0].Name = fmt.Sprintf("c%d", i)
		pods[i] = create(t, p)
	}
	for i, p := range pods {
		hostPod := waitHostPod(t, p.Namespace, p.Name, p.UID)
		hosts[hostPod.UID] = true
		if c := hostPod.Spec.Containers[0].Name; c != fmt.Sprintf("c%d", i) {
			t.Errorf("%s/%s runs %s", p.Namespace, p.Name, c)
		}
		path := fmt.Sprintf("/containerLogs/%s/%s/c%d", p.Namespace, p.Name, i)
		if code, body := asKubelet(t, path); code != http.StatusOK || !strings.HasPrefix(body, fmt.Sprintf("log of c%d ", i)) {
			t.Errorf("%s: %d %s", path, code, body)
		}
		defer dropPod(t, p, hostPod)
	}
	if len(hosts) != len(pods) {
		t.Errorf("%d pods are %d on the host", len(pods), len(hosts))
	}
}

// TestStaleMapping: while the host pod of an older pod of the same name is there, the
// new pod has no containers to ask, by no path.
func TestStaleMapping(t *testing.T) {
	ns := namespace(t)
	first := create(t, simplePod(ns, "web"))
	stale := waitHostPod(t, ns, "web", first.UID)
	waitTenantPod(t, ns, "web", "bound", func(p *corev1.Pod) bool { return p.Spec.NodeName != "" })
	if code, body := asKubelet(t, "/containerLogs/"+ns+"/web/app"); code != http.StatusOK {
		t.Fatalf("the first pod's log: %d %s", code, body)
	}
	none := int64(0)
	if err := w.tenant.CoreV1().Pods(ns).Delete(t.Context(), "web", metav1.DeleteOptions{GracePeriodSeconds: &none}); err != nil {
		t.Fatal(err)
	}
	second := create(t, simplePod(ns, "web"))
	paths := []string{"/containerLogs/" + ns + "/web/app", "/exec/" + ns + "/web/app?command=id&output=1", "/attach/" + ns + "/web/app?output=1", "/portForward/" + ns + "/web?port=80"}
	for _, uid := range []types.UID{first.UID, stale.UID} {
		paths = append(paths, fmt.Sprintf("/exec/%s/web/%s/app?command=id&output=1", ns, uid))
	}
	for _, path := range paths {
		if code, body := asKubelet(t, path); code != http.StatusNotFound {
			t.Errorf("%s: %d %s", path, code, body)
		}
	}
	wait(t, "deletion of the stale pod", func() (bool, any) {
		p, err := w.host.CoreV1().Pods(stale.Namespace).Get(t.Context(), stale.Name, metav1.GetOptions{})
		return err == nil && p.DeletionTimestamp != nil, err
	})
	remove(t, stale)
	fresh := waitHostPod(t, ns, "web", second.UID)
	if code, body := asKubelet(t, paths[0]); code != http.StatusOK {
		t.Errorf("the new pod's log: %d %s", code, body)
	}
	if code, _ := asKubelet(t, fmt.Sprintf("/exec/%s/web/%s/app?command=id&output=1", ns, first.UID)); code != http.StatusNotFound {
		t.Errorf("the new pod by the old UID: %d", code)
	}
	dropPod(t, second, fresh)
}
