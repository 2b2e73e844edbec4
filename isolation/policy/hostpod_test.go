package policy_test

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"sublet.dev/isolation/policy"
	"sublet.dev/isolation/tenant"
)

func TestCheckHostPodAllowsSyncedPod(t *testing.T) {
	for _, s := range tenant.Sandboxes() {
		pod := hostPod(s)
		if r := policy.CheckHostPod(pod, policy.LevelFor(s)); len(r) > 0 {
			t.Errorf("%s: %v", s, r)
		}
		for _, key := range tenant.Keys() {
			if pod.Annotations[key] == "" {
				pod.Annotations[key] = "x"
			}
		}
		pod.Annotations[tenant.AnnotationField+"0123456789abcdef"] = "x"
		if r := policy.CheckHostPod(pod, policy.LevelFor(s)); len(r) > 0 {
			t.Errorf("%s, with every key: %v", s, r)
		}
		all := corev1.ResourceList{"cpu": resource.MustParse("1"), "memory": resource.MustParse("1Gi"), "ephemeral-storage": resource.MustParse("1Gi")}
		pod.Spec.Containers[0].Resources = corev1.ResourceRequirements{Limits: all, Requests: all}
		pod.UID, pod.Spec.NodeName, pod.Spec.ServiceAccountName = "u", "n1", "default"
		pod.Spec.SchedulerName, pod.Spec.Priority = "default-scheduler", ptr.To[int32](0)
		pod.Labels[corev1.LabelTopologyZone] = "z"
		if r := policy.CheckHostPod(pod, policy.LevelFor(s)); len(r) > 0 {
			t.Errorf("%s, running: %v", s, r)
		}
	}
}

func TestCheckHostPodRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		rule, field string
		change      func(p *corev1.Pod)
	}{
		"no class":          {"runtime-class", "spec.runtimeClassName", func(p *corev1.Pod) { p.Spec.RuntimeClassName = nil }},
		"another class":     {"runtime-class", "spec.runtimeClassName", func(p *corev1.Pod) { p.Spec.RuntimeClassName = ptr.To("runc") }},
		"no owner":          {"host-marks", "metadata.labels", func(p *corev1.Pod) { delete(p.Labels, tenant.LabelTenant) }},
		"foreign label":     {"host-marks", "metadata.labels[app]", func(p *corev1.Pod) { p.Labels["app"] = "web" }},
		"look-alike label":  {"host-marks", "metadata.labels[xsublet.dev/a]", func(p *corev1.Pod) { p.Labels["xsublet.dev/a"] = "" }},
		"key below":         {"host-marks", "metadata.labels[pcns.sublet.dev/tenant]", func(p *corev1.Pod) { p.Labels["pcns.sublet.dev/tenant"] = "t2" }},
		"key not hashed":    {"host-marks", "metadata.labels[label.sublet.dev/app]", func(p *corev1.Pod) { p.Labels["label.sublet.dev/app"] = "web" }},
		"unknown key":       {"host-marks", "metadata.labels[sublet.dev/x]", func(p *corev1.Pod) { p.Labels["sublet.dev/x"] = "" }},
		"annotation below":  {"host-marks", "metadata.annotations[pcsa.sublet.dev/tenant]", func(p *corev1.Pod) { p.Annotations["pcsa.sublet.dev/tenant"] = "t2" }},
		"host's, misplaced": {"host-marks", "metadata.annotations[topology.kubernetes.io/zone]", func(p *corev1.Pod) { p.Annotations[corev1.LabelTopologyZone] = "z" }},
		"annotation":        {"host-marks", "metadata.annotations[cni.projectcalico.org/ipAddrs]", func(p *corev1.Pod) { p.Annotations["cni.projectcalico.org/ipAddrs"] = "x" }},
		"owner reference":   {"host-marks", "metadata.ownerReferences", func(p *corev1.Pod) { p.OwnerReferences = []metav1.OwnerReference{{}} }},
		"token":             {"host-token", "spec.automountServiceAccountToken", func(p *corev1.Pod) { p.Spec.AutomountServiceAccountToken = nil }},
		"service account":   {"host-token", "spec.serviceAccountName", func(p *corev1.Pod) { p.Spec.ServiceAccountName = "admin" }},
		"projected token":   {"host-token", "spec.volumes[4].projected.sources[0].serviceAccountToken", func(p *corev1.Pod) { p.Spec.Volumes = plainPod().Spec.Volumes }},
		"projected certificate": {"host-certificate", "spec.volumes[4].projected.sources[0].podCertificate", func(p *corev1.Pod) {
			p.Spec.Volumes = plainPod().Spec.Volumes
			p.Spec.Volumes[4].Projected.Sources[0].ServiceAccountToken, p.Spec.Volumes[4].Projected.Sources[0].PodCertificate = nil, &corev1.PodCertificateProjection{}
		}},
		"projected trust": {"host-trust", "spec.volumes[4].projected.sources[0].clusterTrustBundle", func(p *corev1.Pod) {
			p.Spec.Volumes = plainPod().Spec.Volumes
			p.Spec.Volumes[4].Projected.Sources[0].ServiceAccountToken, p.Spec.Volumes[4].Projected.Sources[0].ClusterTrustBundle = nil, &corev1.ClusterTrustBundleProjection{}
		}},
		"node chosen":       {"node-name", "spec.nodeName", func(p *corev1.Pod) { p.Spec.NodeName = "n1" }},
		"scheduler":         {"scheduler", "spec.schedulerName", func(p *corev1.Pod) { p.Spec.SchedulerName = "x" }},
		"class of priority": {"priority", "spec.priorityClassName", func(p *corev1.Pod) { p.Spec.PriorityClassName = "mine" }},
		"class of the node": {"priority", "spec.priorityClassName", func(p *corev1.Pod) { p.Spec.PriorityClassName = "system-node-critical" }},
		"priority":          {"priority", "spec.priority", func(p *corev1.Pod) { p.Spec.Priority = ptr.To[int32](1) }},
		"device": {"resources", "spec.containers[0].resources.limits", func(p *corev1.Pod) {
			p.Spec.Containers[0].Resources.Limits = corev1.ResourceList{"memory": resource.MustParse("1Gi"), "nvidia.com/gpu": resource.MustParse("1")}
		}},
		"device, asked for first": {"resources", "spec.initContainers[0].resources.requests", func(p *corev1.Pod) {
			p.Spec.InitContainers[0].Resources.Requests = corev1.ResourceList{"example.com/fpga": resource.MustParse("1")}
		}},
		"huge pages": {"resources", "spec.resources.limits", func(p *corev1.Pod) {
			p.Spec.Resources = &corev1.ResourceRequirements{Limits: corev1.ResourceList{"hugepages-2Mi": resource.MustParse("2Mi")}}
		}},
		"volume of huge pages": {"resources", "spec.volumes[0].emptyDir.medium", func(p *corev1.Pod) { p.Spec.Volumes[0].EmptyDir.Medium = "HugePages-2Mi" }},
		"host path":            {"host-path", "spec.volumes[0].hostPath", func(p *corev1.Pod) { p.Spec.Volumes[0].HostPath = &corev1.HostPathVolumeSource{} }},
	} {
		for _, s := range tenant.Sandboxes() {
			pod := hostPod(s)
			c.change(pod)
			wantRefusal(t, name, policy.CheckHostPod(pod, policy.LevelFor(s)), c.rule, c.field)
		}
	}
	pod := hostPod(tenant.RuncUserNS)
	pod.Spec.HostUsers = nil
	wantRefusal(t, "user namespace", policy.CheckHostPod(pod, policy.Restricted), "host-users", "spec.hostUsers")
}

// On the host a pod has a PriorityClass of the plan, whose priority the host says, or none.
func TestOfferedPriority(t *testing.T) {
	offer := policy.Offer{PriorityClasses: []string{"gold", "system-node-critical"}}
	for class, allowed := range map[string]bool{"": true, "gold": true, "golden": false, "mine": false, "system-node-critical": false} {
		for _, s := range tenant.Sandboxes() {
			pod := hostPod(s)
			pod.Spec.PriorityClassName = class
			if r := offer.CheckHostPod(pod, policy.LevelFor(s)); (len(r) == 0) != allowed || !allowed && r[0].Rule != "priority" {
				t.Errorf("%s, %q: %v", s, class, policy.Err(r))
			}
			pod.UID, pod.Spec.NodeName, pod.Spec.Priority = "u", "n1", ptr.To[int32](1000) // as the host made it
			if r := offer.CheckHostPod(pod, policy.LevelFor(s)); (len(r) == 0) != (class == "gold") {
				t.Errorf("%s, %q, running: %v", s, class, policy.Err(r))
			}
		}
	}
	pod := plainPod()
	for class, allowed := range map[string]bool{"gold": true, "mine": true, "system-node-critical": false} {
		pod.Spec.PriorityClassName = class // whose it is, the tenant's own API has seen to
		if r := offer.CheckPod(pod, policy.Baseline); (len(r) == 0) != allowed || !allowed && r[0].Rule != "priority" {
			t.Errorf("the tenant's pod of %q: %v", class, policy.Err(r))
		}
	}
}
