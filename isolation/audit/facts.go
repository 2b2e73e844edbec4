package audit

import (
	"errors"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	nodev1 "k8s.io/api/node/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"sublet.dev/api/v1alpha1"
	"sublet.dev/isolation/baseline"
)

// errNotCollected is the error of a fact that nobody set.
var errNotCollected = errors.New("it was not collected")

// Fact is something that was found out, or why it was not. The zero Fact was
// never collected: [Fact.Get] returns an error, so a check that forgets nothing
// else still cannot pass on nothing.
type Fact[T any] struct {
	value T
	err   error
	known bool
}

// Known returns the fact v.
func Known[T any](v T) Fact[T] { return Fact[T]{value: v, known: true} }

// Unknown returns a fact that could not be found out because of err.
func Unknown[T any](err error) Fact[T] { return Fact[T]{err: err} }

// Found returns Known(v) or, when err is not nil, Unknown(err).
func Found[T any](v T, err error) Fact[T] {
	if err != nil {
		return Unknown[T](err)
	}
	return Known(v)
}

// Get returns the fact, or the reason why it is not known.
func (f Fact[T]) Get() (T, error) {
	if !f.known && f.err == nil {
		return f.value, errNotCollected
	}
	return f.value, f.err
}

// Object is the metadata of a host object.
type Object struct {
	Kind string
	metav1.ObjectMeta
}

// Ref returns the object's reference.
func (o Object) Ref() *ObjectRef {
	return &ObjectRef{Kind: o.Kind, Namespace: o.Namespace, Name: o.Name, UID: string(o.UID)}
}

// Facts is everything the checks of one subject look at: a tenant, or the host,
// for which only Tenants, Marked and Nodes are set.
type Facts struct {
	// Tenant is the audited tenant as the provider declared it.
	Tenant Fact[v1alpha1.VirtualCluster]
	// Plan is the tenant's.
	Plan Fact[v1alpha1.Plan]
	// Tenants is every tenant there is.
	Tenants Fact[[]v1alpha1.VirtualCluster]
	// Namespaces is every host namespace that carries this tenant's mark, and
	// the one that its status names.
	Namespaces Fact[[]corev1.Namespace]
	// Objects is the metadata of everything in the tenant's host namespace.
	Objects Fact[[]Object]
	// Pods is every pod in the tenant's host namespace and every pod elsewhere
	// that carries its mark, without the canaries of audits.
	Pods Fact[[]corev1.Pod]
	// PodIPs is the addresses of the pods in the tenant's host namespace,
	// whenever during the collection they existed.
	PodIPs         Fact[[]string]
	Services       Fact[[]corev1.Service]
	EndpointSlices Fact[[]discoveryv1.EndpointSlice]
	// Served is what serves hostnames in the tenant's host namespace.
	Served         Fact[[]Served]
	Quotas         Fact[[]corev1.ResourceQuota]
	Bindings       Fact[[]Binding]
	RuntimeClasses Fact[[]nodev1.RuntimeClass]
	// Baseline is the live form of the objects that [baseline.Tenant] renders.
	Baseline Fact[[]baseline.Object]
	// Admissions is what the host's API said to pods it must refuse.
	Admissions Fact[[]Admission]
	// Sandboxes is what runs the tenant's pods and its canary, read from nodes.
	Sandboxes Fact[[]Sandbox]
	// Fences is the tenant's fence on every node.
	Fences Fact[[]Fence]
	// Probes is what the canaries found.
	Probes Fact[Probes]
	// Marked is, for the host alone, every namespace and pod with a tenant's mark.
	Marked Fact[[]Object]
	// Nodes is, for the host alone, every node with what its agent says.
	Nodes Fact[[]Fact[Node]]
}

// Served is an Ingress, a Gateway or an HTTPRoute with the hostnames that it names; "" stands
// for every hostname.
type Served struct {
	Object
	Hostnames []string
}

// Node is a host node.
type Node struct {
	Name   string
	Labels map[string]string
	NodeState
}

// Binding is a RoleBinding or ClusterRoleBinding with the rules it grants.
type Binding struct {
	Object
	RoleRef  rbacv1.RoleRef
	Subjects []rbacv1.Subject
	Rules    Fact[[]rbacv1.PolicyRule]
}

// Sandbox is what a node says of the process around a pod.
type Sandbox struct {
	Pod     ObjectRef
	Node    string
	Canary  bool
	Process Fact[Process]
}

// Process is a pod's sandbox on its node.
type Process struct {
	// Handler is the runtime handler that CRI says the pod was started with.
	Handler string
	PID     int
	Exe     string
	Argv    []string
	// UIDMap is the text of /proc/PID/uid_map.
	UIDMap string
}

// Fence is a tenant's part of the fence on a node: what the agent means it to
// be and what the kernel has.
type Fence struct {
	Node string
	// State is unknown when the node did not answer.
	State Fact[FenceState]
}

// FenceState is one reading of a fence.
type FenceState struct {
	// Rendered and Enforced are the same kind of text: one rule or element a
	// line, in any order.
	Rendered, Enforced []string
}

// Attempt is one thing that a canary tried.
type Attempt struct {
	// To says in words what was tried, for people.
	To      string
	Address string
	From    ObjectRef
	Command []string
	At      time.Time
	// Reply is what the canary saw.
	Reply Fact[Reply]
}

// Reply is the line that a canary prints.
type Reply struct {
	OK     bool   `json:"ok"`
	Error  string `json:"error,omitempty"`
	Millis int64  `json:"ms"`
	Output string `json:"output,omitempty"`
	// Addresses are what a name stands for.
	Addresses []string `json:"addresses,omitempty"`
}

// Probes is what the canaries of one tenant found.
type Probes struct {
	Canary ObjectRef
	Node   string
	// Controls had to succeed, by the same canary at the same time. Among them
	// is DNS: the name of the tenant's own API, which stands for APIAddress.
	Controls   []Attempt
	DNS        Attempt
	APIAddress string
	// Stranger, StrangerAPI, Metadata, Host had to fail.
	Stranger, StrangerAPI, Metadata, Host []Attempt
	// Inbound was tried by a canary of another tenant; InboundControls are what
	// that canary had to reach.
	Inbound, InboundControls []Attempt
	// Kernel is what uname and dmesg say inside the canary.
	Uname, Dmesg Fact[string]
	// Denied is the fence's packet counter for what it refused this canary, before
	// and after Metadata, when it tried nothing else that is refused.
	Denied Fact[Counter]
}
