package policy

import (
	"fmt"
	"strings"
	"sync"

	corev1 "k8s.io/api/core/v1"
	psaapi "k8s.io/pod-security-admission/api"
	psa "k8s.io/pod-security-admission/policy"
)

// evaluator holds all of upstream's checks. It has no state.
var evaluator = sync.OnceValues(func() (psa.Evaluator, error) {
	return psa.NewEvaluator(psa.DefaultChecks(), nil)
})

// covered maps upstream's names of checks to our rule that says the same with
// the exact field; one of both is enough in an answer.
var covered = map[string]string{
	"host namespaces":         "host-namespaces",
	"hostPath volumes":        "host-path",
	"hostPort":                "host-ports",
	"privileged":              "privileged",
	"procMount":               "proc-mount",
	"probe or lifecycle host": "probe-host",
	"restricted volume types": "volume-type",
}

// podSecurity applies upstream's Pod Security checks of the newest version.
func (c *check) podSecurity(pod *corev1.Pod, l Level) {
	e, err := evaluator()
	if err != nil {
		c.refuse("pod-security", "spec", "the pod can't be judged: %v", err)
		return
	}
	lv := psaapi.LevelVersion{Level: psaapi.LevelRestricted, Version: psaapi.LatestVersion()}
	if l == Baseline {
		lv.Level = psaapi.LevelBaseline
	}
	for _, r := range e.EvaluatePod(lv, &pod.ObjectMeta, &pod.Spec) {
		if r.Allowed || c.refused(covered[r.ForbiddenReason]) {
			continue
		}
		reason := fmt.Sprintf("violates Pod Security %q: %s", l, r.ForbiddenReason)
		if r.ForbiddenDetail != "" {
			reason += " (" + r.ForbiddenDetail + ")"
		}
		c.refuse("pod-security/"+strings.ReplaceAll(r.ForbiddenReason, " ", "-"), "spec", "%s: change the pod accordingly", reason)
	}
}
