package audit

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// kubeletPort is where every node's agent listens for the host API.
const kubeletPort = "10250"

// probe lets a tenant's canaries and the stranger's try, and reads the fence's
// counter around what it must have counted.
func (a *audit) probe(ctx context.Context, here station, other Fact[station]) Fact[Probes] {
	host, err := a.collector.hostTargets(ctx)
	if err != nil {
		return Unknown[Probes](err)
	}
	before := a.denials(ctx, here.prober)
	p := probeFirst(ctx, a.commander, here)
	p.Denied = counted(before, a.denials(ctx, here.prober))
	probeRest(ctx, a.commander, &p, here, other, host)
	return Known(p)
}

// hostTargets are the listeners of the host that the audit itself uses: the
// agents' kubelet ports and the host API, at its addresses and as a service.
func (c collector) hostTargets(ctx context.Context) ([]target, error) {
	var nodes corev1.NodeList
	if err := c.host.List(ctx, &nodes); err != nil {
		return nil, fmt.Errorf("list nodes: %w", err)
	}
	var out []target
	for _, n := range nodes.Items {
		for _, a := range n.Status.Addresses {
			if a.Type == corev1.NodeInternalIP {
				out = append(out, dial("the kubelet of node "+n.Name, a.Address, kubeletPort))
			}
		}
	}
	if len(out) == 0 {
		return nil, errors.New("the host has no node with an address")
	}
	var slices discoveryv1.EndpointSliceList
	if err := c.host.List(ctx, &slices, client.InNamespace(metav1.NamespaceDefault), client.MatchingLabels{discoveryv1.LabelServiceName: apiService}); err != nil {
		return nil, fmt.Errorf("find the addresses of the host API: %w", err)
	}
	for _, s := range slices.Items {
		for _, e := range s.Endpoints {
			for _, p := range s.Ports {
				if len(e.Addresses) > 0 && p.Port != nil {
					out = append(out, dial("the host API", e.Addresses[0], strconv.Itoa(int(*p.Port))))
				}
			}
		}
	}
	var service corev1.Service
	if err := c.host.Get(ctx, client.ObjectKey{Namespace: metav1.NamespaceDefault, Name: apiService}, &service); err != nil {
		return nil, fmt.Errorf("find the service of the host API: %w", err)
	}
	return append(out, dial("the host API's service", service.Spec.ClusterIP, "443")), nil
}

// denials reads how many packets of a canary the fence refused so far.
func (a *audit) denials(ctx context.Context, c canary) Fact[Counter] {
	facts, err := a.nodes.Facts(ctx, c.node, c.ref.Namespace, c.ref.Name)
	if err != nil {
		return Unknown[Counter](err)
	}
	if facts.Fence == nil {
		return Unknown[Counter](fmt.Errorf("the agent on node %s told nothing of the fence", c.node))
	}
	n, ok := facts.Fence.Counters[deniedCounter]
	if !ok {
		return Unknown[Counter](fmt.Errorf("the fence on node %s has no counter %q", c.node, deniedCounter))
	}
	return Known(Counter{Name: deniedCounter, After: n})
}

func counted(before, after Fact[Counter]) Fact[Counter] {
	b, err := before.Get()
	if err != nil {
		return before
	}
	c, err := after.Get()
	if err != nil {
		return after
	}
	c.Before = b.After
	return Known(c)
}

// sandboxes reads from the nodes what runs around the pods that run.
func (a *audit) sandboxes(ctx context.Context, hostPods Fact[[]corev1.Pod]) Fact[[]Sandbox] {
	pods, err := hostPods.Get()
	if err != nil {
		return Unknown[[]Sandbox](err)
	}
	boxes := []Sandbox{}
	for i := range pods {
		p := &pods[i]
		if p.Status.Phase != corev1.PodRunning || p.Spec.NodeName == "" {
			continue
		}
		facts := Found(a.nodes.Facts(ctx, p.Spec.NodeName, p.Namespace, p.Name))
		if facts.err != nil && a.gone(ctx, p) {
			continue
		}
		boxes = append(boxes, Sandbox{Pod: *podRef(p), Node: p.Spec.NodeName, Process: process(facts, p.UID)})
	}
	return Known(boxes)
}

// hostFacts reads what the checks of the host need.
func (a *audit) hostFacts(ctx context.Context) *Facts {
	f := a.collector.hostFacts(ctx)
	nodes := list(ctx, a.collector.host, func(l *corev1.NodeList) []corev1.Node { return l.Items })
	all, err := nodes.Get()
	if err != nil {
		f.Nodes = Unknown[[]Fact[Node]](err)
		return f
	}
	out := make([]Fact[Node], 0, len(all))
	for _, n := range all {
		told, err := a.nodes.Facts(ctx, n.Name, "", "")
		out = append(out, Found(Node{Name: n.Name, Labels: n.Labels, NodeState: told.Node}, err))
	}
	f.Nodes = Known(out)
	return f
}

// fences reads the tenant's fence from every node, whether the tenant has pods
// there or not: it must be there before the first one.
func (a *audit) fences(ctx context.Context, namespace string) Fact[[]Fence] {
	nodes := list(ctx, a.collector.host, func(l *corev1.NodeList) []corev1.Node { return l.Items })
	all, err := nodes.Get()
	if err != nil {
		return Unknown[[]Fence](err)
	}
	out := make([]Fence, 0, len(all))
	for _, n := range all {
		out = append(out, Fence{Node: n.Name, State: fenceState(Found(a.nodes.Facts(ctx, n.Name, namespace, "")))})
	}
	return Known(out)
}

func (a *audit) canarySandbox(ctx context.Context, here Fact[station]) Sandbox {
	s, err := here.Get()
	if err != nil {
		return Sandbox{Pod: ObjectRef{Kind: "Pod", Name: "canary"}, Canary: true, Process: Unknown[Process](err)}
	}
	facts := Found(a.nodes.Facts(ctx, s.prober.node, s.prober.ref.Namespace, s.prober.ref.Name))
	return Sandbox{Pod: s.prober.ref, Node: s.prober.node, Canary: true, Process: process(facts, types.UID(s.prober.ref.UID))}
}

// gone says whether a pod ended or went since it was listed.
func (a *audit) gone(ctx context.Context, p *corev1.Pod) bool {
	var now corev1.Pod
	err := a.collector.host.Get(ctx, client.ObjectKeyFromObject(p), &now)
	return client.IgnoreNotFound(err) == nil && (err != nil || now.UID != p.UID || now.DeletionTimestamp != nil || now.Status.Phase != corev1.PodRunning)
}

// process reads what the agent says of a pod; what it says of another one of the
// same name is nothing.
func process(facts Fact[NodeFacts], uid types.UID) Fact[Process] {
	f, err := facts.Get()
	if err != nil {
		return Unknown[Process](err)
	}
	if f.Sandbox == nil {
		return Unknown[Process](errors.New("the agent told nothing of the sandbox"))
	}
	if f.Sandbox.UID != string(uid) {
		return Unknown[Process](fmt.Errorf("the agent knows another pod of that name, %q", f.Sandbox.UID))
	}
	return Known(Process{Handler: f.Sandbox.Handler, PID: f.Sandbox.PID, Exe: f.Sandbox.Exe, Argv: f.Sandbox.Argv, UIDMap: f.Sandbox.UIDMap})
}

func fenceState(facts Fact[NodeFacts]) Fact[FenceState] {
	f, err := facts.Get()
	if err != nil {
		return Unknown[FenceState](err)
	}
	if f.Fence == nil {
		return Unknown[FenceState](errors.New("the agent told nothing of the fence"))
	}
	return Known(FenceState{Rendered: f.Fence.Rendered, Enforced: f.Fence.Enforced})
}
