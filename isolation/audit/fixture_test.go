package audit

import (
	"errors"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	nodev1 "k8s.io/api/node/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	"sublet.dev/api/v1alpha1"
	"sublet.dev/isolation/baseline"
	"sublet.dev/isolation/tenant"
)

const (
	acmeUID = "0d9f2c1e-1111-2222-3333-444455556666"
	nodeIP  = "192.0.2.10"
)

var (
	when      = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	errTest   = errors.New("the node does not answer")
	acmeSpace = tenant.HostNamespace("acme", acmeUID)
)

// acme is a tenant in perfect order.
func acme() v1alpha1.VirtualCluster {
	now := metav1.NewTime(when)
	return v1alpha1.VirtualCluster{
		ObjectMeta: metav1.ObjectMeta{Name: "acme", UID: acmeUID},
		Spec:       v1alpha1.VirtualClusterSpec{Sandbox: "gvisor"},
		Status: v1alpha1.VirtualClusterStatus{
			Phase: v1alpha1.PhaseReady, Namespace: acmeSpace, ServiceCIDR: "10.96.4.0/22", APIAddress: nodeIP, APIPort: 31001, Cell: "cell-0",
			Conditions: []metav1.Condition{
				{Type: v1alpha1.ConditionFenced, Status: metav1.ConditionTrue, LastTransitionTime: now},
				{Type: v1alpha1.ConditionReady, Status: metav1.ConditionTrue, LastTransitionTime: now},
			},
		},
	}
}

// basic is acme's plan. Since it offers snapshots, acme is shown a kind of the host that
// has no namespace.
func basic() v1alpha1.Plan {
	return v1alpha1.Plan{Spec: v1alpha1.PlanSpec{SnapshotClasses: []string{"fast"}}}
}

func globex() v1alpha1.VirtualCluster {
	vc := acme()
	vc.Name, vc.UID, vc.Status.ServiceCIDR, vc.Status.APIPort = "globex", "other-uid", "10.96.8.0/22", 31002
	return vc
}

// webPod is a host pod as the syncer makes it.
func webPod() corev1.Pod {
	o := tenant.Owner{Tenant: acmeUID, Name: tenant.Name{Namespace: "default", Name: "web"}, UID: "u-web"}
	labels, annotations := o.Marks()
	labels[tenant.HostLabel("app")] = "web"
	return corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: acmeSpace, Name: string(o.Tenant.HostName(o.Name)), UID: "h-web", Labels: labels, Annotations: annotations},
		Spec: corev1.PodSpec{
			RuntimeClassName: ptr.To("sublet-gvisor"), AutomountServiceAccountToken: ptr.To(false), NodeName: "node-1",
			Containers: []corev1.Container{{Name: "web", Image: "example/web:1"}},
		},
		Status: corev1.PodStatus{Phase: corev1.PodRunning, PodIPs: []corev1.PodIP{{IP: "10.244.0.7"}}},
	}
}

func quota() corev1.ResourceQuota {
	hard := corev1.ResourceList{corev1.ResourcePods: resource.MustParse("100")}
	used := corev1.ResourceList{corev1.ResourcePods: resource.MustParse("3")}
	return corev1.ResourceQuota{
		ObjectMeta: metav1.ObjectMeta{Namespace: acmeSpace, Name: "tenant"},
		Spec:       corev1.ResourceQuotaSpec{Hard: hard}, Status: corev1.ResourceQuotaStatus{Hard: hard, Used: used},
	}
}

func endpointSlice(service, managedBy string, port int32, addresses ...string) discoveryv1.EndpointSlice {
	return discoveryv1.EndpointSlice{
		ObjectMeta: metav1.ObjectMeta{Namespace: acmeSpace, Name: service + "-1", Labels: map[string]string{
			discoveryv1.LabelServiceName: service, tenant.LabelManagedBy: managedBy}},
		Endpoints: []discoveryv1.Endpoint{{Addresses: addresses}},
		Ports:     []discoveryv1.EndpointPort{{Port: &port}},
	}
}

func service(name, ip string) corev1.Service {
	return corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: acmeSpace, Name: name},
		Spec:       corev1.ServiceSpec{ClusterIP: ip, ClusterIPs: []string{ip}, Type: corev1.ServiceTypeClusterIP},
	}
}

func binding() Binding {
	return Binding{
		Object:   Object{"RoleBinding", metav1.ObjectMeta{Namespace: acmeSpace, Name: "syncer"}},
		RoleRef:  rbacv1.RoleRef{Kind: "Role", Name: "syncer"},
		Subjects: []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Namespace: acmeSpace, Name: tenant.Writer}},
		Rules:    Known([]rbacv1.PolicyRule{{APIGroups: []string{""}, Resources: []string{"pods"}, Verbs: []string{"create", "delete"}}}),
	}
}

// acting lets the cell act as the tenant's syncer.
func acting() Binding {
	return Binding{
		Object:   Object{"RoleBinding", metav1.ObjectMeta{Namespace: acmeSpace, Name: "act"}},
		RoleRef:  rbacv1.RoleRef{Kind: "Role", Name: "act"},
		Subjects: []rbacv1.Subject{{Kind: rbacv1.UserKind, Name: tenant.CellUser("cell-0")}},
		Rules:    Known([]rbacv1.PolicyRule{baseline.ActRule()}),
	}
}

func attempt(to, address string, reached bool) Attempt {
	r := Reply{OK: reached, Millis: 2}
	if !reached {
		r.Error = "i/o timeout"
	}
	return Attempt{To: to, Address: address, From: ObjectRef{Kind: "Pod", Namespace: acmeSpace, Name: "prober", UID: "c1"},
		Command: []string{canaryBinary, "dial", "tcp", address, "2s"}, At: when, Reply: Known(r)}
}

func probes() Probes {
	return Probes{
		Canary: ObjectRef{Kind: "Pod", Namespace: acmeSpace, Name: "prober", UID: "c1"}, Node: "node-1",
		DNS: Attempt{To: "the tenant's DNS", Address: "10.96.4.10", From: ObjectRef{Kind: "Pod", Namespace: acmeSpace, Name: "prober", UID: "c1"},
			Command: []string{canaryBinary, "resolve", apiName}, At: when, Reply: Known(Reply{OK: true, Addresses: []string{"10.96.4.1"}})},
		APIAddress:      "10.96.4.1",
		Controls:        []Attempt{attempt("the tenant's own pod", "10.244.0.9:8080", true)},
		Stranger:        []Attempt{attempt("another tenant's pod", "10.244.0.20:8080", false)},
		StrangerAPI:     []Attempt{attempt("another tenant's API", "10.96.12.1:443", false)},
		Metadata:        []Attempt{attempt("the cloud's metadata", "169.254.169.254:80", false)},
		Host:            []Attempt{attempt("the kubelet of node node-1", nodeIP+":10250", false)},
		Inbound:         []Attempt{attempt("the tenant's pod", "10.244.0.9:8080", false)},
		InboundControls: []Attempt{attempt("the tenant's own pod", "10.244.0.20:8080", true)},
		Uname:           Known("Linux acme 4.19.0-gvisor x86_64\n"),
		Dmesg:           Known("[   0.000000] Starting gVisor...\n[   0.1] Feeding the init monster...\n"),
		Denied:          Known(Counter{Name: deniedCounter, Before: 1, After: 9}),
	}
}

func sandboxes() []Sandbox {
	p := Process{Handler: "runsc", PID: 4711, Exe: "/opt/sublet/node/runsc", Argv: []string{"runsc-sandbox", "--root=/run", "boot"}, UIDMap: "0 100000 65536\n"}
	return []Sandbox{{Pod: ObjectRef{Kind: "Pod", Namespace: acmeSpace, Name: "web", UID: "h-web"}, Node: "node-1", Process: Known(p)}}
}

// good is the facts of a tenant that passes every check.
func good() *Facts {
	pod := webPod()
	space := corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: acmeSpace, UID: types.UID("ns"), Labels: map[string]string{
		tenant.LabelTenant: acmeUID, corev1.LabelMetadataName: acmeSpace}, Annotations: map[string]string{tenant.AnnotationHostnames: "*.acme.example,shop.example"}}}
	return &Facts{
		Tenant:     Known(acme()),
		Tenants:    Known([]v1alpha1.VirtualCluster{acme(), globex()}),
		Namespaces: Known([]corev1.Namespace{space}),
		Objects:    Known([]Object{{"Namespace", space.ObjectMeta}, {"Pod", pod.ObjectMeta}}),
		Pods:       Known([]corev1.Pod{pod}),
		PodIPs:     Known([]string{"10.244.0.7"}),
		Services:   Known([]corev1.Service{service(apiService, "10.96.4.1"), service("web", "10.96.4.30"), service("headless", corev1.ClusterIPNone)}),
		EndpointSlices: Known([]discoveryv1.EndpointSlice{
			endpointSlice(apiService, tenant.ManagedByManager, 31001, nodeIP), endpointSlice("web", tenant.ManagedBySyncer, 8080, "10.244.0.7")}),
		Served:         Known([]Served{{Object{"Ingress", metav1.ObjectMeta{Namespace: acmeSpace, Name: "web"}}, []string{"shop.example"}}}),
		Quotas:         Known([]corev1.ResourceQuota{quota()}),
		Bindings:       Known([]Binding{binding(), acting()}),
		RuntimeClasses: Known([]nodev1.RuntimeClass{{ObjectMeta: metav1.ObjectMeta{Name: "sublet-gvisor"}, Handler: "runsc"}}),
		Plan:           Found(basic(), nil),
		Baseline:       Found(rendered(acme(), basic())),
		Admissions:     Known([]Admission{{What: "nothing", Control: true}, {What: "the host's network", Refused: true, Answer: "forbidden"}}),
		Sandboxes:      Known(sandboxes()),
		Fences:         Known([]Fence{{Node: "node-1", State: Known(FenceState{Rendered: []string{"drop a", "drop b"}, Enforced: []string{"drop  b", "drop a"}})}}),
		Probes:         Known(probes()),
		Nodes: Known([]Fact[Node]{Known(Node{Name: "node-1", Labels: map[string]string{tenant.GVisor.NodeLabel(): "true"}, NodeState: NodeState{
			Versions:  map[string]string{"containerd": "v2.4.2", "runc": "1.5.2"},
			Sandboxes: map[tenant.Sandbox]string{tenant.GVisor: worksHere, tenant.RuncUserNS: "no user namespaces"}}})}),
		Marked: Known([]Object{{"Namespace", space.ObjectMeta}}),
	}
}
