package translate

import (
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"sublet.dev/isolation/policy"
	"sublet.dev/isolation/tenant"
	"sublet.dev/syncer/engine"
)

// providerPrefix begins the provider ID of every node view: the proof that we made
// it, which nobody can change once it is set.
const providerPrefix = "sublet://"

// kubeletPort is the port that node views show; the tenant's API wants one.
const kubeletPort = 10250

// NodeAddress returns the internal address of the node view with that name. The tenant's
// API reaches its pods through the syncer, and nothing listens at the address; node ports
// the node's agent leads to their Services.
func NodeAddress(nodeName string) string { return tenant.NodeAddress(nodeName).String() }

// IsNodeView says whether a node of the tenant was made by us, and for which name.
func IsNodeView(tenantNode *corev1.Node) (name string, ok bool) {
	return strings.CutPrefix(tenantNode.Spec.ProviderID, providerPrefix)
}

// UsesNode says whether pods of a sandbox may be placed on a host node.
func UsesNode(hostNode *corev1.Node, s tenant.Sandbox) bool {
	return hostNode.Labels[s.NodeLabel()] == "true"
}

// Node returns the tenant's view of a host node: what it needs to place and size
// pods, under a name and an address that say nothing of the host. Its status comes
// from NodeStatus.
func (t Translation) Node(hostNode *corev1.Node) *corev1.Node {
	name := t.Tenant.ID.NodeName(hostNode.Name)
	view := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{
		corev1.LabelHostname:   name,
		corev1.LabelOSStable:   hostNode.Labels[corev1.LabelOSStable],
		corev1.LabelArchStable: hostNode.Labels[corev1.LabelArchStable],
	}}}
	view.Spec.ProviderID = providerPrefix + name
	if hostNode.Spec.Unschedulable || !UsesNode(hostNode, t.Tenant.Sandbox) {
		view.Spec.Taints = []corev1.Taint{{Key: taintUnschedulable, Effect: corev1.TaintEffectNoSchedule}}
	}
	view.Spec.Taints = append(view.Spec.Taints, t.taints(hostNode)...)
	markTaints(view)
	return view
}

// taints returns those of a host node's taints that the tenant may tolerate, so knows:
// its controllers go by them.
func (t Translation) taints(hostNode *corev1.Node) []corev1.Taint {
	var seen []corev1.Taint
	for _, taint := range hostNode.Spec.Taints {
		if slices.ContainsFunc(t.plan().Tolerations, func(p policy.Taint) bool { return p.Covers(taint) }) &&
			taint.Key != corev1.TaintNodeUnschedulable {
			seen = append(seen, corev1.Taint{Key: taint.Key, Value: taint.Value, Effect: taint.Effect})
		}
	}
	return seen
}

// MergeNode is the Merge of node views: whatever the tenant changed is restored. Labels
// and taints that the tenant added stay, and so does what it cordoned: they are its own,
// and no host node gets them.
func MergeNode(have, want *corev1.Node) (*corev1.Node, engine.Difference) {
	merged := have.DeepCopy()
	if merged.Spec.ProviderID != want.Spec.ProviderID && merged.Spec.ProviderID != "" {
		return merged, engine.Immutable
	}
	for i, t := range merged.Spec.Taints {
		if slices.ContainsFunc(want.Spec.Taints, func(w corev1.Taint) bool { return taintName(w) == taintName(t) }) {
			merged.Spec.Taints[i].TimeAdded = nil
		}
	}
	changed := set(&merged.Labels, withOwn(want.Labels, have.Labels))
	changed = set(&merged.Annotations, want.Annotations) || changed
	changed = set(&merged.Spec.ProviderID, want.Spec.ProviderID) || changed
	changed = set(&merged.Spec.Taints, withOwnTaints(want.Spec.Taints, have)) || changed
	return merged, difference(changed)
}

// withOwn adds those of a view's labels that the tenant put there.
func withOwn(want, have map[string]string) map[string]string {
	labels := maps.Clone(want)
	for k, v := range have {
		if isOwn(k) {
			labels[k] = v
		}
	}
	return labels
}

// nodeResources are the resources of a node that a tenant sees.
var nodeResources = []corev1.ResourceName{
	corev1.ResourceCPU, corev1.ResourceMemory, corev1.ResourceEphemeralStorage, corev1.ResourcePods,
}

// nodeConditions are the conditions of a node that a tenant sees.
var nodeConditions = []corev1.NodeConditionType{
	corev1.NodeReady, corev1.NodeMemoryPressure, corev1.NodeDiskPressure, corev1.NodePIDPressure,
}

// NodeStatus returns the view with the status that the host node gives it, and
// whether that changed anything. Heartbeats alone do not. What the node has is no more
// than what the tenant's plan gives all of its pods.
func (t Translation) NodeStatus(hostNode, view *corev1.Node) (*corev1.Node, bool) {
	merged := view.DeepCopy()
	status := corev1.NodeStatus{
		Capacity:    visible(hostNode.Status.Capacity, t.plan().Room),
		Allocatable: visible(hostNode.Status.Allocatable, t.plan().Room),
		Addresses: []corev1.NodeAddress{
			{Type: corev1.NodeInternalIP, Address: NodeAddress(view.Name)},
			{Type: corev1.NodeHostName, Address: view.Name},
		},
		DaemonEndpoints: corev1.NodeDaemonEndpoints{KubeletEndpoint: corev1.DaemonEndpoint{Port: kubeletPort}},
		NodeInfo: corev1.NodeSystemInfo{
			KubeletVersion:  hostNode.Status.NodeInfo.KubeletVersion,
			OperatingSystem: hostNode.Status.NodeInfo.OperatingSystem,
			Architecture:    hostNode.Status.NodeInfo.Architecture,
		},
		DeclaredFeatures: declared(hostNode),
	}
	for _, kind := range nodeConditions {
		for _, c := range hostNode.Status.Conditions {
			if c.Type == kind {
				status.Conditions = append(status.Conditions, corev1.NodeCondition{
					Type: c.Type, Status: c.Status, Reason: c.Reason,
					LastHeartbeatTime: c.LastHeartbeatTime, LastTransitionTime: c.LastTransitionTime,
				})
			}
		}
	}
	if equality.Semantic.DeepEqual(still(merged.Status), still(status)) {
		return view, false
	}
	merged.Status = status
	return merged, true
}

// websockets is what nodes declare whose kubelets take exec, attach and port-forward by
// WebSocket (KEP-4006); an API server makes SPDY of them for all others.
const websockets = "ExtendWebSocketsToKubelet"

// declared returns the features of a host node's kubelet (KEP-5328), and that of the
// kubelet of node views: the syncer passes WebSockets on as they are, whatever the host's
// kubelet can do. It matters who makes SPDY of a command's streams: to its clients a
// connection that breaks off looks like a command that has succeeded, so none of it may
// be between the tenant and the node.
func declared(hostNode *corev1.Node) []string {
	features := append(slices.Clone(hostNode.Status.DeclaredFeatures), websockets)
	slices.Sort(features)
	return slices.Compact(features)
}

// still returns the status without the times of its heartbeats.
func still(status corev1.NodeStatus) corev1.NodeStatus {
	s := *status.DeepCopy()
	for i := range s.Conditions {
		s.Conditions[i].LastHeartbeatTime = metav1.Time{}
	}
	return s
}

// visible are the resources of a node that a tenant sees, each bounded by its plan's.
func visible(from corev1.ResourceList, room map[corev1.ResourceName]string) corev1.ResourceList {
	to := corev1.ResourceList{}
	for _, name := range nodeResources {
		q, ok := from[name]
		if !ok {
			continue
		}
		if most, err := resource.ParseQuantity(room[name]); err == nil && most.Cmp(q) < 0 {
			q = most
		}
		to[name] = q.DeepCopy()
	}
	return to
}
