package syncer

import (
	"net/netip"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"sublet.dev/isolation/tenant"
)

const self = tenant.ID("7f6c1f4e-0000-4000-8000-000000000001")

// unstarted are caches that nothing fills but the test.
func unstarted(t *testing.T) *caches {
	t.Helper()
	client, err := kubernetes.NewForConfig(&rest.Config{Host: "https://192.0.2.1"})
	if err != nil {
		t.Fatal(err)
	}
	host, err := NewHost(HostConfig{Read: &rest.Config{Host: "https://192.0.2.1"}})
	if err != nil {
		t.Fatal(err)
	}
	c, err := newCaches(Config{Tenant: tenant.Tenant{ID: self, HostNamespace: "t"}, Host: host}, client)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func put(t *testing.T, informer indexable, objects ...any) {
	t.Helper()
	for _, o := range objects {
		if err := informer.GetIndexer().Add(o); err != nil {
			t.Fatal(err)
		}
	}
}

// hostPod is a running host pod of a tenant.
func hostPod(of tenant.ID, name, ip string, change ...func(*corev1.Pod)) *corev1.Pod {
	owner := tenant.Owner{Tenant: of, Name: tenant.Name{Namespace: "default", Name: name}, UID: "tenant-" + name}
	labels, annotations := owner.Marks()
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: "t", Name: string(of.HostName(owner.Name)), UID: types.UID("host-" + name), Labels: labels, Annotations: annotations,
		},
		Status: corev1.PodStatus{Phase: corev1.PodRunning, PodIP: ip, PodIPs: []corev1.PodIP{{IP: ip}}},
	}
	for _, f := range change {
		f(p)
	}
	return p
}

func TestWhoseAddress(t *testing.T) {
	c := unstarted(t)
	put(t, c.hostNodes, &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: "n"},
		Spec:       corev1.NodeSpec{PodCIDRs: []string{"10.244.0.0/24", "not a prefix"}},
		Status: corev1.NodeStatus{Addresses: []corev1.NodeAddress{
			{Type: corev1.NodeHostName, Address: "n"}, {Type: corev1.NodeExternalIP, Address: "198.41.0.9"},
		}},
	})
	put(t, c.host.pods,
		hostPod(self, "web", "10.244.0.7"),
		hostPod("another-tenant", "web", "10.244.0.8"),
		hostPod(self, "over", "10.244.0.9", func(p *corev1.Pod) { p.Status.Phase = corev1.PodSucceeded }),
		hostPod(self, "soon", "10.244.0.10", func(p *corev1.Pod) { p.Status.Phase = corev1.PodPending }),
		hostPod(self, "node", "198.41.0.9", func(p *corev1.Pod) { p.Spec.HostNetwork = true }),
		hostPod(self, "twice-1", "10.244.0.11"), hostPod(self, "twice-2", "10.244.0.11"),
		hostPod(self, "forged", "10.244.0.12", func(p *corev1.Pod) { p.Name = "another" }),
	)
	for _, want := range []struct {
		addr, pod string
		node      bool
	}{
		{"10.244.0.7", "host-web", false},
		{"10.244.0.8", "", true},
		{"10.244.0.9", "", true},
		{"10.244.0.10", "", true},
		{"10.244.0.11", "", true},
		{"10.244.0.12", "", true},
		{"10.244.0.13", "", true},
		{"198.41.0.9", "", true},
		{"198.41.0.4", "", false},
	} {
		addr := netip.MustParseAddr(want.addr)
		pod := c.runningAt(addr)
		if node := c.ofNode(addr, pod != ""); pod != want.pod || node != want.node {
			t.Errorf("%s: pod %q, the provider's %v; want %q, %v", addr, pod, node, want.pod, want.node)
		}
	}
	if own, err := onThisMachine(netip.MustParseAddr("127.0.0.1")); err != nil || !own {
		t.Errorf("127.0.0.1 is this machine's: %v, %v", own, err)
	}
	if own, err := onThisMachine(netip.MustParseAddr("192.0.2.1")); err != nil || own {
		t.Errorf("192.0.2.1 is this machine's: %v, %v", own, err)
	}
}
