package policy

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"
)

// allCapabilities is what Pod Security wants dropped at the level restricted.
const allCapabilities corev1.Capability = "ALL"

// Harden completes a pod for a level: what restricted wants said and the pod leaves
// open becomes what restricted wants, so that a pod which says nothing runs, with
// less. What the pod says itself stays, and is refused if the level does not have it:
// nobody gets less than was asked for without being told. The spec is modified, its
// ephemeral containers too; at baseline there is nothing to complete.
func Harden(spec *corev1.PodSpec, l Level) {
	if l == Baseline {
		return
	}
	if spec.SecurityContext == nil {
		spec.SecurityContext = &corev1.PodSecurityContext{}
	}
	if spec.SecurityContext.SeccompProfile == nil {
		spec.SecurityContext.SeccompProfile = &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault}
	}
	for _, c := range containers(spec) {
		if c.SecurityContext == nil {
			c.SecurityContext = &corev1.SecurityContext{}
		}
		hardenContainer(c.SecurityContext)
	}
}

// hardenContainer drops the capabilities that were not added by name. Which may be
// added, Pod Security says.
func hardenContainer(sc *corev1.SecurityContext) {
	if sc.AllowPrivilegeEscalation == nil {
		sc.AllowPrivilegeEscalation = ptr.To(false)
	}
	if sc.Capabilities == nil {
		sc.Capabilities = &corev1.Capabilities{}
	}
	if !slices.Contains(sc.Capabilities.Drop, allCapabilities) {
		sc.Capabilities.Drop = []corev1.Capability{allCapabilities}
	}
}
