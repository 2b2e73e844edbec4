package audit

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	psa "k8s.io/pod-security-admission/api"
	"k8s.io/pod-security-admission/policy"

	"sublet.dev/isolation/tenant"
)

// levelFor returns the Pod Security level of a tenant's host pods: where the
// kernel is the host's own, nothing that is not needed.
func levelFor(s tenant.Sandbox) psa.Level {
	if s == tenant.GVisor {
		return psa.LevelBaseline
	}
	return psa.LevelRestricted
}

// podFaults lists what a host pod breaks of a Pod Security level.
func podFaults(evaluator policy.Evaluator, level psa.Level, pod *corev1.Pod) []string {
	var out []string
	lv := psa.LevelVersion{Level: level, Version: psa.LatestVersion()}
	for _, r := range evaluator.EvaluatePod(lv, &pod.ObjectMeta, &pod.Spec) {
		if !r.Allowed {
			out = append(out, fmt.Sprintf("%s: %s", r.ForbiddenReason, r.ForbiddenDetail))
		}
	}
	return out
}
