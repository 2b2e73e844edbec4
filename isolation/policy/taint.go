package policy

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/klog/v2"
)

// Taint is what of a host node's taints a tenant's pods may tolerate.
type Taint struct {
	Key string `json:"key"`
	// Value is the taint's value; nil: any.
	Value *string `json:"value,omitempty"`
	// Effect is the taint's effect; "": any.
	Effect corev1.TaintEffect `json:"effect,omitempty"`
}

// nodeHealth are the taints of nodes that are not well. Every tenant's pods may say how
// long they stay there; all others keep pods off nodes for the provider's reasons.
var nodeHealth = []Taint{
	{Key: corev1.TaintNodeNotReady, Effect: corev1.TaintEffectNoExecute},
	{Key: corev1.TaintNodeUnreachable, Effect: corev1.TaintEffectNoExecute},
}

// Tolerations returns what a host pod tolerates whose tenant pod tolerates asked: of
// all taints that there may be, those that asked covers and that are allowed, or tell of
// a node's health, and no others. The order is that of asked.
func Tolerations(asked []corev1.Toleration, allowed []Taint) []corev1.Toleration {
	var to []corev1.Toleration
	for _, t := range asked {
		for _, p := range slices.Concat(nodeHealth, allowed) {
			if common, ok := p.and(t); ok && !contains(to, common) {
				to = append(to, common)
			}
		}
	}
	return to
}

// contains says whether a list has the very toleration, its seconds included.
func contains(list []corev1.Toleration, t corev1.Toleration) bool {
	return slices.ContainsFunc(list, func(l corev1.Toleration) bool { return equality.Semantic.DeepEqual(l, t) })
}

// MergeTolerations returns have with what of want it lacks: a pod may come to tolerate
// more and change its seconds, and can't take one back.
func MergeTolerations(have, want []corev1.Toleration) []corev1.Toleration {
	merged := slices.Clone(have)
	for _, w := range want {
		if contains(merged, w) {
			continue
		}
		i := slices.IndexFunc(merged, func(h corev1.Toleration) bool { return h.MatchToleration(&w) && !contains(want, h) })
		if i < 0 {
			merged = append(merged, w)
			continue
		}
		merged[i] = w
	}
	return merged
}

// Covers says whether a taint is one of those that p stands for.
func (p Taint) Covers(t corev1.Taint) bool {
	return p.Key == t.Key && (p.Value == nil || *p.Value == t.Value) && (p.Effect == "" || p.Effect == t.Effect)
}

// and returns a toleration of the taints that both t tolerates and p stands for, and
// whether there are any.
func (p Taint) and(t corev1.Toleration) (corev1.Toleration, bool) {
	everything := t.Key == "" && t.Operator == corev1.TolerationOpExists
	if p.Key == "" || t.Key != p.Key && !everything {
		return corev1.Toleration{}, false
	}
	if p.Effect != "" && t.Effect != "" && p.Effect != t.Effect {
		return corev1.Toleration{}, false
	}
	common := t
	common.Key = p.Key
	if p.Effect != "" {
		common.Effect = p.Effect
	}
	if p.Value != nil {
		of := corev1.Taint{Key: p.Key, Value: *p.Value, Effect: common.Effect}
		if !common.ToleratesTaint(klog.Background(), &of, true) {
			return corev1.Toleration{}, false
		}
		common.Operator, common.Value = corev1.TolerationOpEqual, *p.Value
	}
	return common, true
}

// String is KEY=VALUE:EFFECT, with * for any.
func (p Taint) String() string {
	value, effect := "*", "*"
	if p.Value != nil {
		value = *p.Value
	}
	if p.Effect != "" {
		effect = string(p.Effect)
	}
	return p.Key + "=" + value + ":" + effect
}
