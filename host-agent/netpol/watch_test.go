package netpol

import (
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	dynamicfake "k8s.io/client-go/dynamic/fake"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"

	"k8s.io/utils/ptr"

	"sublet.dev/api/v1alpha1"
	"sublet.dev/host-agent/podnet"
	"sublet.dev/isolation/policy"
	"sublet.dev/isolation/tenant"
)

var tenantsResource = v1alpha1.GroupVersion.WithResource("virtualclusters")

// host is a host API in memory, with an Enforcer that follows it on node "here".
// It filters by label but not by field: what is asked for is looked at instead.
type host struct {
	t       *testing.T
	e       *Enforcer
	typed   *fake.Clientset
	untyped *dynamicfake.FakeDynamicClient
}

func newHost(t *testing.T) *host {
	t.Helper()
	registry, err := podnet.OpenRegistry(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	h := &host{t: t, typed: fake.NewClientset(),
		untyped: dynamicfake.NewSimpleDynamicClientWithCustomListKinds(runtime.NewScheme(), map[schema.GroupVersionResource]string{tenantsResource: "VirtualClusterList"}),
		e: &Enforcer{changed: make(chan struct{}, 1), Config: Config{NodeName: "here", NodeIP: addr(nodeIP), DNSPort: 10053, Registry: registry, Logger: slog.New(slog.DiscardHandler),
			Pods: cidrs("10.244.0.0/16")[0], Services: cidrs("10.96.0.0/12")[0]}}}
	stop, err := h.e.follow(t.Context(), h.typed, h.untyped)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(stop)
	return h
}

// node makes a node with an address and a range of pods.
func (h *host) node(name, ip, pods string) {
	h.t.Helper()
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.NodeSpec{PodCIDRs: []string{pods}},
		Status: corev1.NodeStatus{Addresses: []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: ip}, {Type: corev1.NodeHostName, Address: name}}}}
	if _, err := h.typed.CoreV1().Nodes().Create(h.t.Context(), n, metav1.CreateOptions{}); err != nil {
		h.t.Fatal(err)
	}
}

// tenant makes a tenant and returns its host namespace.
func (h *host) tenant(name, slice string) string {
	h.t.Helper()
	id := tenant.ID(name + "-uid")
	vc := v1alpha1.VirtualCluster{TypeMeta: metav1.TypeMeta{APIVersion: v1alpha1.GroupVersion.String(), Kind: "VirtualCluster"},
		ObjectMeta: metav1.ObjectMeta{Name: name, UID: types.UID(id)},
		Status:     v1alpha1.VirtualClusterStatus{Namespace: tenant.HostNamespace(name, id), ServiceCIDR: slice, APIAddress: nodeIP, APIPort: 7001}}
	object, err := runtime.DefaultUnstructuredConverter.ToUnstructured(&vc)
	if err == nil {
		_, err = h.untyped.Resource(tenantsResource).Create(h.t.Context(), &unstructured.Unstructured{Object: object}, metav1.CreateOptions{})
	}
	if err != nil {
		h.t.Fatal(err)
	}
	return vc.Status.Namespace
}

// pod makes or changes a tenant's pod; node "" is one that has no node yet.
func (h *host) pod(namespace, name, node string, phase corev1.PodPhase, ips ...string) *corev1.Pod {
	h.t.Helper()
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, Labels: map[string]string{tenant.LabelTenant: "x"}},
		Spec: corev1.PodSpec{NodeName: node}, Status: corev1.PodStatus{Phase: phase}}
	for _, ip := range ips {
		p.Status.PodIPs = append(p.Status.PodIPs, corev1.PodIP{IP: ip})
	}
	pods := h.typed.CoreV1().Pods(namespace)
	_, err := pods.Update(h.t.Context(), p, metav1.UpdateOptions{})
	if err != nil {
		_, err = pods.Create(h.t.Context(), p, metav1.CreateOptions{})
	}
	if err != nil {
		h.t.Fatal(err)
	}
	return p
}

// until waits for a world that is as wanted.
func (h *host) until(what string, wanted func(world) bool) {
	h.t.Helper()
	for {
		h.e.mu.Lock()
		w := h.e.world
		h.e.mu.Unlock()
		if wanted(w) {
			return
		}
		select {
		case <-h.e.changed: // what Run renders at
		case <-h.t.Context().Done():
			h.t.Fatalf("not learned: %s; known is %+v", what, w)
		}
	}
}

// remote waits until these are a namespace's pods elsewhere.
func (h *host) remote(namespace string, ips ...string) {
	h.t.Helper()
	h.until(fmt.Sprintf("pods %v of %s", ips, namespace), func(w world) bool {
		var have []string
		for _, a := range w.remotePods(namespace) {
			have = append(have, a.String())
		}
		slices.Sort(have)
		return slices.Equal(have, ips)
	})
}

// Pods of a tenant on other nodes come, get an address, end, and go; with each the
// fence on this node is rendered anew.
func TestLearnsPodsOnOtherNodes(t *testing.T) {
	h := newHost(t)
	h.node("here", nodeIP, "10.244.0.0/24")
	h.node("there", otherNode, "10.244.1.0/24")
	a, b := h.tenant("a", "10.96.4.0/22"), h.tenant("b", "10.96.8.0/22")
	h.until("nodes and tenants", func(w world) bool {
		return w.ready() && len(w.nodes) == 2 && len(w.fences) == 2 && slices.Equal(w.nodePods, cidrs("10.244.0.0/24"))
	})
	h.pod(a, "one", "", corev1.PodPending)
	h.pod(a, "two", "there", corev1.PodRunning, "10.244.1.2", "fd00::2")
	h.pod(b, "three", "there", corev1.PodRunning, "10.244.1.3")
	h.remote(a, "10.244.1.2", "fd00::2")
	h.remote(b, "10.244.1.3")
	h.pod(a, "one", "there", corev1.PodRunning, "10.244.1.4")
	h.remote(a, "10.244.1.2", "10.244.1.4", "fd00::2")
	h.pod(a, "two", "there", corev1.PodSucceeded, "10.244.1.2", "fd00::2")
	h.remote(a, "10.244.1.4")
	if err := h.typed.CoreV1().Pods(a).Delete(t.Context(), "one", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	h.remote(a)
	h.remote(b, "10.244.1.3")

	// A pod of the tenant here makes its table part; its pods elsewhere are in it.
	if err := h.e.Registry.(*podnet.Registry).Put(podnet.Endpoint{ContainerID: "c", Namespace: b, Pod: "p", Interface: "veth0", Addresses: []netip.Addr{addr(podB)}}); err != nil {
		t.Fatal(err)
	}
	lines := Render(h.e.state()).Lines()
	set := "set t_" + tenant.ID("b-uid").Short() + "_pods element "
	for _, ip := range []string{podB, "10.244.1.3"} {
		if !slices.Contains(lines, set+ip) {
			t.Errorf("%s is not in the tenant's set", ip)
		}
	}

	// A tenant that is gone has no fence, whatever pods are left.
	if err := h.untyped.Resource(tenantsResource).Delete(t.Context(), "b", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	h.until("tenant b is gone", func(w world) bool { return slices.Equal(slices.Collect(maps.Keys(w.fences)), []string{a}) })
}

// Pods of the provider's on other nodes are known by their namespaces, for the fences that
// let some in; one that stands in a tenant's place is none.
func TestLearnsIngressControllers(t *testing.T) {
	h := newHost(t)
	h.node("here", nodeIP, "10.244.0.0/24")
	a := h.tenant("a", "10.96.4.0/22")
	for namespace, ip := range map[string]string{"ingress": "10.244.1.7", "other": "10.244.1.8", a: "10.244.1.9"} {
		p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "controller"}, Spec: corev1.PodSpec{NodeName: "there"},
			Status: corev1.PodStatus{Phase: corev1.PodRunning, PodIPs: []corev1.PodIP{{IP: ip}}}}
		if _, err := h.typed.CoreV1().Pods(namespace).Create(t.Context(), p, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	h.remote("ingress", "10.244.1.7")
	h.remote("other", "10.244.1.8")
	registry := h.e.Registry.(*podnet.Registry)
	for _, e := range []podnet.Endpoint{{ContainerID: "c", Namespace: a, Pod: "p", Interface: "veth0", Addresses: []netip.Addr{addr(podA1)}},
		{ContainerID: "d", Namespace: "ingress", Pod: "q", Interface: "veth1", Addresses: []netip.Addr{addr(podIngress)}},
		{ContainerID: "e", Namespace: "other", Pod: "r", Interface: "veth2", Addresses: []netip.Addr{addr(podSystem)}}} {
		if err := registry.Put(e); err != nil {
			t.Fatal(err)
		}
	}
	lets := func() (in, own []netip.Addr) {
		h.e.mu.Lock()
		defer h.e.mu.Unlock()
		s := h.e.state()
		if len(s.Tenants) == 0 {
			return nil, nil
		}
		return s.Tenants[0].Ingress, s.Tenants[0].Remote
	}
	h.until("the tenant", func(w world) bool { return len(w.fences) == 1 })
	if in, own := lets(); len(in)+len(own) > 0 {
		t.Errorf("without controllers in its plan, it lets in %v; its own are %v", in, own)
	}
	patch := []byte(`{"status":{"ingressFrom":["ingress","` + a + `"]}}`)
	if _, err := h.untyped.Resource(tenantsResource).Patch(t.Context(), "a", types.MergePatchType, patch, metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	h.until("its controllers", func(w world) bool { return len(w.fences[a].IngressFrom) > 0 })
	if in, own := lets(); !slices.Equal(in, []netip.Addr{addr(podIngress), addr("10.244.1.7")}) || len(own) > 0 {
		t.Errorf("it lets in %v; its own are %v", in, own)
	}
}

// Tenants' pods are asked for apart from others, which are never a tenant's.
func TestAsksForTenantsPods(t *testing.T) {
	h := newHost(t)
	h.node("here", nodeIP, "10.244.0.0/24")
	h.until("the node", world.ready)
	asked := 0
	for _, action := range h.typed.Actions() {
		if action.GetResource().Resource != "pods" {
			continue
		}
		var by clienttesting.ListRestrictions
		switch do := action.(type) {
		case clienttesting.ListAction:
			by = do.GetListRestrictions()
		case clienttesting.WatchAction:
			by = clienttesting.ListRestrictions{Labels: do.GetWatchRestrictions().Labels, Fields: do.GetWatchRestrictions().Fields}
		default:
			continue
		}
		asked++
		if selector := by.Labels.String(); selector != tenant.LabelTenant && selector != "!"+tenant.LabelTenant {
			t.Errorf("%s pods with fields %q and labels %q", action.GetVerb(), by.Fields, by.Labels)
		}
	}
	if asked == 0 {
		t.Error("no pods were asked for")
	}
}

// A host API that has no node of this name yet, or no tenants: nothing is ready,
// and nothing is taken for known.
func TestWithoutItsNodeNothingIsKnown(t *testing.T) {
	h := newHost(t)
	h.node("there", otherNode, "10.244.1.0/24")
	a := h.tenant("a", "10.96.4.0/22")
	h.until("the tenant", func(w world) bool { return len(w.fences) == 1 && len(w.nodes) == 1 })
	if err := h.e.Admits(a); err == nil {
		t.Error("a pod is admitted on a node whose range of pods is not known")
	}
	h.node("here", nodeIP, "10.244.0.0/24")
	h.until("the node", world.ready)
	if err := h.e.Admits(a); err != nil {
		t.Error(err)
	}
}

// The node ports and load balancers of tenants' Services are rendered for the tenant's pods here; what
// else its Services say is not looked at.
func TestLearnsWhatIsOpen(t *testing.T) {
	h := newHost(t)
	h.node("here", nodeIP, "10.244.0.0/24")
	a := h.tenant("a", "10.96.4.0/22")
	services := h.typed.CoreV1().Services(a)
	balanced := corev1.LoadBalancerStatus{Ingress: []corev1.LoadBalancerIngress{{IP: "203.0.113.80"}, {IP: "203.0.113.81", IPMode: ptr.To(corev1.LoadBalancerIPModeProxy)}, {Hostname: "lb.example"}}}
	for name, s := range map[string]corev1.ServiceSpec{
		"lb":     {Type: corev1.ServiceTypeLoadBalancer, Ports: []corev1.ServicePort{{Port: 443, NodePort: 30082}, {Port: 8443}}},
		"open":   {Type: corev1.ServiceTypeNodePort, Ports: []corev1.ServicePort{{Port: 80, NodePort: 30080}, {Port: 53, NodePort: 30053, Protocol: corev1.ProtocolUDP}}},
		"inside": {Type: corev1.ServiceTypeClusterIP, Ports: []corev1.ServicePort{{Port: 80, NodePort: 30081}}},
	} {
		o := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: a, Name: name, Labels: map[string]string{tenant.LabelTenant: "x"}}, Spec: s,
			Status: corev1.ServiceStatus{LoadBalancer: balanced}} // which means nothing on the others
		if _, err := services.Create(t.Context(), o, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	want := []policy.NodePort{{Protocol: corev1.ProtocolUDP, Port: 30053}, {Protocol: corev1.ProtocolTCP, Port: 30080}, {Protocol: corev1.ProtocolTCP, Port: 30082}}
	slice := &discoveryv1.EndpointSlice{ObjectMeta: metav1.ObjectMeta{Namespace: a, Name: "open-1", Labels: map[string]string{tenant.LabelTenant: "x", discoveryv1.LabelServiceName: "open"}},
		AddressType: discoveryv1.AddressTypeIPv4, Ports: []discoveryv1.EndpointPort{{Name: ptr.To(""), Port: ptr.To[int32](8080)}},
		Endpoints: []discoveryv1.Endpoint{{Addresses: []string{podA2}}, {Addresses: []string{podA1}, Conditions: discoveryv1.EndpointConditions{Ready: ptr.To(false)}}}}
	if _, err := h.typed.DiscoveryV1().EndpointSlices(a).Create(t.Context(), slice, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	leads := func(w world, to ...string) bool {
		var want []netip.AddrPort
		for _, p := range to {
			want = append(want, at(p))
		}
		return slices.ContainsFunc(w.ways[a], func(way Way) bool { return way.Port == 30080 && slices.Equal(way.To, want) })
	}
	h.until("where a node port leads", func(w world) bool { return leads(w, podA2+":8080") })
	slice.Endpoints[1].Conditions.Ready = ptr.To(true)
	if _, err := h.typed.DiscoveryV1().EndpointSlices(a).Update(t.Context(), slice, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	h.until("that another pod is ready", func(w world) bool { return leads(w, podA1+":8080", podA2+":8080") })
	lb := []policy.Balanced{{Addr: addr("203.0.113.80"), NodePort: policy.NodePort{Protocol: corev1.ProtocolTCP, Port: 443}}, {Addr: addr("203.0.113.80"), NodePort: policy.NodePort{Protocol: corev1.ProtocolTCP, Port: 8443}}}
	h.until("what is open", func(w world) bool {
		return len(w.fences) == 1 && slices.Equal(w.nodePorts[a], want) && slices.Equal(w.balanced[a], lb)
	})
	if err := h.e.Registry.(*podnet.Registry).Put(podnet.Endpoint{ContainerID: "c", Namespace: a, Pod: "p", Interface: "veth0", Addresses: []netip.Addr{addr(podA1)}}); err != nil {
		t.Fatal(err)
	}
	h.e.mu.Lock()
	got := h.e.state().Tenants[0]
	h.e.mu.Unlock()
	if !slices.Equal(got.NodePorts, want) || !slices.Equal(got.Balanced, lb) {
		t.Errorf("rendered are %v, %v", got.NodePorts, got.Balanced)
	}
	if len(got.Ways) != 3 || !slices.Equal(got.Masks, []netip.Addr{tenant.NodeAddress(got.Fence.Tenant.NodeName("here"))}) {
		t.Errorf("rendered are %v at %v", got.Ways, got.Masks)
	}
	for _, name := range []string{"open", "lb"} {
		if err := services.Delete(t.Context(), name, metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	h.until("nothing open", func(w world) bool { return len(w.nodePorts[a]) == 0 && len(w.balanced[a]) == 0 })
}
