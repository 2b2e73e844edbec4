package translate

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/selection"

	"sublet.dev/isolation/tenant"
)

// A tenant may put labels on the nodes it sees. They stay in its view: which nodes a
// pod means by them is found out when the pod is made for the host, and the host is
// told those nodes by name. As long as the host has not placed the pod it is made
// anew when that changes (see MergePod).

// nodeOperators are the operators of requirements on nodes as those of selectors.
var nodeOperators = map[corev1.NodeSelectorOperator]selection.Operator{
	corev1.NodeSelectorOpIn: selection.In, corev1.NodeSelectorOpNotIn: selection.NotIn,
	corev1.NodeSelectorOpExists: selection.Exists, corev1.NodeSelectorOpDoesNotExist: selection.DoesNotExist,
	corev1.NodeSelectorOpGt: selection.GreaterThan, corev1.NodeSelectorOpLt: selection.LessThan,
}

// isOwn says whether a label of nodes is the tenant's own.
func isOwn(key string) bool { return key != corev1.LabelHostname && !slices.Contains(nodeLabels, key) }

// placedByOwnLabels says whether where a pod may run depends on labels that the tenant
// put on nodes.
func placedByOwnLabels(tenantPod *corev1.Pod) bool {
	for k := range tenantPod.Spec.NodeSelector {
		if isOwn(k) {
			return true
		}
	}
	own := func(r corev1.NodeSelectorRequirement) bool { return isOwn(r.Key) }
	if a := tenantPod.Spec.Affinity; a != nil && a.NodeAffinity != nil {
		if r := a.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution; r != nil {
			return slices.ContainsFunc(r.NodeSelectorTerms, func(t corev1.NodeSelectorTerm) bool {
				return slices.ContainsFunc(t.MatchExpressions, own)
			})
		}
	}
	return false
}

// nodeRequirement maps a requirement on the labels of nodes.
func (b *podBuilder) nodeRequirement(from corev1.NodeSelectorRequirement) corev1.NodeSelectorRequirement {
	to := corev1.NodeSelectorRequirement{Key: from.Key, Operator: from.Operator, Values: from.Values}
	switch {
	case isOwn(from.Key):
		to.Key, to.Operator, to.Values = corev1.LabelHostname, corev1.NodeSelectorOpIn, b.nodesWith(from)
	case from.Key == corev1.LabelHostname:
		to.Values = b.hostnames(from.Values)
	}
	return to
}

// selectedByOwn returns what a node selector asks of the tenant's own labels, as the
// host is told it, in the order of the labels.
func (b *podBuilder) selectedByOwn(selector map[string]string) []corev1.NodeSelectorRequirement {
	var requirements []corev1.NodeSelectorRequirement
	for _, k := range slices.Sorted(maps.Keys(selector)) {
		if isOwn(k) {
			requirements = append(requirements, b.nodeRequirement(corev1.NodeSelectorRequirement{
				Key: k, Operator: corev1.NodeSelectorOpIn, Values: []string{selector[k]},
			}))
		}
	}
	return requirements
}

// nodesWith returns the host's names of the nodes whose labels in the tenant's view
// meet a requirement; one that no node has if none does.
func (b *podBuilder) nodesWith(r corev1.NodeSelectorRequirement) []string {
	var names []string
	if requirement, err := labels.NewRequirement(r.Key, nodeOperators[r.Operator], r.Values); err == nil {
		for _, view := range b.Lookup.TenantNodes() {
			if requirement.Matches(labels.Set(view.Labels)) {
				names = append(names, view.Name)
			}
		}
	}
	slices.Sort(names)
	names = slices.DeleteFunc(b.hostnames(names), func(host string) bool { return host == noNode })
	if len(names) == 0 {
		return []string{noNode}
	}
	return names
}

// hostnames returns the hostname labels of the host nodes with these names in the
// tenant's view.
func (b *podBuilder) hostnames(views []string) []string {
	hosts := make([]string, len(views))
	for i, v := range views {
		hosts[i] = noNode
		if n, ok := b.Lookup.HostNode(v); ok {
			hosts[i] = n.Labels[corev1.LabelHostname]
		}
	}
	return hosts
}

// alsoOn adds requirements to all that an affinity requires: its terms are
// alternatives. It modifies to, which may be nil.
func alsoOn(to *corev1.NodeAffinity, requirements []corev1.NodeSelectorRequirement) *corev1.NodeAffinity {
	if len(requirements) == 0 {
		return to
	}
	if to == nil {
		to = &corev1.NodeAffinity{}
	}
	required := to.RequiredDuringSchedulingIgnoredDuringExecution
	if required == nil {
		to.RequiredDuringSchedulingIgnoredDuringExecution = &corev1.NodeSelector{
			NodeSelectorTerms: []corev1.NodeSelectorTerm{{MatchExpressions: requirements}},
		}
		return to
	}
	for i := range required.NodeSelectorTerms {
		term := &required.NodeSelectorTerms[i]
		if len(term.MatchExpressions)+len(term.MatchFields) > 0 { // one that says nothing selects nothing
			term.MatchExpressions = append(term.MatchExpressions, requirements...)
		}
	}
	return to
}

// markPlacement has the host pod of one that is placed by the tenant's own labels, or kept
// off nodes by its taints, say where it may be placed, for keepPlacement to compare; and by
// which PriorityClass, if it has one.
func (b *podBuilder) markPlacement(hostPod *corev1.Pod) {
	byOwn := placedByOwnLabels(b.tenantPod) || len(b.keptOff(corev1.TaintEffectNoSchedule, corev1.TaintEffectNoExecute)) > 0
	class := hostPod.Spec.PriorityClassName
	if !byOwn && class == "" {
		return
	}
	hash := sha256.New()
	if byOwn {
		for _, term := range hostPod.Spec.Affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms {
			fmt.Fprintf(hash, "%q\n", term.String())
		}
	}
	if class != "" {
		fmt.Fprintf(hash, "priority class %s\n", class)
	}
	hostPod.Annotations[tenant.AnnotationPlacement] = hex.EncodeToString(hash.Sum(nil)[:8])
}

// keepPlacement says whether a host pod may stay; as long as it was not placed it has
// to be made anew when it is wanted elsewhere, or by another PriorityClass. Later its mark
// stays as it is.
func keepPlacement(have *corev1.Pod, want *metav1.ObjectMeta) (keep bool) {
	mark, marked := have.Annotations[tenant.AnnotationPlacement]
	if have.Spec.NodeName == "" {
		return want.Annotations[tenant.AnnotationPlacement] == mark
	}
	want.Annotations = maps.Clone(want.Annotations)
	delete(want.Annotations, tenant.AnnotationPlacement)
	if marked {
		want.Annotations[tenant.AnnotationPlacement] = mark
	}
	return true
}
