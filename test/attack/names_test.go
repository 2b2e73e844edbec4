package attack

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/util/retry"
	"k8s.io/utils/ptr"

	"sublet.dev/api/v1alpha1"
)

func asError(err error, target any) bool { return errors.As(err, target) }

// accountOf says whether there is the service account that tests use.
func accountOf(k kubernetes.Interface) func(context.Context) (bool, error) {
	return func(ctx context.Context) (bool, error) {
		_, err := k.CoreV1().ServiceAccounts("default").Get(ctx, "default", metav1.GetOptions{})
		return err == nil, nil
	}
}

func podOf(name string) *corev1.Pod {
	return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "i:1"}}}}
}

// placed makes a pod that runs on a node, as far as the API knows.
func placed(t *testing.T, owner *tenant, ns, name string) {
	t.Helper()
	// The provider's side of the tenant's API, which gives pods their nodes.
	k, err := kubernetes.NewForConfig(owner.server.Loopback())
	if err != nil {
		t.Fatal(err)
	}
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1"}, Status: corev1.NodeStatus{
		Addresses: []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: "192.0.2.10"}}}}
	if _, err := k.CoreV1().Nodes().Create(t.Context(), node, metav1.CreateOptions{}); err != nil && !apierrors.IsAlreadyExists(err) {
		t.Fatal(err)
	}
	if _, err := k.CoreV1().Pods(ns).Create(t.Context(), podOf(name), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	bind := &corev1.Binding{ObjectMeta: metav1.ObjectMeta{Name: name}, Target: corev1.ObjectReference{Kind: "Node", Name: "n1"}}
	if err := k.CoreV1().Pods(ns).Bind(t.Context(), bind, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
}

// I01: whatever stands for a name in a path or parameter, a node is asked for a pod
// and container of this tenant, by the names that they have, or not at all.
func TestNamesInPaths(t *testing.T) {
	k := client(t, w.attacker.admin(t))
	ns := namespace(t, k)
	placed(t, w.attacker, ns, "p")
	base := "/api/v1/namespaces/" + ns + "/pods/"
	get := func(path string) int {
		code, _ := do(t, w.attacker.admin(t), http.MethodGet, path, nil)
		return code
	}
	w.attacker.node.take()
	if code := get(base + "p/log?container=c"); code != http.StatusOK {
		t.Fatalf("the pod's own log: %d", code)
	}
	if asked := w.attacker.node.take(); !slices.Equal(asked, []string{"/containerLogs/" + ns + "/p/c"}) {
		t.Fatalf("for the pod's own log the node was asked %q", asked)
	}
	names := []string{"..%2f..%2fvictim%2fp", "../../victim/p", "p%2f..%2f..%2fvictim%2fp", "%2e%2e", "..", ".", "P", "p%00", "p%20", "p;c", "p%3fx", "victim:p", "victim%2fp",
		"..%5c..%5cp", "%252e%252e%252fp", "p%0a", strings.Repeat("p", 300)}
	for _, name := range names {
		for _, subresource := range []string{"log", "log?container=c", "exec?container=c&command=id&stdout=1", "attach?stdout=1", "portforward", "proxy/", "proxy/x"} {
			if code := get(base + name + "/" + subresource); code < 300 {
				t.Errorf("%s of %q: %d", subresource, name, code)
			}
		}
	}
	for _, container := range append(names, "c/../../victim/p/c", "c?x", "", "c,c") {
		if code := get(base + "p/log?container=" + url.QueryEscape(container)); code < 300 && container != "" {
			t.Errorf("the log of container %q: %d", container, code)
		}
	}
	for _, asked := range w.attacker.node.take() {
		if asked != "/containerLogs/"+ns+"/p/c" {
			t.Errorf("the node was asked for %q", asked)
		}
	}
	if asked := w.victim.node.take(); len(asked) > 0 {
		t.Errorf("the victim's node was asked %q", asked)
	}
}

// I04: the proxy of nodes reaches what answers for the tenant's kubelets and no
// address, whatever the node's are; without rights it reaches nothing.
func TestProxyOfNodes(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	reached := make(chan struct{}, 100)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				close(reached)
				return
			}
			reached <- struct{}{}
			_ = c.Close() // an attacker's luck
		}
	}()
	host, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	// It would be noticed.
	if c, err := net.Dial("tcp", l.Addr().String()); err != nil {
		t.Fatal(err)
	} else {
		<-reached
		_ = c.Close() // it was the control
	}
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "forged"}, Status: corev1.NodeStatus{
		Addresses: []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: host}, {Type: corev1.NodeHostName, Address: "localhost"}}}}
	k := client(t, w.attacker.admin(t))
	if _, err := k.CoreV1().Nodes().Create(t.Context(), node, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	jane := w.attacker.as(t, "jane")
	for _, name := range []string{"forged", "forged:" + port, "https:forged:" + port, "http:forged:" + port} {
		for _, path := range []string{"pods", "runningpods/", "exec/victim/p/c?command=id", "run/victim/p/c", "metrics", "metrics/cadvisor", "stats/summary", "configz", "healthz",
			"logs/", "debug/pprof/", "checkpoint/victim/p/c", "containerLogs/victim/p/c"} {
			for _, method := range []string{http.MethodGet, http.MethodPost} {
				target := "/api/v1/nodes/" + name + "/proxy/" + path
				if code, body := do(t, w.attacker.admin(t), method, target, nil); code < 300 && !strings.HasPrefix(body, "asked for ") {
					t.Errorf("%s %s: %d %s", method, target, code, body)
				}
				if code, _ := do(t, jane, method, target, http.Header{"Connection": {"Upgrade"}, "Upgrade": {"websocket"}}); code < 300 {
					t.Errorf("%s %s without rights: %d", method, target, code)
				}
			}
		}
	}
	if asked := w.victim.node.take(); len(asked) > 0 {
		t.Errorf("the victim's node was asked %q", asked)
	}
	w.attacker.node.take()
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	for range reached {
		t.Error("the address that the tenant wrote was connected to")
	}
}

// J09: the kinds that say what tenants have, and whom Sublet connects to, are none of a
// tenant's API.
func TestOwnAPIIsNotServed(t *testing.T) {
	groups, err := client(t, w.attacker.admin(t)).Discovery().ServerGroups()
	if err != nil {
		t.Fatal(err)
	}
	served := map[string]bool{}
	for _, g := range groups.Groups {
		served[g.Name] = true
		if g.Name == v1alpha1.GroupVersion.Group || strings.HasSuffix(g.Name, "."+v1alpha1.GroupVersion.Group) {
			t.Errorf("a tenant's API serves %s", g.Name)
		}
	}
	if !served["apps"] || !served["apiextensions.k8s.io"] {
		t.Errorf("it serves %v: the test would find nothing", served)
	}
	for _, method := range []string{http.MethodGet, http.MethodPost} {
		for _, kind := range []string{"virtualclusters", "plans", "credentials"} {
			if code, body := do(t, w.attacker.admin(t), method, "/apis/"+v1alpha1.GroupVersion.String()+"/"+kind, nil); code != http.StatusNotFound {
				t.Errorf("%s of %s: %d %s", method, kind, code, body)
			}
		}
	}
}

// subresources are all that there are, and why each needs no check of ours beside
// upstream's rights, or where it is.
var subresources = map[string]string{
	"configz": "", "status": "the tenant's own words; nothing of the provider's trusts them (syncer, dialer)", "scale": "makes pods by a controller",
	"approval": "signs with the tenant's authority", "finalize": "the tenant's own namespaces",
	"serviceaccounts/token": "TestTokenForSomebodyElse", "nodes/proxy": "TestProxyOfNodes", "services/proxy": "tenant-apiserver/dialer", "pods/proxy": "tenant-apiserver/dialer",
	"pods/attach": "TestNamesInPaths", "pods/exec": "TestNamesInPaths", "pods/log": "TestNamesInPaths", "pods/portforward": "TestNamesInPaths",
	"pods/binding": "TestPrivilegeByEveryWay", "pods/ephemeralcontainers": "TestPrivilegeByEveryWay", "pods/resize": "TestPrivilegeByEveryWay", "pods/eviction": "deletes",
}

// I07: a subresource that a release adds is noticed.
func TestEverySubresourceIsDecided(t *testing.T) {
	_, lists, err := client(t, w.attacker.admin(t)).Discovery().ServerGroupsAndResources()
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	for _, list := range lists {
		for _, r := range list.APIResources {
			_, sub, ok := strings.Cut(r.Name, "/")
			if !ok {
				continue
			}
			seen++
			_, whole := subresources[r.Name]
			if _, any := subresources[sub]; !whole && !any {
				t.Errorf("%s of %s is new: say what guards it", r.Name, list.GroupVersion)
			}
		}
	}
	if seen < 30 {
		t.Errorf("discovery has %d subresources: the test shows nothing", seen)
	}
}

// I07: a pod gets no privilege by any way of writing one.
func TestPrivilegeByEveryWay(t *testing.T) {
	admin := w.attacker.admin(t)
	k := client(t, admin)
	ns := namespace(t, k)
	pods := k.CoreV1().Pods(ns)
	if _, err := pods.Create(t.Context(), podOf("good"), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	privileged := podOf("bad")
	privileged.Spec.Containers[0].SecurityContext = &corev1.SecurityContext{Privileged: ptr.To(true)}
	patch := func(kind types.PatchType, name, body string, subresources ...string) error {
		_, err := pods.Patch(t.Context(), name, kind, []byte(body), metav1.PatchOptions{FieldManager: ptr.Deref(map[types.PatchType]*string{types.ApplyPatchType: ptr.To("x")}[kind], "")}, subresources...)
		return err
	}
	old := func(name, node string) error {
		b := &corev1.Binding{ObjectMeta: metav1.ObjectMeta{Name: name}, Target: corev1.ObjectReference{Kind: "Node", Name: node}}
		return k.CoreV1().RESTClient().Post().Namespace(ns).Resource("bindings").Body(b).Do(t.Context()).Error()
	}
	ephemeral := `{"spec":{"ephemeralContainers":[{"name":"e","image":"i:1","securityContext":{"privileged":%v}}]}}`
	for name, try := range map[string]func() error{
		"create": func() error { _, err := pods.Create(t.Context(), privileged, metav1.CreateOptions{}); return err },
		"dry run": func() error {
			_, err := pods.Create(t.Context(), privileged, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
			return err
		},
		"apply": func() error {
			return patch(types.ApplyPatchType, "bad", `{"apiVersion":"v1","kind":"Pod","metadata":{"name":"bad"},"spec":{"containers":[{"name":"c","image":"i:1","securityContext":{"privileged":true}}]}}`)
		},
		"ephemeral, patched": func() error {
			return patch(types.StrategicMergePatchType, "good", fmt.Sprintf(ephemeral, true), "ephemeralcontainers")
		},
		"ephemeral, updated": func() error {
			return retry.RetryOnConflict(retry.DefaultBackoff, func() error { // controllers write its status
				p, err := pods.Get(t.Context(), "good", metav1.GetOptions{})
				if err != nil {
					return err
				}
				p.Spec.EphemeralContainers = []corev1.EphemeralContainer{{EphemeralContainerCommon: corev1.EphemeralContainerCommon{Name: "e", Image: "i:1", SecurityContext: &corev1.SecurityContext{Privileged: ptr.To(true)}}}}
				_, err = pods.UpdateEphemeralContainers(t.Context(), "good", p, metav1.UpdateOptions{})
				return err
			})
		},
		"resize": func() error {
			return patch(types.StrategicMergePatchType, "good", `{"spec":{"containers":[{"name":"c","securityContext":{"privileged":true}}]}}`, "resize")
		},
		"the status": func() error {
			return patch(types.MergePatchType, "good", `{"spec":{"nodeName":"n1"}}`, "status")
		},
		"a binding": func() error {
			return pods.Bind(t.Context(), &corev1.Binding{ObjectMeta: metav1.ObjectMeta{Name: "good"}, Target: corev1.ObjectReference{Kind: "Node", Name: "n1"}}, metav1.CreateOptions{})
		},
		"a binding, the old way": func() error { return old("good", "n1") },
		"a node of its own": func() error {
			p := podOf("bad")
			p.Spec.NodeName = "n1"
			_, err := pods.Create(t.Context(), p, metav1.CreateOptions{})
			return err
		},
	} {
		err := try()
		now, getErr := pods.Get(t.Context(), "good", metav1.GetOptions{})
		if getErr != nil {
			t.Fatal(getErr)
		}
		if now.Spec.NodeName != "" || len(now.Spec.EphemeralContainers) > 0 || now.Spec.Containers[0].SecurityContext != nil {
			t.Errorf("%s: it worked: %+v", name, now.Spec)
		}
		// Writes of the status and of the size drop everything else without a word.
		if err == nil && name != "the status" && name != "resize" || err != nil && !apierrors.IsForbidden(err) && !apierrors.IsInvalid(err) {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := pods.Get(t.Context(), "bad", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
			t.Fatalf("%s: the pod is there: %v", name, err)
		}
	}
	// The same without privilege is let through.
	if err := patch(types.StrategicMergePatchType, "good", fmt.Sprintf(ephemeral, false), "ephemeralcontainers"); err != nil {
		t.Errorf("an ephemeral container: %v", err)
	}
}
