package audit

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"sublet.dev/isolation/policy"
	"sublet.dev/isolation/tenant"
)

// A canary gets nothing that a tenant's pod would not get, else it would try from
// a better place.
func TestCanaryIsAPodLikeATenants(t *testing.T) {
	p := plan{run: "0f3a9c1e", image: DefaultImage, lifetime: time.Minute, expires: when}
	for _, s := range tenant.Sandboxes() {
		vc := acme()
		vc.Spec.Sandbox = string(s)
		for _, at := range []side{prober, peer} {
			pod := p.pod(vc, at)
			for _, r := range policy.CheckHostPod(pod, policy.Restricted) {
				if r.Rule != "runtime-class" && r.Rule != "host-users" || s == tenant.RuncUserNS {
					t.Errorf("%s: %s", s, r)
				}
			}
			for _, r := range policy.CheckHostPod(pod, policy.LevelFor(s)) {
				t.Errorf("%s: %s", s, r)
			}
			if !isCanary(pod) || pod.Namespace != acmeSpace || pod.Labels[LabelAudit] != "0f3a9c1e" {
				t.Errorf("%s: not marked as a canary: %v", s, pod.ObjectMeta)
			}
			for k := range pod.Labels {
				if !ourKey("Pod", k) {
					t.Errorf("label %s", k)
				}
			}
		}
	}
}

func TestIsCanaryNeedsMoreThanALabel(t *testing.T) {
	p := plan{run: "0f3a9c1e", image: DefaultImage, expires: when}
	for name, change := range map[string]func(*corev1.Pod){
		"no run":           func(p *corev1.Pod) { delete(p.Labels, LabelAudit) },
		"another manager":  func(p *corev1.Pod) { p.Labels[tenant.LabelManagedBy] = tenant.ManagedBySyncer },
		"another name":     func(p *corev1.Pod) { p.Name = "web" },
		"another program":  func(p *corev1.Pod) { p.Spec.Containers[0].Command[0] = "/bin/sh" },
		"a second program": func(p *corev1.Pod) { p.Spec.Containers = append(p.Spec.Containers, corev1.Container{}) },
		"a debugger":       func(p *corev1.Pod) { p.Spec.EphemeralContainers = []corev1.EphemeralContainer{{}} },
		"another image":    func(p *corev1.Pod) { p.Spec.Containers[0].Image = "example/canary:1" },
		"a volume":         func(p *corev1.Pod) { p.Spec.Volumes = []corev1.Volume{{}} },
	} {
		pod := p.pod(acme(), prober)
		change(pod)
		if isCanary(pod) {
			t.Errorf("%s: taken for a canary", name)
		}
	}
}

func TestExpired(t *testing.T) {
	m := plan{run: "r", expires: when}.meta("x")
	if expired(m, when) || !expired(m, when.Add(time.Second)) {
		t.Error("the time of expiry is not kept")
	}
	delete(m.Labels, tenant.LabelManagedBy)
	if expired(m, when.Add(time.Hour)) {
		t.Error("what no audit made would be removed")
	}
}
