package translate

import (
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/klog/v2"

	"sublet.dev/isolation/tenant"
)

// A tenant may put taints on the nodes it sees, and cordon them. Like its labels there
// they stay in its view: of the nodes that a pod does not tolerate, the host is told
// the names. Eviction is the tenant's own control plane's.

// taintUnschedulable is on the view of a node on which the host places no pods of the
// tenant any more. The field for that in the node's spec is the tenant's own.
const taintUnschedulable = tenant.Domain + "/unschedulable"

// annotationTaints, on a view, names the taints that are the host's, KEY:EFFECT, with
// commas between them: what it names no more after a change is the tenant's.
const annotationTaints = tenant.Domain + "/host-taints"

// conditionTaints begins the taints that upstream derives from a node's conditions and
// from whether it is cordoned.
const conditionTaints = "node.kubernetes.io/"

// ownTaints returns the taints of a view that are the tenant's own: all but those that
// we put there, which the view's annotation names, and those of upstream's.
func ownTaints(view *corev1.Node) []corev1.Taint {
	ours := strings.Split(view.Annotations[annotationTaints], ",")
	return slices.DeleteFunc(slices.Clone(view.Spec.Taints), func(t corev1.Taint) bool {
		return strings.HasPrefix(t.Key, conditionTaints) || strings.HasPrefix(t.Key, tenant.Domain+"/") || slices.Contains(ours, taintName(t))
	})
}

func taintName(t corev1.Taint) string { return t.Key + ":" + string(t.Effect) }

// markTaints has a view say which taints are the host's, for ownTaints.
func markTaints(view *corev1.Node) {
	var names []string
	for _, t := range view.Spec.Taints {
		names = append(names, taintName(t))
	}
	if len(names) > 0 {
		view.Annotations = map[string]string{annotationTaints: strings.Join(names, ",")}
	}
}

// withOwnTaints adds those of a view's taints that are the tenant's own, and the one of
// a node that it cordoned. The others of upstream's go: an API server puts not-ready on
// every new node, and what a node's conditions keep off, the host keeps off.
func withOwnTaints(want []corev1.Taint, have *corev1.Node) []corev1.Taint {
	taints := slices.Clone(want)
	if have.Spec.Unschedulable {
		taints = append(taints, corev1.Taint{Key: corev1.TaintNodeUnschedulable, Effect: corev1.TaintEffectNoSchedule})
	}
	for _, t := range ownTaints(have) {
		if !slices.ContainsFunc(want, func(w corev1.Taint) bool { return taintName(w) == taintName(t) }) {
			taints = append(taints, t)
		}
	}
	return taints
}

// keptOff returns the requirement that keeps a pod off the nodes whose taints of that
// kind it does not tolerate; none if there is no such node. Taints of the provider's
// do not count: the host itself keeps pods off for them.
func (b *podBuilder) keptOff(effects ...corev1.TaintEffect) []corev1.NodeSelectorRequirement {
	var names []string
	for _, view := range b.Lookup.TenantNodes() {
		if len(view.Spec.Taints) == 0 && !view.Spec.Unschedulable {
			continue // as nearly all
		}
		if slices.ContainsFunc(withOwnTaints(nil, view), func(t corev1.Taint) bool {
			return slices.Contains(effects, t.Effect) && !b.tolerates(&t)
		}) {
			names = append(names, view.Name)
		}
	}
	slices.Sort(names)
	hosts := slices.DeleteFunc(b.hostnames(names), func(host string) bool { return host == noNode })
	if len(hosts) == 0 {
		return nil
	}
	return []corev1.NodeSelectorRequirement{{Key: corev1.LabelHostname, Operator: corev1.NodeSelectorOpNotIn, Values: hosts}}
}

func (b *podBuilder) tolerates(taint *corev1.Taint) bool {
	return slices.ContainsFunc(b.tenantPod.Spec.Tolerations, func(t corev1.Toleration) bool {
		return t.ToleratesTaint(klog.Background(), taint, true)
	})
}

// untainted adds to an affinity, which may be nil, that the pod is kept off nodes whose
// taints it does not tolerate, and rather not put on those that it had better avoid. It
// modifies to.
func (b *podBuilder) untainted(to *corev1.NodeAffinity) *corev1.NodeAffinity {
	to = alsoOn(to, b.keptOff(corev1.TaintEffectNoSchedule, corev1.TaintEffectNoExecute))
	if avoid := b.keptOff(corev1.TaintEffectPreferNoSchedule); len(avoid) > 0 {
		if to == nil {
			to = &corev1.NodeAffinity{}
		}
		to.PreferredDuringSchedulingIgnoredDuringExecution = append(to.PreferredDuringSchedulingIgnoredDuringExecution,
			corev1.PreferredSchedulingTerm{Weight: 100, Preference: corev1.NodeSelectorTerm{MatchExpressions: avoid}})
	}
	return to
}

// PlacementChanged says whether a change of a node's view may change where pods may
// run: the tenant's labels, its taints, or what the node is.
func PlacementChanged(before, now *corev1.Node) bool {
	return !maps.Equal(before.Labels, now.Labels) || before.Spec.Unschedulable != now.Spec.Unschedulable ||
		!slices.EqualFunc(before.Spec.Taints, now.Spec.Taints, func(a, b corev1.Taint) bool {
			return a.Key == b.Key && a.Value == b.Value && a.Effect == b.Effect
		})
}
