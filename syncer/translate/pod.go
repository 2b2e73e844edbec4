package translate

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/util/validation"

	"sublet.dev/isolation/policy"
	"sublet.dev/isolation/tenant"
	"sublet.dev/syncer/engine"
)

// hostServiceAccount is the service account of every pod in a host namespace. Its
// token is never mounted.
const hostServiceAccount = "default"

// SuffixTokens and SuffixNode are appended to a pod's name for the host Secret
// with its service account tokens and the host ConfigMap with what is known once
// it has a node. No object of a tenant can have such a name.
const (
	SuffixTokens = ":tokens"
	SuffixNode   = ":node"
)

// Pod returns the host pod of a tenant's, or the reasons for which it must not
// run. The refusals name fields of the tenant's pod.
func (t Translation) Pod(tenantPod *corev1.Pod) (*corev1.Pod, []policy.Refusal) {
	asked := *tenantPod // what is judged is put in the place of two of its fields
	t.judged(&asked.Spec)
	level, offer := policy.LevelFor(t.Tenant.Sandbox), t.plan().Offer
	if found := offer.CheckPod(&asked, level); len(found) > 0 {
		return nil, found
	}
	if found := refusals(&asked.Spec); len(found) > 0 {
		return nil, found
	}
	b := podBuilder{Translation: t, tenantPod: tenantPod}
	hostPod := b.build()
	if found := offer.CheckHostPod(hostPod, level); len(found) > 0 {
		return nil, found
	}
	return hostPod, nil
}

// judged makes of a tenant's pod what isolation/policy judges: without the node of our
// own binding, and with its RuntimeClass's handler in the place of the name.
func (t Translation) judged(spec *corev1.PodSpec) {
	spec.NodeName = ""
	if class := spec.RuntimeClassName; class != nil {
		if handler, ok := t.Lookup.RuntimeHandler(*class); ok {
			spec.RuntimeClassName = &handler
		}
	}
}

// podBuilder builds one host pod.
type podBuilder struct {
	Translation
	tenantPod *corev1.Pod
	// annotations gathers what the downward API of the pod needs.
	annotations map[string]string
}

func (b *podBuilder) build() *corev1.Pod {
	meta := b.hostMeta(b.tenantPod, "")
	b.annotations = meta.Annotations
	for k, v := range tenant.HostLabels(b.tenantPod.Labels) {
		meta.Labels[k] = v
	}
	b.annotations[tenant.AnnotationGeneration] = strconv.FormatInt(b.tenantPod.Generation, 10)
	// In the host pod's own field it would put the host namespace's name into the
	// hosts file. The agent makes the full name; a hostname of one's own has none.
	if from := &b.tenantPod.Spec; from.Subdomain != "" && from.HostnameOverride == nil {
		b.annotations[tenant.AnnotationSubdomain] = from.Subdomain
	}
	if held := heldVolumes(&b.tenantPod.Spec); len(held) > 0 {
		b.annotations[tenant.AnnotationMemoryVolumes] = strings.Join(held, ",")
	}
	hostPod := &corev1.Pod{ObjectMeta: meta, Spec: b.spec()}
	hostPod.Spec.PriorityClassName, _ = b.hostClass(b.tenantPod)
	if rank := RankOf(b.tenantPod).String(); rank != "" && hostPod.Spec.PriorityClassName == "" {
		b.annotations[tenant.AnnotationRank] = rank
	}
	b.markPlacement(hostPod)
	return hostPod
}

// RankOf is a pod's place among its tenant's own, as far as the tenant's API says it.
func RankOf(tenantPod *corev1.Pod) tenant.Rank {
	spec, rank := &tenantPod.Spec, tenant.Rank{}
	if spec.Priority != nil {
		rank.Priority = *spec.Priority
	}
	rank.Patient = spec.PreemptionPolicy != nil && *spec.PreemptionPolicy == corev1.PreemptNever
	return rank
}

func (b *podBuilder) spec() corev1.PodSpec {
	from, no := b.tenantPod.Spec.DeepCopy(), false
	runtimeClass := b.Tenant.Sandbox.RuntimeClass()
	spec := corev1.PodSpec{
		Volumes:                       b.volumes(from.Volumes),
		InitContainers:                b.containers(from.InitContainers),
		Containers:                    b.containers(from.Containers),
		RestartPolicy:                 from.RestartPolicy,
		TerminationGracePeriodSeconds: from.TerminationGracePeriodSeconds,
		ActiveDeadlineSeconds:         from.ActiveDeadlineSeconds,
		DNSPolicy:                     corev1.DNSNone,
		DNSConfig:                     b.dns(b.tenantPod.Namespace, from),
		NodeSelector:                  b.nodeSelector(from.NodeSelector),
		ServiceAccountName:            hostServiceAccount,
		AutomountServiceAccountToken:  &no,
		ShareProcessNamespace:         from.ShareProcessNamespace,
		SecurityContext:               podSecurity(from.SecurityContext),
		Affinity:                      b.affinity(from.Affinity, from.NodeSelector),
		Tolerations:                   policy.Tolerations(from.Tolerations, b.plan().Tolerations),
		HostAliases:                   from.HostAliases,
		RuntimeClassName:              &runtimeClass,
		EnableServiceLinks:            &no,
		TopologySpreadConstraints:     b.spread(from.TopologySpreadConstraints),
		Resources:                     from.Resources,
	}
	if b.Tenant.Sandbox == tenant.RuncUserNS {
		spec.HostUsers = &no
	}
	for _, r := range from.ImagePullSecrets {
		spec.ImagePullSecrets = append(spec.ImagePullSecrets, corev1.LocalObjectReference{Name: b.ref(r.Name)})
	}
	spec.Hostname, spec.HostnameOverride = b.hostname(from)
	policy.Harden(&spec, policy.LevelFor(b.Tenant.Sandbox))
	return spec
}

// ref returns the host's name of an object in the pod's namespace.
func (b *podBuilder) ref(name string) string {
	if name == "" {
		return "" // the API allows an empty name, which names nothing
	}
	return b.hostName(b.tenantPod.Namespace, name)
}

// maxHostname is the length at which the kubelet cuts a hostname off.
const maxHostname = 63

// hostname returns the hostname that the kubelet of a cluster of the tenant's own
// would give the pod: its own choice, or its name; with setHostnameAsFQDN the full
// name. Names that are no label go into the override.
func (b *podBuilder) hostname(from *corev1.PodSpec) (label string, override *string) {
	if from.HostnameOverride != nil {
		return "", from.HostnameOverride
	}
	name := b.tenantPod.Name
	if from.Hostname != "" {
		name = from.Hostname
	}
	if len(name) > maxHostname {
		name = strings.TrimRight(name[:maxHostname], "-.")
	}
	if from.SetHostnameAsFQDN != nil && *from.SetHostnameAsFQDN && from.Subdomain != "" {
		name = fmt.Sprintf("%s.%s.%s.svc.%s", name, from.Subdomain, b.tenantPod.Namespace, tenant.ClusterDomain)
	}
	if len(validation.IsDNS1123Label(name)) > 0 {
		return "", &name
	}
	return name, nil
}

// podSecurity adds the sandbox's default to what the pod asks for.
func podSecurity(from *corev1.PodSecurityContext) *corev1.PodSecurityContext {
	to := &corev1.PodSecurityContext{}
	if from != nil {
		to.RunAsUser, to.RunAsGroup, to.RunAsNonRoot = from.RunAsUser, from.RunAsGroup, from.RunAsNonRoot
		to.SupplementalGroups, to.SupplementalGroupsPolicy = from.SupplementalGroups, from.SupplementalGroupsPolicy
		to.FSGroup, to.FSGroupChangePolicy = from.FSGroup, from.FSGroupChangePolicy
		to.Sysctls, to.AppArmorProfile, to.SeccompProfile = from.Sysctls, from.AppArmorProfile, from.SeccompProfile
	}
	if to.SeccompProfile == nil {
		to.SeccompProfile = &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault}
	}
	return to
}

// MergePod is the Merge of host pods: the little of a pod that may change in place. One
// that was not placed yet is made anew when it is wanted on other nodes, or by another
// PriorityClass.
func MergePod(have, want *corev1.Pod) (*corev1.Pod, engine.Difference) {
	merged, meta := *have, want.ObjectMeta // a copy of have is made if something has changed
	if !keepPlacement(have, &meta) {
		return have.DeepCopy(), engine.Immutable
	}
	if have.Spec.PriorityClassName != want.Spec.PriorityClassName {
		keepRank(have, &meta)
	}
	changed := mergeMeta(&merged.ObjectMeta, meta)
	changed = mergeImages(&merged.Spec.Containers, want.Spec.Containers) || changed
	changed = mergeImages(&merged.Spec.InitContainers, want.Spec.InitContainers) || changed
	changed = set(&merged.Spec.Tolerations, policy.MergeTolerations(have.Spec.Tolerations, want.Spec.Tolerations)) || changed
	if want.Spec.ActiveDeadlineSeconds != nil {
		changed = set(&merged.Spec.ActiveDeadlineSeconds, want.Spec.ActiveDeadlineSeconds) || changed
	}
	if !changed {
		return have, engine.Same
	}
	return merged.DeepCopy(), engine.Changed
}

// mergeImages puts a list with the images of want in the place of have, if they differ.
func mergeImages(have *[]corev1.Container, want []corev1.Container) bool {
	changed := false
	for i := range min(len(*have), len(want)) {
		if (*have)[i].Image == want[i].Image {
			continue
		}
		if !changed {
			*have, changed = slices.Clone(*have), true
		}
		(*have)[i].Image = want[i].Image
	}
	return changed
}

// EphemeralContainers returns the host pod with the ephemeral containers that the
// tenant's has and it has not, and whether there are any. A pod with a refused one
// stays as it is.
func (t Translation) EphemeralContainers(tenantPod, hostPod *corev1.Pod) (*corev1.Pod, bool) {
	have := len(hostPod.Spec.EphemeralContainers)
	if len(tenantPod.Spec.EphemeralContainers) <= have || len(refusals(&tenantPod.Spec)) > 0 {
		return hostPod, false
	}
	b := podBuilder{Translation: t, tenantPod: tenantPod}
	fresh := b.build()
	for _, e := range tenantPod.DeepCopy().Spec.EphemeralContainers {
		c := b.container(corev1.Container(e.EphemeralContainerCommon))
		fresh.Spec.EphemeralContainers = append(fresh.Spec.EphemeralContainers, corev1.EphemeralContainer{
			EphemeralContainerCommon: corev1.EphemeralContainerCommon(c), TargetContainerName: e.TargetContainerName,
		})
	}
	level := policy.LevelFor(t.Tenant.Sandbox)
	policy.Harden(&fresh.Spec, level)
	if len(t.plan().CheckHostPod(fresh, level)) > 0 {
		return hostPod, false
	}
	merged := hostPod.DeepCopy()
	merged.Spec.EphemeralContainers = append(merged.Spec.EphemeralContainers, fresh.Spec.EphemeralContainers[have:]...)
	return merged, true
}

// Resize returns the host pod with the tenant's resources, and whether that
// changed any.
func Resize(tenantPod, hostPod *corev1.Pod) (*corev1.Pod, bool) {
	if !resized(hostPod.Spec.Containers, tenantPod.Spec.Containers) && !resized(hostPod.Spec.InitContainers, tenantPod.Spec.InitContainers) &&
		equality.Semantic.DeepEqual(hostPod.Spec.Resources, tenantPod.Spec.Resources) {
		return hostPod, false
	}
	merged := hostPod.DeepCopy()
	changed := resizeAll(merged.Spec.Containers, tenantPod.Spec.Containers)
	changed = resizeAll(merged.Spec.InitContainers, tenantPod.Spec.InitContainers) || changed
	if !equality.Semantic.DeepEqual(merged.Spec.Resources, tenantPod.Spec.Resources) {
		merged.Spec.Resources, changed = tenantPod.Spec.Resources.DeepCopy(), true
	}
	return merged, changed
}

// resized says whether resizeAll would change anything.
func resized(host, wanted []corev1.Container) bool {
	for i := range min(len(host), len(wanted)) {
		if !equality.Semantic.DeepEqual(host[i].Resources, amounts(wanted[i].Resources)) {
			return true
		}
	}
	return false
}

// amounts are what of a container's resources there is on the host.
func amounts(r corev1.ResourceRequirements) corev1.ResourceRequirements {
	return corev1.ResourceRequirements{Limits: r.Limits, Requests: r.Requests}
}

func resizeAll(host, wanted []corev1.Container) bool {
	changed := false
	for i := range min(len(host), len(wanted)) {
		changed = set(&host[i].Resources, amounts(*wanted[i].Resources.DeepCopy())) || changed
	}
	return changed
}
