package policy

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"sublet.dev/isolation/tenant"
)

// hostOnly applies the rules for a pod on the host.
func (c *check) hostOnly(hostPod *corev1.Pod, sandbox tenant.Sandbox) {
	c.hostKeys(hostPod)
	c.hostSandbox(&hostPod.Spec, sandbox)
	c.hostIdentity(hostPod)
	c.hostPlacement(hostPod)
	c.refusals = append(c.refusals, CheckResources(&hostPod.Spec)...)
	for i, v := range hostPod.Spec.Volumes {
		if v.Ephemeral != nil {
			c.refuse("host-ephemeral", fmt.Sprintf("spec.volumes[%d].ephemeral", i), "the claim is the tenant's own to make: the host's pod mounts it by name")
		}
		if v.Projected == nil {
			continue
		}
		for j, s := range v.Projected.Sources {
			c.projected(fmt.Sprintf("spec.volumes[%d].projected.sources[%d]", i, j), s)
		}
	}
}

// hostKeys refuses keys on the host that are not ours: controllers and plugins
// of the host obey many keys, so a tenant's must never get there.
func (c *check) hostKeys(hostObject metav1.Object) {
	if hostObject.GetLabels()[tenant.LabelTenant] == "" {
		c.refuse("host-marks", "metadata.labels", "the label %s is missing: the object belongs to nobody", tenant.LabelTenant)
	}
	for key := range hostObject.GetLabels() {
		if !tenant.IsKey(key) && !addedByHost(key) {
			c.refuse("host-marks", "metadata.labels["+key+"]", "only Sublet's own keys may stand on the host's objects")
		}
	}
	for key := range hostObject.GetAnnotations() {
		if !tenant.IsKey(key) {
			c.refuse("host-marks", "metadata.annotations["+key+"]", "only Sublet's own keys may stand on the host's objects")
		}
	}
	if len(hostObject.GetOwnerReferences()) > 0 {
		c.refuse("host-marks", "metadata.ownerReferences", "a tenant's object must have no owner on the host")
	}
}

// addedByHost says whether the host's API server itself puts the label on pods:
// admission plugin PodTopologyLabels, when a pod is bound.
func addedByHost(key string) bool {
	return key == corev1.LabelTopologyZone || key == corev1.LabelTopologyRegion
}

// hostSandbox demands the forced sandbox, by name.
func (c *check) hostSandbox(spec *corev1.PodSpec, sandbox tenant.Sandbox) {
	if class := spec.RuntimeClassName; class == nil || *class != sandbox.RuntimeClass() {
		c.refuse("runtime-class", "spec.runtimeClassName", "the pod must run in %q", sandbox.RuntimeClass())
	}
	if inUserNS := spec.HostUsers != nil && !*spec.HostUsers; sandbox == tenant.RuncUserNS && !inUserNS {
		c.refuse("host-users", "spec.hostUsers", "the pod must have a user namespace of its own (hostUsers: false)")
	}
}

// hostIdentity demands that the pod is nobody at the host's API.
func (c *check) hostIdentity(hostPod *corev1.Pod) {
	spec := &hostPod.Spec
	if spec.AutomountServiceAccountToken == nil || *spec.AutomountServiceAccountToken {
		c.refuse("host-token", "spec.automountServiceAccountToken", "the host's token must not be mounted (false)")
	}
	for _, name := range []string{spec.ServiceAccountName, spec.DeprecatedServiceAccount} {
		if name != "" && name != "default" {
			c.refuse("host-token", "spec.serviceAccountName", "the host's service account must be \"default\", which has no rights, not %q", name)
			return
		}
	}
}

// hostPlacement demands that the host's scheduler places the pod, by no priority but that of
// a class of the plan, which the host makes of the class's name.
func (c *check) hostPlacement(hostPod *corev1.Pod) {
	spec := &hostPod.Spec
	if spec.NodeName != "" && hostPod.UID == "" {
		c.refuse("node-name", "spec.nodeName", "the host's scheduler chooses the node")
	}
	if spec.SchedulerName != "" && spec.SchedulerName != corev1.DefaultSchedulerName {
		c.refuse("scheduler", "spec.schedulerName", "the host's own scheduler places pods, not %q", spec.SchedulerName)
	}
	offered := slices.Contains(c.offer.PriorityClasses, spec.PriorityClassName) && !strings.HasPrefix(spec.PriorityClassName, systemClasses)
	if spec.PriorityClassName != "" && !offered {
		c.refuse("priority", "spec.priorityClassName", "%q is no PriorityClass of the tenant's plan", spec.PriorityClassName)
	}
	if spec.Priority != nil && *spec.Priority > 0 && !offered {
		c.refuse("priority", "spec.priority", "a tenant's pod without a class of its plan must not displace others: 0, not %d", *spec.Priority)
	}
}
