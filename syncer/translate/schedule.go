package translate

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"sublet.dev/isolation/tenant"
)

// noNode stands for a node that the tenant names and that is not there. No host
// node has a name in our domain.
const noNode = "none." + tenant.Domain

// nodeLabels are the labels that nodes have in the tenant's view with the host's
// value. All others are the tenant's own, and stand in its view alone.
var nodeLabels = []string{corev1.LabelOSStable, corev1.LabelArchStable}

// nodeSelector maps the labels that are the host's too.
func (b *podBuilder) nodeSelector(from map[string]string) map[string]string {
	to := make(map[string]string, len(from))
	for k, v := range from {
		switch {
		case slices.Contains(nodeLabels, k):
			to[k] = v
		case k == corev1.LabelHostname:
			to[k] = b.hostnames([]string{v})[0]
		}
	}
	return to
}

// affinity maps what a pod asks of nodes and of its neighbours. What its node selector
// asks of the tenant's own labels becomes a part of it, and so do the tenant's taints.
func (b *podBuilder) affinity(from *corev1.Affinity, selector map[string]string) *corev1.Affinity {
	var ofNodes *corev1.NodeAffinity
	if from != nil && from.NodeAffinity != nil {
		ofNodes = b.nodeAffinity(from.NodeAffinity)
	}
	ofNodes = b.untainted(alsoOn(ofNodes, b.selectedByOwn(selector)))
	if from == nil && ofNodes == nil {
		return nil
	}
	to := &corev1.Affinity{NodeAffinity: ofNodes}
	if from == nil {
		return to
	}
	if f := from.PodAffinity; f != nil {
		to.PodAffinity = &corev1.PodAffinity{
			RequiredDuringSchedulingIgnoredDuringExecution:  b.podTerms(f.RequiredDuringSchedulingIgnoredDuringExecution),
			PreferredDuringSchedulingIgnoredDuringExecution: b.weightedTerms(f.PreferredDuringSchedulingIgnoredDuringExecution),
		}
	}
	if f := from.PodAntiAffinity; f != nil {
		to.PodAntiAffinity = &corev1.PodAntiAffinity{
			RequiredDuringSchedulingIgnoredDuringExecution:  b.podTerms(f.RequiredDuringSchedulingIgnoredDuringExecution),
			PreferredDuringSchedulingIgnoredDuringExecution: b.weightedTerms(f.PreferredDuringSchedulingIgnoredDuringExecution),
		}
	}
	return to
}

func (b *podBuilder) nodeAffinity(from *corev1.NodeAffinity) *corev1.NodeAffinity {
	to := &corev1.NodeAffinity{}
	if r := from.RequiredDuringSchedulingIgnoredDuringExecution; r != nil {
		to.RequiredDuringSchedulingIgnoredDuringExecution = &corev1.NodeSelector{}
		for _, term := range r.NodeSelectorTerms {
			to.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms =
				append(to.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms, b.nodeTerm(term))
		}
	}
	for _, p := range from.PreferredDuringSchedulingIgnoredDuringExecution {
		to.PreferredDuringSchedulingIgnoredDuringExecution = append(to.PreferredDuringSchedulingIgnoredDuringExecution,
			corev1.PreferredSchedulingTerm{Weight: p.Weight, Preference: b.nodeTerm(p.Preference)})
	}
	return to
}

// nodeTerm maps labels, and names of nodes: upstream's DaemonSet controller aims
// its pods with a match on metadata.name.
func (b *podBuilder) nodeTerm(from corev1.NodeSelectorTerm) corev1.NodeSelectorTerm {
	var to corev1.NodeSelectorTerm
	for _, r := range from.MatchExpressions {
		to.MatchExpressions = append(to.MatchExpressions, b.nodeRequirement(r))
	}
	for _, r := range from.MatchFields {
		hosts := make([]string, len(r.Values))
		for i, v := range r.Values {
			hosts[i] = noNode
			if n, ok := b.Lookup.HostNode(v); ok {
				hosts[i] = n.Name
			}
		}
		to.MatchFields = append(to.MatchFields, corev1.NodeSelectorRequirement{Key: r.Key, Operator: r.Operator, Values: hosts})
	}
	return to
}

func (b *podBuilder) podTerms(from []corev1.PodAffinityTerm) []corev1.PodAffinityTerm {
	var to []corev1.PodAffinityTerm
	for _, term := range from {
		to = append(to, b.podTerm(term))
	}
	return to
}

func (b *podBuilder) weightedTerms(from []corev1.WeightedPodAffinityTerm) []corev1.WeightedPodAffinityTerm {
	var to []corev1.WeightedPodAffinityTerm
	for _, w := range from {
		to = append(to, corev1.WeightedPodAffinityTerm{Weight: w.Weight, PodAffinityTerm: b.podTerm(w.PodAffinityTerm)})
	}
	return to
}

// podTerm maps a term about other pods. All pods of the tenant are in one host
// namespace, and no others are: the term stays in it and selects the tenant's
// namespaces by our mark. Which namespaces a namespaceSelector selects is decided
// when the pod is made.
func (b *podBuilder) podTerm(from corev1.PodAffinityTerm) corev1.PodAffinityTerm {
	key := topologyKey(from.TopologyKey)
	if every := from.NamespaceSelector; every != nil && len(every.MatchLabels)+len(every.MatchExpressions) == 0 {
		return corev1.PodAffinityTerm{LabelSelector: podSelector(from.LabelSelector, nil), TopologyKey: key}
	}
	namespaces := slices.Clone(from.Namespaces)
	if from.NamespaceSelector != nil {
		if selector, err := metav1.LabelSelectorAsSelector(from.NamespaceSelector); err == nil {
			namespaces = append(namespaces, b.Lookup.Namespaces(selector)...)
		}
	} else if len(namespaces) == 0 {
		namespaces = []string{b.tenantPod.Namespace}
	}
	if len(namespaces) == 0 {
		namespaces = []string{""} // selects no namespace, so no pod
	}
	return corev1.PodAffinityTerm{LabelSelector: podSelector(from.LabelSelector, namespaces), TopologyKey: key}
}

// podSelector maps a selector of pods in some of the tenant's namespaces (all for
// none given). A nil selector selects nothing, and stays nil.
func podSelector(from *metav1.LabelSelector, namespaces []string) *metav1.LabelSelector {
	if from == nil {
		return nil
	}
	to := &metav1.LabelSelector{}
	if len(from.MatchLabels) > 0 {
		to.MatchLabels = tenant.HostLabels(from.MatchLabels)
	}
	for _, r := range from.MatchExpressions {
		to.MatchExpressions = append(to.MatchExpressions, metav1.LabelSelectorRequirement{
			Key: tenant.HostLabel(r.Key), Operator: r.Operator, Values: r.Values,
		})
	}
	if len(namespaces) > 0 {
		marks := make([]string, len(namespaces))
		for i, n := range namespaces {
			marks[i] = tenant.NamespaceValue(n)
		}
		slices.Sort(marks)
		to.MatchExpressions = append(to.MatchExpressions, metav1.LabelSelectorRequirement{
			Key: tenant.LabelNamespace, Operator: metav1.LabelSelectorOpIn, Values: slices.Compact(marks),
		})
	}
	return to
}

// topologyKey maps the label that says which nodes are one place.
func topologyKey(from string) string {
	if from == corev1.LabelHostname || slices.Contains(nodeLabels, from) {
		return from
	}
	return tenant.HostLabel(from)
}

func (b *podBuilder) spread(from []corev1.TopologySpreadConstraint) []corev1.TopologySpreadConstraint {
	var to []corev1.TopologySpreadConstraint
	for _, c := range from {
		to = append(to, corev1.TopologySpreadConstraint{
			MaxSkew:            c.MaxSkew,
			TopologyKey:        topologyKey(c.TopologyKey),
			WhenUnsatisfiable:  c.WhenUnsatisfiable,
			LabelSelector:      podSelector(c.LabelSelector, []string{b.tenantPod.Namespace}),
			MinDomains:         c.MinDomains,
			NodeAffinityPolicy: c.NodeAffinityPolicy,
			NodeTaintsPolicy:   c.NodeTaintsPolicy,
		})
	}
	return to
}
