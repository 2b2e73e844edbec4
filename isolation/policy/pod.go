package policy

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"sublet.dev/isolation/tenant"
)

// Level is a Pod Security level (https://kubernetes.io/docs/concepts/security/pod-security-standards).
type Level string

// The levels. There is no "privileged".
const (
	// Baseline is for pods whose sandbox has a kernel of its own.
	Baseline Level = "baseline"
	// Restricted is for pods that share the host's kernel.
	Restricted Level = "restricted"
)

// LevelFor returns the level of the pods that run in a sandbox. A sandbox it
// does not know gets the strictest.
func LevelFor(s tenant.Sandbox) Level {
	if s == tenant.GVisor {
		return Baseline
	}
	return Restricted
}

// sandbox returns the sandbox that a level belongs to.
func (l Level) sandbox() tenant.Sandbox {
	if l == Baseline {
		return tenant.GVisor
	}
	return tenant.RuncUserNS
}

// Refusal is a reason why a pod may not run.
type Refusal struct {
	// Rule is the rule's stable id, for example "host-path". Upstream's rules
	// are "pod-security/..." with upstream's name.
	Rule string
	// Field is the path of the offending field, as kubectl explain writes it.
	Field string
	// Reason says what was asked for, why it is refused and what to do.
	Reason string
}

// String returns the refusal as one line.
func (r Refusal) String() string { return fmt.Sprintf("%s: %s [%s]", r.Field, r.Reason, r.Rule) }

// Err joins refusals to one error that a user can act upon; nil when there are
// none.
func Err(refusals []Refusal) error {
	if len(refusals) == 0 {
		return nil
	}
	lines := make([]string, len(refusals))
	for i, r := range refusals {
		lines[i] = r.String()
	}
	return fmt.Errorf("pod refused: %s", strings.Join(lines, "; "))
}

// CheckPod returns every reason why a pod that a tenant wrote may not run at a
// level; none when it may. It judges what the tenant can write: what the syncer
// forces or leaves out on the host (scheduler, tolerations, priority, labels,
// the user namespace) needs no refusal. The pod is not modified.
func CheckPod(tenantPod *corev1.Pod, l Level) []Refusal { return Offer{}.CheckPod(tenantPod, l) }

// Offer is what a plan offers pods beyond what all may have, and where it keeps them to
// less. The zero value is neither.
type Offer struct {
	// CSIDrivers are the drivers whose inline volumes pods may have.
	CSIDrivers []string `json:"csiDrivers,omitempty"`
	// RuntimeClasses are names that stand for the tenant's sandbox.
	RuntimeClasses []string `json:"runtimeClasses,omitempty"`
	// ImageRegistries are where images may come from: registries, or folders in them.
	// Without any they may come from everywhere.
	ImageRegistries []string `json:"imageRegistries,omitempty"`
	// PriorityClasses are the host's that pods may have there.
	PriorityClasses []string `json:"priorityClasses,omitempty"`
}

// CheckPod is [CheckPod] for a tenant whose plan offers o. A RuntimeClass is judged by
// the name of its handler.
func (o Offer) CheckPod(tenantPod *corev1.Pod, l Level) []Refusal {
	c := &check{offer: o}
	c.shared(tenantPod)
	c.tenantOnly(&tenantPod.Spec, l)
	judged := tenantPod
	if l.sandbox() == tenant.RuncUserNS {
		// The syncer puts every pod of this sandbox into a user namespace, which
		// upstream judges differently, and completes it.
		judged = tenantPod.DeepCopy()
		no := false
		judged.Spec.HostUsers = &no
		Harden(&judged.Spec, l)
	}
	c.podSecurity(judged, l)
	return c.refusals
}

// CheckHostPod returns every reason why a pod may not run on the host for a
// tenant whose pods run at level l; none when it may. It holds for the pod that
// the syncer is about to create and for one that runs: a pod without UID has not
// been created yet and must leave to the host what the host decides.
func CheckHostPod(hostPod *corev1.Pod, l Level) []Refusal { return Offer{}.CheckHostPod(hostPod, l) }

// CheckHostPod is [CheckHostPod] for a tenant whose plan offers o.
func (o Offer) CheckHostPod(hostPod *corev1.Pod, l Level) []Refusal {
	c := &check{offer: o}
	c.shared(hostPod)
	c.hostOnly(hostPod, l.sandbox())
	c.podSecurity(hostPod, l)
	return c.refusals
}

// check collects the refusals of one pod.
type check struct {
	offer    Offer
	refusals []Refusal
}

func (c *check) refuse(rule, field, format string, args ...any) {
	c.refusals = append(c.refusals, Refusal{Rule: rule, Field: field, Reason: fmt.Sprintf(format, args...)})
}

// refused says whether a rule already refused something.
func (c *check) refused(rule string) bool {
	for _, r := range c.refusals {
		if r.Rule == rule {
			return true
		}
	}
	return false
}

// shared applies the rules that hold for tenant and host pods alike.
func (c *check) shared(pod *corev1.Pod) {
	spec := &pod.Spec
	c.hostNamespaces(spec)
	c.podContext(spec.SecurityContext)
	c.volumes(spec.Volumes)
	c.images(spec)
	for _, v := range containers(spec) {
		c.container(v.path, v.Container)
	}
	if len(spec.ResourceClaims) > 0 {
		c.refuse("resource-claims", "spec.resourceClaims", "devices of the host are not given to tenants: remove the claims")
	}
	if spec.OS != nil && spec.OS.Name != corev1.Linux {
		c.refuse("os", "spec.os.name", "the nodes run Linux, not %q: remove the field", spec.OS.Name)
	}
	c.undecided("spec", spec, podSpecFields)
}

// hostNamespaces refuses to share the host's network, processes and IPC.
func (c *check) hostNamespaces(spec *corev1.PodSpec) {
	for _, ns := range []struct {
		on          bool
		field, what string
	}{
		{spec.HostNetwork, "spec.hostNetwork", "network would bypass the fence between tenants; use a Service"},
		{spec.HostPID, "spec.hostPID", "processes are other tenants' too; use shareProcessNamespace to share within the pod"},
		{spec.HostIPC, "spec.hostIPC", "shared memory is other tenants' too; use an emptyDir volume with medium Memory"},
	} {
		if ns.on {
			c.refuse("host-namespaces", ns.field, "the host's %s: remove the field", ns.what)
		}
	}
}

// podContext judges the pod's security context. Sysctls, groups and SELinux are
// upstream's to judge.
func (c *check) podContext(sc *corev1.PodSecurityContext) {
	if sc == nil {
		return
	}
	c.profiles("spec.securityContext", sc.SeccompProfile, sc.AppArmorProfile)
	c.undecided("spec.securityContext", sc, podSecurityContextFields)
}

// profiles refuses profiles that lie in files of the node: upstream's baseline
// allows them, but a tenant has no files there, only a provider's own by name.
func (c *check) profiles(field string, seccomp *corev1.SeccompProfile, appArmor *corev1.AppArmorProfile) {
	if seccomp != nil && seccomp.Type == corev1.SeccompProfileTypeLocalhost {
		c.refuse("node-profile", field+".seccompProfile.type", "profiles in files of the node are not offered: use RuntimeDefault")
	}
	if appArmor != nil && appArmor.Type == corev1.AppArmorProfileTypeLocalhost {
		c.refuse("node-profile", field+".appArmorProfile.type", "profiles of the node are not offered: use RuntimeDefault")
	}
}

// systemClasses begins the names of the PriorityClasses of what nodes and the host cannot do
// without. Upstream's API lets nobody make others.
const systemClasses = "system-"

// tenantOnly applies the rules for what a tenant writes.
func (c *check) tenantOnly(spec *corev1.PodSpec, l Level) {
	if spec.NodeName != "" {
		c.refuse("node-name", "spec.nodeName", "pods are placed by the scheduler, a node can't be chosen by name: remove the field (nodeSelector and affinity work)")
	}
	forced := l.sandbox().RuntimeClass()
	if class := spec.RuntimeClassName; class != nil && *class != forced && !slices.Contains(c.offer.RuntimeClasses, *class) {
		c.refuse("runtime-class", "spec.runtimeClassName", "this cluster's pods run in %q and nothing else, not in %q: remove the field", forced, *class)
	}
	if strings.HasPrefix(spec.PriorityClassName, systemClasses) {
		c.refuse("priority", "spec.priorityClassName", "%q is for the provider's own pods: use another PriorityClass or none", spec.PriorityClassName)
	}
	if l == Restricted && spec.HostUsers != nil && *spec.HostUsers {
		c.refuse("host-users", "spec.hostUsers", "pods run in a user namespace of their own: remove the field")
	}
	c.certificates(spec.Volumes)
}

// MaxPodCertificates is how many certificates one pod may ask for: each takes a key,
// which is made with all of a processor that others share.
const MaxPodCertificates = 16

func (c *check) certificates(volumes []corev1.Volume) {
	n := 0
	for _, v := range volumes {
		if v.Projected == nil {
			continue
		}
		for _, s := range v.Projected.Sources {
			if s.PodCertificate != nil {
				n++
			}
		}
	}
	if n > MaxPodCertificates {
		c.refuse("pod-certificates", "spec.volumes", "it asks for %d certificates, %d are offered: let containers share one", n, MaxPodCertificates)
	}
}

// projected refuses sources of a host pod that would hand out the host's credentials.
// In a tenant's pod they are the tenant's own.
func (c *check) projected(field string, s corev1.VolumeProjection) {
	if s.ClusterTrustBundle != nil {
		c.refuse("host-trust", field+".clusterTrustBundle", "the bundles would be the host's: tenants' bundles come in ConfigMaps")
	}
	if s.PodCertificate != nil {
		c.refuse("host-certificate", field+".podCertificate", "the host's API would be asked for it: tenants' certificates come in Secrets")
	}
	if s.ServiceAccountToken != nil {
		c.refuse("host-token", field+".serviceAccountToken", "the token would be valid at the host's API: tenants' tokens come in Secrets")
	}
}
