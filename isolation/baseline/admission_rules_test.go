package baseline_test

import (
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/utils/ptr"

	"sublet.dev/api/v1alpha1"
	"sublet.dev/isolation/baseline"
	"sublet.dev/isolation/tenant"
)

// Each rule is broken by what it forbids, wherever a pod has a place for it, and by
// nothing next to that. What breaks one rule breaks no other.
func TestEachRuleOfPods(t *testing.T) {
	tn := acme(tenant.RuncUserNS)
	plan := v1alpha1.PlanSpec{CSIDrivers: []string{"good.csi", "fine.csi"}, ImageRegistries: []string{"good.example"}, PriorityClasses: []string{"gold"},
		Tolerations: []v1alpha1.TaintPattern{{Key: "plan/taint"}}}
	b := compile(t, baseline.Tenant(tn, "cell-0", plan)[0].(*corev1.Namespace))
	list := func(names ...corev1.ResourceName) corev1.ResourceList {
		l := corev1.ResourceList{}
		for _, n := range names {
			l[n] = resource.MustParse("1")
		}
		return l
	}
	shared, device := list("cpu", "memory", "ephemeral-storage"), list("cpu", "example.com/gpu")
	volume := func(v corev1.VolumeSource) func(*corev1.PodSpec) {
		return func(s *corev1.PodSpec) { s.Volumes = append(s.Volumes, corev1.Volume{Name: "last", VolumeSource: v}) }
	}
	projected := func(p ...corev1.VolumeProjection) func(*corev1.PodSpec) {
		return volume(corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: p}})
	}
	plain := []corev1.VolumeProjection{{Secret: &corev1.SecretProjection{}}, {ConfigMap: &corev1.ConfigMapProjection{}}, {DownwardAPI: &corev1.DownwardAPIProjection{}}}
	// container changes one container of each sort in turn.
	type spec = func(*corev1.PodSpec)
	container := func(change func(*corev1.Container)) []spec {
		return []spec{
			func(s *corev1.PodSpec) {
				s.Containers = append(s.Containers, s.Containers[0])
				change(&s.Containers[1])
			},
			func(s *corev1.PodSpec) { s.InitContainers = nil; change(&s.Containers[0]) },
			func(s *corev1.PodSpec) { change(&s.InitContainers[0]) },
		}
	}
	security := func(c *corev1.SecurityContext) []spec {
		return append(container(func(x *corev1.Container) { x.SecurityContext = c }), func(s *corev1.PodSpec) { s.EphemeralContainers[0].SecurityContext = c })
	}
	resources := func(r corev1.ResourceRequirements) []spec {
		return append(container(func(c *corev1.Container) { c.Resources = r }), func(s *corev1.PodSpec) { s.Resources = &r })
	}
	one := func(s ...spec) []spec { return s }
	for _, rule := range []struct {
		message          string
		broken, unbroken []spec
	}{
		{"have a user namespace of their own unless their sandbox is gVisor",
			one(func(s *corev1.PodSpec) { s.HostUsers = nil }, func(s *corev1.PodSpec) { s.HostUsers = ptr.To(true) }), nil},
		{"do not share the host's network, processes or IPC",
			one(func(s *corev1.PodSpec) { s.HostNetwork = true }, func(s *corev1.PodSpec) { s.HostPID = true }, func(s *corev1.PodSpec) { s.HostIPC = true }), nil},
		{"have no volume of the host",
			one(volume(corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{}}), volume(corev1.VolumeSource{NFS: &corev1.NFSVolumeSource{}}), volume(corev1.VolumeSource{}),
				volume(corev1.VolumeSource{Ephemeral: &corev1.EphemeralVolumeSource{}}), volume(corev1.VolumeSource{CSI: &corev1.CSIVolumeSource{Driver: "good.csi,fine.csi"}})),
			one(volume(corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{}}), volume(corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{}}),
				volume(corev1.VolumeSource{DownwardAPI: &corev1.DownwardAPIVolumeSource{}}), volume(corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}),
				volume(corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{}}), volume(corev1.VolumeSource{CSI: &corev1.CSIVolumeSource{Driver: "fine.csi"}}),
				func(s *corev1.PodSpec) { s.Volumes = nil })},
		{"have no credential of the host",
			one(func(s *corev1.PodSpec) { s.AutomountServiceAccountToken = nil }, func(s *corev1.PodSpec) { s.AutomountServiceAccountToken = ptr.To(true) },
				projected(append(slices.Clone(plain), corev1.VolumeProjection{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{}})...),
				projected(append(slices.Clone(plain), corev1.VolumeProjection{ClusterTrustBundle: &corev1.ClusterTrustBundleProjection{}})...),
				projected(append(slices.Clone(plain), corev1.VolumeProjection{PodCertificate: &corev1.PodCertificateProjection{}})...),
				projected(corev1.VolumeProjection{Secret: &corev1.SecretProjection{}, ServiceAccountToken: &corev1.ServiceAccountTokenProjection{}})),
			one(projected(plain...))},
		{"are not privileged",
			append(security(&corev1.SecurityContext{Privileged: ptr.To(true)}), security(&corev1.SecurityContext{ProcMount: ptr.To(corev1.UnmaskedProcMount)})...),
			append(security(&corev1.SecurityContext{Privileged: ptr.To(false), ProcMount: ptr.To(corev1.DefaultProcMount)}), security(nil)...)},
		{"take no port of the node",
			container(func(c *corev1.Container) { c.Ports = []corev1.ContainerPort{{ContainerPort: 1}, {HostPort: 80}} }),
			container(func(c *corev1.Container) { c.Ports = []corev1.ContainerPort{{ContainerPort: 1}, {ContainerPort: 80}} })},
		{"ask for no device and no huge pages of the node",
			append(resources(corev1.ResourceRequirements{Limits: device, Requests: shared}), resources(corev1.ResourceRequirements{Limits: shared, Requests: list("hugepages-2Mi")})...),
			append(resources(corev1.ResourceRequirements{Limits: shared, Requests: shared}), resources(corev1.ResourceRequirements{})...)},
		{"are placed by the scheduler", one(func(s *corev1.PodSpec) { s.NodeName = "n1" }), nil},
		{"have a PriorityClass of their tenant's plan, or none",
			one(func(s *corev1.PodSpec) { s.PriorityClassName = "bronze" }, func(s *corev1.PodSpec) { s.PriorityClassName = "system-node-critical" }),
			one(func(s *corev1.PodSpec) { s.PriorityClassName = "gold" })},
		{"tolerate taints of their tenant's plan alone",
			one(func(s *corev1.PodSpec) {
				s.Tolerations = []corev1.Toleration{{Key: "plan/taint", Operator: "Exists"}, {Key: "other", Operator: "Exists"}}
			}, func(s *corev1.PodSpec) { s.Tolerations = []corev1.Toleration{{Operator: "Exists"}} }),
			one(func(s *corev1.PodSpec) { s.Tolerations = []corev1.Toleration{{Key: "plan/taint", Operator: "Exists"}} })},
		{"have images from the registries of their tenant's plan alone",
			append(container(func(c *corev1.Container) { c.Image = "evil.example/x" }), volume(corev1.VolumeSource{Image: &corev1.ImageVolumeSource{Reference: "evil.example/x"}}),
				func(s *corev1.PodSpec) { s.EphemeralContainers[0].Image = "evil.example/x" }),
			container(func(c *corev1.Container) { c.Image = "good.example/y" })},
	} {
		message := "tenants' pods " + rule.message
		judge := func(change spec) []string {
			pod := imaged(syncedPod(tn))
			change(&pod.Spec)
			return b.all(pod, nil, &user.DefaultInfo{Name: "somebody"}, admission.Create)
		}
		for i, change := range rule.broken {
			if got := judge(change); !slices.Equal(got, []string{message}) {
				t.Errorf("%s, %d: broken are %q", rule.message, i, got)
			}
		}
		for i, change := range append(rule.unbroken, func(*corev1.PodSpec) {}) {
			if got := judge(change); len(got) > 0 {
				t.Errorf("%s, %d: what is allowed breaks %q", rule.message, i, got)
			}
		}
	}
}

// imaged is a pod whose images are from good.example.
func imaged(pod *corev1.Pod) *corev1.Pod {
	for _, c := range [][]corev1.Container{pod.Spec.Containers, pod.Spec.InitContainers} {
		for i := range c {
			c[i].Image = "good.example/x"
		}
	}
	pod.Spec.EphemeralContainers[0].Image = "good.example/x"
	pod.Spec.Volumes[2].Image.Reference = "good.example/x"
	return pod
}

// Marks are those of the tenant, and nobody else's, on a pod that is new and on one that
// is changed. A namespace that does not say what it is for has no pods.
func TestRulesOfMarks(t *testing.T) {
	const keys, mark, sandbox = "tenants' pods carry only Sublet's own keys", "tenants' pods carry their tenant's mark", "tenants' pods run in their tenant's sandbox"
	tn := acme(tenant.GVisor)
	for name, c := range map[string]struct {
		change func(*corev1.Pod, *corev1.Namespace)
		broken []string
	}{
		"nothing":        {func(*corev1.Pod, *corev1.Namespace) {}, nil},
		"no annotations": {func(p *corev1.Pod, _ *corev1.Namespace) { p.Annotations = nil }, nil},
		"a field": {func(p *corev1.Pod, _ *corev1.Namespace) {
			p.Annotations[tenant.AnnotationField+"0123456789abcdef"] = ""
		}, nil},
		"a zone":           {func(p *corev1.Pod, _ *corev1.Namespace) { p.Labels[corev1.LabelTopologyZone] = "z" }, nil},
		"a label":          {func(p *corev1.Pod, _ *corev1.Namespace) { p.Labels["app"] = "x" }, []string{keys}},
		"an annotation":    {func(p *corev1.Pod, _ *corev1.Namespace) { p.Annotations["app"] = "x" }, []string{keys}},
		"a line":           {func(p *corev1.Pod, _ *corev1.Namespace) { p.Labels[tenant.HostLabel("a")+"\n"] = "x" }, []string{keys}},
		"a zone annotated": {func(p *corev1.Pod, _ *corev1.Namespace) { p.Annotations[corev1.LabelTopologyZone] = "z" }, []string{keys}},
		"no labels":        {func(p *corev1.Pod, _ *corev1.Namespace) { p.Labels = nil }, []string{mark}},
		"no mark":          {func(p *corev1.Pod, _ *corev1.Namespace) { delete(p.Labels, tenant.LabelTenant) }, []string{mark}},
		"another's mark":   {func(p *corev1.Pod, _ *corev1.Namespace) { p.Labels[tenant.LabelTenant] = "other" }, []string{mark}},
		"no tenant there":  {func(_ *corev1.Pod, ns *corev1.Namespace) { delete(ns.Labels, tenant.LabelTenant) }, []string{mark}},
		"no sandbox there": {func(_ *corev1.Pod, ns *corev1.Namespace) { delete(ns.Labels, tenant.LabelSandbox) }, []string{sandbox}},
		"half a class": {func(p *corev1.Pod, ns *corev1.Namespace) {
			delete(ns.Labels, tenant.LabelSandbox)
			p.Spec.RuntimeClassName, p.Spec.HostUsers = ptr.To("sublet-"), ptr.To(false)
		}, []string{sandbox}},
		"nothing of a plan there": {func(_ *corev1.Pod, ns *corev1.Namespace) { ns.Annotations = nil }, nil},
	} {
		for _, op := range []admission.Operation{admission.Create, admission.Update} {
			ns, pod := baseline.Tenant(tn, "cell-0", v1alpha1.PlanSpec{})[0].(*corev1.Namespace), syncedPod(tn)
			c.change(pod, ns)
			var was baseline.Object
			if op == admission.Update {
				was = pod
			}
			if got := compile(t, ns).all(pod, was, &user.DefaultInfo{Name: "somebody"}, op); !slices.Equal(got, c.broken) {
				t.Errorf("%s, %s: broken are %q, want %q", name, op, got, c.broken)
			}
		}
	}
}
