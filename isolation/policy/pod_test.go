package policy_test

import (
	"reflect"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"

	"sublet.dev/isolation/policy"
	"sublet.dev/isolation/policy/policytest"
	"sublet.dev/isolation/tenant"
)

// plainPod is what every ordinary pod looks like: the positive control of all
// refusals, at both levels.
func plainPod() *corev1.Pod {
	sc := func() *corev1.SecurityContext {
		return &corev1.SecurityContext{
			AllowPrivilegeEscalation: ptr.To(false),
			RunAsNonRoot:             ptr.To(true),
			Capabilities:             &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
			SeccompProfile:           &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
		}
	}
	get := &corev1.HTTPGetAction{Path: "/healthz", Port: intstr.FromInt32(8080)}
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "web", Namespace: "default"},
		Spec: corev1.PodSpec{
			InitContainers: []corev1.Container{{Name: "init", Image: "app", SecurityContext: sc()}},
			Containers: []corev1.Container{{
				Name: "web", Image: "app", SecurityContext: sc(),
				Ports:         []corev1.ContainerPort{{ContainerPort: 8080}},
				LivenessProbe: &corev1.Probe{ProbeHandler: corev1.ProbeHandler{HTTPGet: get}},
				Lifecycle:     &corev1.Lifecycle{PreStop: &corev1.LifecycleHandler{HTTPGet: get}},
				Resources:     corev1.ResourceRequirements{Limits: corev1.ResourceList{"memory": resource.MustParse("64Mi")}},
			}},
			EphemeralContainers: []corev1.EphemeralContainer{{EphemeralContainerCommon: corev1.EphemeralContainerCommon{Name: "debug", Image: "app", SecurityContext: sc()}}},
			Volumes: []corev1.Volume{
				{Name: "scratch", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}},
				{Name: "config", VolumeSource: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{}}},
				{Name: "secret", VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{}}},
				{Name: "me", VolumeSource: corev1.VolumeSource{DownwardAPI: &corev1.DownwardAPIVolumeSource{}}},
				{Name: "token", VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{
					{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{Path: "token"}}}}}},
			},
			ShareProcessNamespace: ptr.To(true),
			HostAliases:           []corev1.HostAlias{{IP: "127.0.0.1", Hostnames: []string{"me"}}},
			SchedulerName:         "another",
			Tolerations:           []corev1.Toleration{{Operator: corev1.TolerationOpExists}},
		},
	}
}

// hostPod is what the syncer makes of a pod at a level: the positive control of
// CheckHostPod.
func hostPod(s tenant.Sandbox) *corev1.Pod {
	pod := plainPod()
	pod.Namespace = "sublet-acme-0123456789abcdef"
	o := tenant.Owner{Tenant: "t1", Name: tenant.Name{Namespace: "default", Name: "web"}, UID: "u1"}
	pod.Labels, pod.Annotations = o.Marks()
	pod.Labels[tenant.HostLabel("app")] = "web"
	pod.Spec.Volumes = pod.Spec.Volumes[:4]
	pod.Spec.SchedulerName = ""
	pod.Spec.AutomountServiceAccountToken = ptr.To(false)
	pod.Spec.RuntimeClassName = ptr.To(s.RuntimeClass())
	if s == tenant.RuncUserNS {
		pod.Spec.HostUsers = ptr.To(false)
	}
	return pod
}

func levels() []policy.Level { return []policy.Level{policy.Baseline, policy.Restricted} }

func TestLevelFor(t *testing.T) {
	for s, want := range map[tenant.Sandbox]policy.Level{tenant.GVisor: policy.Baseline, tenant.RuncUserNS: policy.Restricted, "new": policy.Restricted} {
		if got := policy.LevelFor(s); got != want {
			t.Errorf("LevelFor(%q) = %q, want %q", s, got, want)
		}
	}
}

func TestCheckPodAllowsPlainPod(t *testing.T) {
	for _, l := range levels() {
		if r := policy.CheckPod(plainPod(), l); len(r) > 0 {
			t.Errorf("%s: %v", l, policy.Err(r))
		}
	}
	if policy.Err(nil) != nil {
		t.Error("no refusals made an error")
	}
}

func TestCheckPodAllowsImages(t *testing.T) {
	for _, l := range levels() {
		pod := plainPod()
		pod.Spec.Volumes = append(pod.Spec.Volumes, corev1.Volume{Name: "files", VolumeSource: corev1.VolumeSource{Image: &corev1.ImageVolumeSource{Reference: "app:1"}}})
		if r := policy.CheckPod(pod, l); len(r) > 0 {
			t.Errorf("%s: %v", l, policy.Err(r))
		}
	}
}

// refusals at every level: what turns the plain pod into a refused one.
var refusals = map[string]struct {
	rule, field string
	change      func(s *corev1.PodSpec)
}{
	"hostNetwork":   {"host-namespaces", "spec.hostNetwork", func(s *corev1.PodSpec) { s.HostNetwork = true }},
	"hostPID":       {"host-namespaces", "spec.hostPID", func(s *corev1.PodSpec) { s.HostPID = true }},
	"hostIPC":       {"host-namespaces", "spec.hostIPC", func(s *corev1.PodSpec) { s.HostIPC = true }},
	"nodeName":      {"node-name", "spec.nodeName", func(s *corev1.PodSpec) { s.NodeName = "n1" }},
	"runtime class": {"runtime-class", "spec.runtimeClassName", func(s *corev1.PodSpec) { s.RuntimeClassName = ptr.To("runc") }},
	"priority":      {"priority", "spec.priorityClassName", func(s *corev1.PodSpec) { s.PriorityClassName = "system-node-critical" }},
	"claims":        {"resource-claims", "spec.resourceClaims", func(s *corev1.PodSpec) { s.ResourceClaims = []corev1.PodResourceClaim{{Name: "gpu"}} }},
	"windows":       {"os", "spec.os.name", func(s *corev1.PodSpec) { s.OS = &corev1.PodOS{Name: corev1.Windows} }},
	"hostPath": {"host-path", "spec.volumes[5].hostPath", func(s *corev1.PodSpec) {
		s.Volumes = append(s.Volumes, corev1.Volume{VolumeSource: corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: "/"}}})
	}},
	"csi": {"volume-type", "spec.volumes[0].csi", func(s *corev1.PodSpec) {
		s.Volumes[0].VolumeSource = corev1.VolumeSource{CSI: &corev1.CSIVolumeSource{Driver: "x"}}
	}},
	"two sources in one volume": {"host-path", "spec.volumes[0].hostPath", func(s *corev1.PodSpec) { s.Volumes[0].HostPath = &corev1.HostPathVolumeSource{} }},
	"gitRepo":                   {"volume-type", "spec.volumes[0].gitRepo", func(s *corev1.PodSpec) { s.Volumes[0].GitRepo = &corev1.GitRepoVolumeSource{} }},
	"too many certificates": {"pod-certificates", "spec.volumes", func(s *corev1.PodSpec) {
		s.Volumes[4].Projected.Sources = slices.Repeat([]corev1.VolumeProjection{{PodCertificate: &corev1.PodCertificateProjection{}}}, policy.MaxPodCertificates+1)
	}},
	"sysctl": {"pod-security/forbidden-sysctls", "spec", func(s *corev1.PodSpec) {
		s.SecurityContext = &corev1.PodSecurityContext{Sysctls: []corev1.Sysctl{{Name: "kernel.msgmax", Value: "1"}}}
	}},
	"pod seccomp file": {"node-profile", "spec.securityContext.seccompProfile.type", func(s *corev1.PodSpec) {
		s.SecurityContext = &corev1.PodSecurityContext{SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeLocalhost, LocalhostProfile: ptr.To("p")}}
	}},
	"scheduling group": {"unknown-field", "spec.schedulingGroup", func(s *corev1.PodSpec) { s.SchedulingGroup = &corev1.PodSchedulingGroup{} }},
}

// containerRefusals hold for each sort of container.
var containerRefusals = map[string]struct {
	rule, field string
	change      func(c *corev1.Container)
}{
	"privileged": {"privileged", ".securityContext.privileged", func(c *corev1.Container) {
		c.SecurityContext.Privileged, c.SecurityContext.AllowPrivilegeEscalation = ptr.To(true), nil
	}},
	"procMount": {"proc-mount", ".securityContext.procMount", func(c *corev1.Container) { c.SecurityContext.ProcMount = ptr.To(corev1.UnmaskedProcMount) }},
	"hostPort":  {"host-ports", ".ports[0].hostPort", func(c *corev1.Container) { c.Ports = []corev1.ContainerPort{{HostPort: 80}} }},
	"hostIP":    {"host-ports", ".ports[0].hostPort", func(c *corev1.Container) { c.Ports = []corev1.ContainerPort{{HostIP: "0.0.0.0"}} }},
	"SYS_ADMIN": {"pod-security/", "spec", func(c *corev1.Container) {
		c.SecurityContext.Capabilities.Add = []corev1.Capability{"SYS_ADMIN"}
	}},
	"NET_RAW": {"pod-security/", "spec", func(c *corev1.Container) { c.SecurityContext.Capabilities.Add = []corev1.Capability{"NET_RAW"} }},
	"seccomp unconfined": {"pod-security/seccompProfile", "spec", func(c *corev1.Container) {
		c.SecurityContext.SeccompProfile = &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeUnconfined}
	}},
	"apparmor file": {"node-profile", ".securityContext.appArmorProfile.type", func(c *corev1.Container) {
		c.SecurityContext.AppArmorProfile = &corev1.AppArmorProfile{Type: corev1.AppArmorProfileTypeLocalhost, LocalhostProfile: ptr.To("p")}
	}},
	"selinux": {"pod-security/seLinuxOptions", "spec", func(c *corev1.Container) {
		c.SecurityContext.SELinuxOptions = &corev1.SELinuxOptions{Type: "spc_t"}
	}},
	"propagation": {"mount-propagation", ".volumeMounts[0].mountPropagation", func(c *corev1.Container) {
		c.VolumeMounts = []corev1.VolumeMount{{MountPropagation: ptr.To(corev1.MountPropagationBidirectional)}}
	}},
	"claims": {"resource-claims", ".resources.claims", func(c *corev1.Container) { c.Resources.Claims = []corev1.ResourceClaim{{Name: "gpu"}} }},
	"probe host": {"probe-host", ".livenessProbe.httpGet.host", func(c *corev1.Container) {
		c.LivenessProbe = &corev1.Probe{ProbeHandler: corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Host: "169.254.169.254"}}}
	}},
	"tcp probe host": {"probe-host", ".startupProbe.tcpSocket.host", func(c *corev1.Container) {
		c.StartupProbe = &corev1.Probe{ProbeHandler: corev1.ProbeHandler{TCPSocket: &corev1.TCPSocketAction{Host: "10.0.0.1"}}}
	}},
	"hook host": {"probe-host", ".lifecycle.postStart.httpGet.host", func(c *corev1.Container) {
		c.Lifecycle = &corev1.Lifecycle{PostStart: &corev1.LifecycleHandler{HTTPGet: &corev1.HTTPGetAction{Host: "b"}}}
	}},
}

func TestCheckPodRefuses(t *testing.T) {
	for name, c := range refusals {
		for _, l := range levels() {
			pod := plainPod()
			c.change(&pod.Spec)
			wantRefusal(t, name, policy.CheckPod(pod, l), c.rule, c.field)
		}
	}
}

func TestCheckPodRefusesInEveryContainer(t *testing.T) {
	for name, c := range containerRefusals {
		for _, list := range []string{"initContainers", "containers", "ephemeralContainers"} {
			pod := plainPod()
			c.change(map[string]*corev1.Container{
				"initContainers":      &pod.Spec.InitContainers[0],
				"containers":          &pod.Spec.Containers[0],
				"ephemeralContainers": (*corev1.Container)(&pod.Spec.EphemeralContainers[0].EphemeralContainerCommon),
			}[list])
			field := c.field
			if strings.HasPrefix(field, ".") {
				field = "spec." + list + "[0]" + field
			}
			for _, l := range levels() {
				wantRefusal(t, name+" in "+list, policy.CheckPod(pod, l), c.rule, field)
			}
		}
	}
}

// wantRefusal demands one refusal by rule (or by a rule of that prefix) at field.
func wantRefusal(t *testing.T, name string, got []policy.Refusal, rule, field string) {
	t.Helper()
	i := slices.IndexFunc(got, func(r policy.Refusal) bool {
		return strings.HasPrefix(r.Rule, rule) && r.Field == field
	})
	if i < 0 {
		t.Errorf("%s: got %v, want a refusal by %s at %s", name, got, rule, field)
		return
	}
	if reason := got[i].Reason; len(reason) < 20 || !strings.Contains(policy.Err(got).Error(), reason) {
		t.Errorf("%s: reason %q does not help", name, reason)
	}
}

// What restricted refuses, baseline allows: the sandbox's kernel is the tenant's.
func TestLevelsDiffer(t *testing.T) {
	pod := plainPod()
	for _, c := range []*corev1.SecurityContext{pod.Spec.InitContainers[0].SecurityContext, pod.Spec.Containers[0].SecurityContext} {
		*c = corev1.SecurityContext{}
	}
	for _, l := range levels() { // what is left open is completed
		if r := policy.CheckPod(pod, l); len(r) > 0 {
			t.Errorf("%s: %v", l, r)
		}
	}
	for rule, asked := range map[string]corev1.SecurityContext{
		"pod-security/allowPrivilegeEscalation":  {AllowPrivilegeEscalation: ptr.To(true)},
		"pod-security/unrestricted-capabilities": {Capabilities: &corev1.Capabilities{Add: []corev1.Capability{"CHOWN"}}},
	} {
		*pod.Spec.Containers[0].SecurityContext = asked
		if r := policy.CheckPod(pod, policy.Baseline); len(r) > 0 {
			t.Errorf("baseline: %v", r)
		}
		wantRefusal(t, "restricted", policy.CheckPod(pod, policy.Restricted), rule, "spec")
	}
	pod = plainPod()
	pod.Spec.HostUsers = ptr.To(true)
	wantRefusal(t, "hostUsers", policy.CheckPod(pod, policy.Restricted), "host-users", "spec.hostUsers")
}

func TestCheckPodDoesNotModify(t *testing.T) {
	pod := plainPod()
	pod.Spec.Containers[0].SecurityContext = nil
	before := pod.DeepCopy()
	policy.CheckPod(pod, policy.Restricted)
	if !reflect.DeepEqual(pod, before) {
		t.Error("CheckPod changed the pod")
	}
}

// A host pod that nobody completed is refused: the level holds for what runs, and
// completing is what makes it hold.
func TestHarden(t *testing.T) {
	for _, s := range []tenant.Sandbox{tenant.GVisor, tenant.RuncUserNS} {
		l, pod := policy.LevelFor(s), hostPod(s)
		pod.Spec.SecurityContext = nil
		pod.Spec.InitContainers[0].SecurityContext = nil
		pod.Spec.EphemeralContainers[0].SecurityContext = nil
		pod.Spec.Containers[0].SecurityContext = &corev1.SecurityContext{
			RunAsUser:    ptr.To[int64](0),
			Capabilities: &corev1.Capabilities{Add: []corev1.Capability{"NET_BIND_SERVICE"}, Drop: []corev1.Capability{"NET_RAW"}},
		}
		open := pod.DeepCopy()
		if refused := len(policy.CheckHostPod(open, l)) > 0; refused != (l == policy.Restricted) {
			t.Errorf("%s: a pod that was not completed: refused %v", l, refused)
		}
		policy.Harden(&pod.Spec, l)
		if r := policy.CheckHostPod(pod, l); len(r) > 0 {
			t.Errorf("%s: %v", l, policy.Err(r))
		}
		if l == policy.Baseline && !reflect.DeepEqual(pod, open) {
			t.Error("a pod was completed where nothing asks for it")
		}
		sc := pod.Spec.Containers[0].SecurityContext
		if *sc.RunAsUser != 0 || !slices.Equal(sc.Capabilities.Add, []corev1.Capability{"NET_BIND_SERVICE"}) {
			t.Errorf("%s: what the pod said itself became %+v", l, sc)
		}
	}
}

// TestCredentialsOfTheTenantsOwn: what must not be on a host pod may be in a tenant's.
func TestCredentialsOfTheTenantsOwn(t *testing.T) {
	for _, l := range levels() {
		pod := plainPod()
		sources := slices.Repeat([]corev1.VolumeProjection{{PodCertificate: &corev1.PodCertificateProjection{}}}, policy.MaxPodCertificates)
		pod.Spec.Volumes[4].Projected.Sources = append(sources, corev1.VolumeProjection{ClusterTrustBundle: &corev1.ClusterTrustBundleProjection{}})
		if r := policy.CheckPod(pod, l); len(r) > 0 {
			t.Errorf("%s: %v", l, policy.Err(r))
		}
	}
}

// A plan may say where images come from, all of them.
func TestImageRegistries(t *testing.T) {
	offer := policy.Offer{ImageRegistries: policytest.ImageRegistries}
	kinds := map[string]func(*corev1.PodSpec, string){
		"spec.containers[0].image":     func(s *corev1.PodSpec, image string) { s.Containers[0].Image = image },
		"spec.initContainers[0].image": func(s *corev1.PodSpec, image string) { s.InitContainers[0].Image = image },
		"spec.volumes[0].image.reference": func(s *corev1.PodSpec, image string) {
			s.Volumes[0].VolumeSource = corev1.VolumeSource{Image: &corev1.ImageVolumeSource{Reference: image}}
		},
		"spec.ephemeralContainers[0].image": func(s *corev1.PodSpec, image string) { s.EphemeralContainers[0].Image = image },
	}
	for image, allowed := range policytest.Images {
		for field, put := range kinds {
			pod := plainPod()
			put(&pod.Spec, image)
			if r := policy.CheckPod(pod, policy.Baseline); len(r) > 0 {
				t.Errorf("%s %s, from anywhere: %v", field, image, policy.Err(r))
			}
			r := offer.CheckPod(pod, policy.Baseline)
			if (len(r) == 0) != allowed || !allowed && (r[0].Rule != "image-registry" || r[0].Field != field) {
				t.Errorf("%s %s: %v", field, image, policy.Err(r))
			}
		}
	}
}

// What a plan offers is allowed, and nothing else of its kind.
func TestOffer(t *testing.T) {
	offer := policy.Offer{CSIDrivers: []string{"good.csi"}, RuntimeClasses: []string{"sandboxed"}}
	csi := func(v corev1.CSIVolumeSource) func(*corev1.PodSpec) {
		return func(s *corev1.PodSpec) { s.Volumes[0].VolumeSource = corev1.VolumeSource{CSI: &v} }
	}
	for name, c := range map[string]struct {
		change      func(*corev1.PodSpec)
		rule, field string // empty: allowed
	}{
		"driver":             {csi(corev1.CSIVolumeSource{Driver: "good.csi", VolumeAttributes: map[string]string{"a": "b"}}), "", ""},
		"class":              {func(s *corev1.PodSpec) { s.RuntimeClassName = ptr.To("sandboxed") }, "", ""},
		"another driver":     {csi(corev1.CSIVolumeSource{Driver: "good.csi.other"}), "csi-driver", "spec.volumes[0].csi.driver"},
		"no driver":          {csi(corev1.CSIVolumeSource{}), "csi-driver", "spec.volumes[0].csi.driver"},
		"what the node says": {csi(corev1.CSIVolumeSource{Driver: "good.csi", VolumeAttributes: map[string]string{"csi.storage.k8s.io/pod.name": "b"}}), "csi-attributes", "spec.volumes[0].csi.volumeAttributes"},
		"another class":      {func(s *corev1.PodSpec) { s.RuntimeClassName = ptr.To("runc") }, "runtime-class", "spec.runtimeClassName"},
		"another volume":     {func(s *corev1.PodSpec) { s.Volumes[0].HostPath = &corev1.HostPathVolumeSource{} }, "host-path", "spec.volumes[0].hostPath"},
	} {
		for _, l := range levels() {
			pod := plainPod()
			c.change(&pod.Spec)
			got := offer.CheckPod(pod, l)
			if c.rule != "" {
				wantRefusal(t, name, got, c.rule, c.field)
			} else if len(got) > 0 {
				t.Errorf("%s at %s: %v", name, l, got)
			}
			if r := policy.CheckPod(pod, l); len(r) == 0 {
				t.Errorf("%s at %s: allowed though nothing is offered", name, l)
			}
		}
	}
	// What runs is the sandbox by its own name, whatever is offered.
	for _, s := range []tenant.Sandbox{tenant.GVisor, tenant.RuncUserNS} {
		pod := hostPod(s)
		pod.Spec.RuntimeClassName = ptr.To("sandboxed")
		wantRefusal(t, "a host pod", offer.CheckHostPod(pod, policy.LevelFor(s)), "runtime-class", "spec.runtimeClassName")
	}
}
