package idle

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/klog/v2"
)

// evictions: upstream's taint eviction controller takes a pod off a node with a taint
// NoExecute when the seconds for which the pod tolerates that are over. It counts them
// from when it saw the taint, and again from zero when it is started anew, so a tenant
// with such a pod stays awake.
func evictions(nodes []corev1.Node, pods []corev1.Pod) Verdict {
	taints := map[string][]corev1.Taint{}
	for i := range nodes {
		for _, t := range nodes[i].Spec.Taints {
			if t.Effect == corev1.TaintEffectNoExecute {
				taints[nodes[i].Name] = append(taints[nodes[i].Name], t)
			}
		}
	}
	for i := range pods {
		if of := taints[pods[i].Spec.NodeName]; len(of) > 0 && evicted(&pods[i], of) {
			return busy("pod", &pods[i], "will be evicted from its node")
		}
	}
	return Verdict{}
}

// evicted says whether the controller waits to evict a pod from a node with those
// taints: of the tolerations of a taint it takes the first.
func evicted(p *corev1.Pod, taints []corev1.Taint) bool {
	for i := range taints {
		first := slices.IndexFunc(p.Spec.Tolerations, func(t corev1.Toleration) bool {
			return t.ToleratesTaint(klog.Background(), &taints[i], true)
		})
		if first < 0 || p.Spec.Tolerations[first].TolerationSeconds != nil {
			return true
		}
	}
	return false
}
