package translate

import (
	"fmt"
	"reflect"
	"slices"

	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"sublet.dev/isolation/policy"
	"sublet.dev/syncer/engine"
)

// The most that one NetworkPolicy may hold: rules, and peers, exceptions and ports
// of all of them. What it becomes in a kernel grows with their product.
const (
	maxPolicyRules = 100
	maxPolicyItems = 500
)

// rulePolicy is the rule of refusals of NetworkPolicies.
const rulePolicy = "network-policy"

// NetworkPolicy returns the host NetworkPolicy of a tenant's. All pods of the tenant
// are in one host namespace, and no others are: a selector of namespaces becomes
// one of pods by our mark, for the namespaces that it selects now.
//
// A policy that can't be translated whole is never dropped, for that would open what
// its author closed: the result then isolates the pods that it selects and allows
// nothing, and the refusals say why.
func (t Translation) NetworkPolicy(tenantPolicy *networkingv1.NetworkPolicy) (*networkingv1.NetworkPolicy, []policy.Refusal) {
	from := &tenantPolicy.Spec
	here := []string{tenantPolicy.Namespace}
	hostPolicy := &networkingv1.NetworkPolicy{
		ObjectMeta: t.hostMeta(tenantPolicy, ""),
		Spec: networkingv1.NetworkPolicySpec{
			PodSelector: *podSelector(&from.PodSelector, here),
			PolicyTypes: policyTypes(tenantPolicy),
		},
	}
	if found := policyRefusals(from); len(found) > 0 {
		return hostPolicy, found
	}
	for _, r := range from.Ingress {
		hostPolicy.Spec.Ingress = append(hostPolicy.Spec.Ingress, networkingv1.NetworkPolicyIngressRule{
			Ports: policyPorts(r.Ports), From: t.policyPeers(r.From, here),
		})
	}
	for _, r := range from.Egress {
		hostPolicy.Spec.Egress = append(hostPolicy.Spec.Egress, networkingv1.NetworkPolicyEgressRule{
			Ports: policyPorts(r.Ports), To: t.policyPeers(r.To, here),
		})
	}
	return hostPolicy, nil
}

// policyTypes returns the directions, which on the host are never left to defaults.
func policyTypes(tenantPolicy *networkingv1.NetworkPolicy) []networkingv1.PolicyType {
	var types []networkingv1.PolicyType
	ingress, egress := policy.Isolates(tenantPolicy)
	if ingress {
		types = append(types, networkingv1.PolicyTypeIngress)
	}
	if egress {
		types = append(types, networkingv1.PolicyTypeEgress)
	}
	return types
}

// policyRefusals lists what keeps a policy from being translated: fields that nobody
// has decided about, and too much of it.
func policyRefusals(spec *networkingv1.NetworkPolicySpec) []policy.Refusal {
	var found []policy.Refusal
	walk(reflect.ValueOf(spec), "spec", &found)
	for i := range found {
		found[i].Rule = rulePolicy
	}
	items := 0
	count := func(ports []networkingv1.NetworkPolicyPort, peers []networkingv1.NetworkPolicyPeer) {
		items += len(ports) + len(peers)
		for _, p := range peers {
			if p.IPBlock != nil {
				items += len(p.IPBlock.Except)
			}
		}
	}
	for _, r := range spec.Ingress {
		count(r.Ports, r.From)
	}
	for _, r := range spec.Egress {
		count(r.Ports, r.To)
	}
	if n := len(spec.Ingress) + len(spec.Egress); n > maxPolicyRules || items > maxPolicyItems {
		found = append(found, policy.Refusal{Rule: rulePolicy, Field: "spec", Reason: fmt.Sprintf(
			"it has %d rules with %d peers, exceptions and ports; at most %d with %d are possible: split it", n, items, maxPolicyRules, maxPolicyItems)})
	}
	return found
}

// policyPeers maps peers; here is the policy's namespace, as the only element. No
// peers mean everybody, and stay none.
func (t Translation) policyPeers(from []networkingv1.NetworkPolicyPeer, here []string) []networkingv1.NetworkPolicyPeer {
	var to []networkingv1.NetworkPolicyPeer
	for i := range from {
		to = append(to, t.policyPeer(&from[i], here))
	}
	return to
}

func (t Translation) policyPeer(from *networkingv1.NetworkPolicyPeer, here []string) networkingv1.NetworkPolicyPeer {
	if b := from.IPBlock; b != nil {
		return networkingv1.NetworkPolicyPeer{IPBlock: &networkingv1.IPBlock{CIDR: b.CIDR, Except: slices.Clone(b.Except)}}
	}
	namespaces := here
	if from.NamespaceSelector != nil {
		namespaces = t.namespaces(from.NamespaceSelector)
	}
	pods := from.PodSelector
	if pods == nil {
		pods = &metav1.LabelSelector{} // all in the namespaces
	}
	return networkingv1.NetworkPolicyPeer{PodSelector: podSelector(pods, namespaces)}
}

// namespaces returns the tenant's namespaces that are selected, as podSelector takes
// them: none for all, and one that no pod has for none.
func (t Translation) namespaces(from *metav1.LabelSelector) []string {
	if len(from.MatchLabels)+len(from.MatchExpressions) == 0 {
		return nil
	}
	if selector, err := metav1.LabelSelectorAsSelector(from); err == nil {
		if selected := t.Lookup.Namespaces(selector); len(selected) > 0 {
			return selected
		}
	}
	return []string{""}
}

func policyPorts(from []networkingv1.NetworkPolicyPort) []networkingv1.NetworkPolicyPort {
	var to []networkingv1.NetworkPolicyPort
	for _, p := range from {
		protocol := policy.ProtocolOf(p.Protocol)
		to = append(to, networkingv1.NetworkPolicyPort{Protocol: &protocol, Port: p.Port, EndPort: p.EndPort})
	}
	return to
}

// SelectsNamespaces says whether what a tenant's policy becomes depends on the
// labels of namespaces.
func SelectsNamespaces(tenantPolicy *networkingv1.NetworkPolicy) bool {
	by := func(p networkingv1.NetworkPolicyPeer) bool { return p.NamespaceSelector != nil }
	return slices.ContainsFunc(tenantPolicy.Spec.Ingress, func(r networkingv1.NetworkPolicyIngressRule) bool { return slices.ContainsFunc(r.From, by) }) ||
		slices.ContainsFunc(tenantPolicy.Spec.Egress, func(r networkingv1.NetworkPolicyEgressRule) bool { return slices.ContainsFunc(r.To, by) })
}

// IsolatesPod says whether a tenant's policy selects a tenant's pod.
func IsolatesPod(tenantPolicy *networkingv1.NetworkPolicy, tenantPod metav1.Object) bool {
	if tenantPolicy.Namespace != tenantPod.GetNamespace() {
		return false
	}
	selector, err := metav1.LabelSelectorAsSelector(&tenantPolicy.Spec.PodSelector)
	return err != nil || selector.Matches(labels.Set(tenantPod.GetLabels()))
}

// MergeNetworkPolicy is the Merge of host NetworkPolicies.
func MergeNetworkPolicy(have, want *networkingv1.NetworkPolicy) (*networkingv1.NetworkPolicy, engine.Difference) {
	merged := have.DeepCopy()
	changed := mergeMeta(&merged.ObjectMeta, want.ObjectMeta)
	changed = set(&merged.Spec, want.Spec) || changed
	return merged, difference(changed)
}
