package audit

import (
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"

	"sublet.dev/api/v1alpha1"
	"sublet.dev/isolation/tenant"
)

const (
	// LabelAudit, on every object that an audit makes, holds the audit's run.
	LabelAudit = tenant.LabelAudit
	// AnnotationExpires holds the time (RFC 3339) after which any audit may
	// remove an object that another one left.
	AnnotationExpires = tenant.AnnotationAuditExpires
	// ManagedByAudit is the value of [tenant.LabelManagedBy] on those objects.
	ManagedByAudit = "audit"

	// DefaultImage is the canary: a static program that tries and tells.
	DefaultImage = tenant.Domain + "/canary:1"
	canaryBinary = "/canary"
	canaryPrefix = "sublet-audit-"
	// canaryPort is where a canary listens, for others to try.
	canaryPort = "8080"
)

// side is the side on which a tenant's two canaries stand: one tries, the other
// is there to be reached. Both listen.
type side string

const (
	prober side = "prober"
	peer   side = "peer"
)

// isCanary says whether a pod is an audit's: it must be one in every respect, so
// that a label alone hides nothing from the checks.
func isCanary(p *corev1.Pod) bool {
	if p.Labels[LabelAudit] == "" || p.Labels[tenant.LabelManagedBy] != ManagedByAudit || !strings.HasPrefix(p.Name, canaryPrefix) {
		return false
	}
	spec := &p.Spec
	return len(spec.Containers) == 1 && len(spec.InitContainers) == 0 && len(spec.EphemeralContainers) == 0 && len(spec.Volumes) == 0 &&
		strings.HasPrefix(spec.Containers[0].Image, tenant.Domain+"/") && len(spec.Containers[0].Command) > 0 && spec.Containers[0].Command[0] == canaryBinary
}

// plan is what all canaries of a run have in common.
type plan struct {
	run   string
	image string
	// lifetime is when the kubelet stops a canary whose audit did not.
	lifetime time.Duration
	expires  time.Time
}

func (p plan) meta(name string) metav1.ObjectMeta {
	return metav1.ObjectMeta{
		Name:        name,
		Labels:      map[string]string{LabelAudit: p.run, tenant.LabelManagedBy: ManagedByAudit},
		Annotations: map[string]string{AnnotationExpires: p.expires.UTC().Format(time.RFC3339)},
	}
}

// pod returns a canary for a tenant. It asks for less than any tenant's pod may
// (Pod Security level restricted), runs in the tenant's sandbox and asks the
// tenant's DNS.
func (p plan) pod(vc v1alpha1.VirtualCluster, s side) *corev1.Pod {
	meta := p.meta(canaryPrefix + p.run + "-" + string(s))
	meta.Namespace = vc.Status.Namespace
	meta.Labels[tenant.LabelTenant] = string(vc.UID)
	sandbox := tenant.Sandbox(vc.Spec.Sandbox)
	pod := &corev1.Pod{ObjectMeta: meta, Spec: corev1.PodSpec{
		RuntimeClassName:              ptr.To(sandbox.RuntimeClass()),
		RestartPolicy:                 corev1.RestartPolicyNever,
		ActiveDeadlineSeconds:         ptr.To(int64(p.lifetime.Seconds())),
		TerminationGracePeriodSeconds: ptr.To[int64](0),
		AutomountServiceAccountToken:  ptr.To(false),
		EnableServiceLinks:            ptr.To(false),
		SecurityContext: &corev1.PodSecurityContext{
			RunAsNonRoot: ptr.To(true), RunAsUser: ptr.To[int64](65534), RunAsGroup: ptr.To[int64](65534),
			SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
		},
		Containers: []corev1.Container{{
			Name: "canary", Image: p.image, ImagePullPolicy: corev1.PullNever,
			Command:   []string{canaryBinary, "serve", ":" + canaryPort},
			Resources: canaryResources(),
			// Ready means listening: else nothing could be reached yet.
			ReadinessProbe: &corev1.Probe{PeriodSeconds: 1, ProbeHandler: corev1.ProbeHandler{TCPSocket: &corev1.TCPSocketAction{Port: intstr.Parse(canaryPort)}}},
			SecurityContext: &corev1.SecurityContext{
				AllowPrivilegeEscalation: ptr.To(false), ReadOnlyRootFilesystem: ptr.To(true),
				Capabilities: &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
			},
		}},
	}}
	if sandbox == tenant.RuncUserNS {
		pod.Spec.HostUsers = ptr.To(false)
	}
	if cidr, err := slice(vc); err == nil {
		pod.Spec.DNSPolicy = corev1.DNSNone
		pod.Spec.DNSConfig = &corev1.PodDNSConfig{Nameservers: []string{tenant.DNSAddress(cidr).String()}}
	}
	return pod
}

// canaryResources is small, and set so that any quota counts it. The memory is
// for the sandbox around the canary, too.
func canaryResources() corev1.ResourceRequirements {
	list := corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("50m"), corev1.ResourceMemory: resource.MustParse("128Mi")}
	limits := corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("500m"), corev1.ResourceMemory: resource.MustParse("128Mi")}
	return corev1.ResourceRequirements{Requests: list, Limits: limits}
}

// stranger returns the tenant of the run's own, that stands for any other
// tenant: no audit touches a real one on behalf of another.
func (p plan) stranger(sandbox string) *v1alpha1.VirtualCluster {
	return &v1alpha1.VirtualCluster{ObjectMeta: p.meta("audit-" + p.run), Spec: v1alpha1.VirtualClusterSpec{Sandbox: sandbox}}
}

// expired says whether what an audit left may be removed by another one.
func expired(meta metav1.ObjectMeta, now time.Time) bool {
	if meta.Labels[LabelAudit] == "" || meta.Labels[tenant.LabelManagedBy] != ManagedByAudit {
		return false
	}
	at, err := time.Parse(time.RFC3339, meta.Annotations[AnnotationExpires])
	return err == nil && now.After(at)
}
