package audit

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"sublet.dev/api/v1alpha1"
)

// Admission is a pod that the host's API was asked to create, without doing it.
type Admission struct {
	What string
	Pod  ObjectRef
	// Control is true for a pod that must be accepted.
	Control bool
	Refused bool
	// Answer is the refusal's text.
	Answer string
	// Err is why there was no answer.
	Err error
}

// demands are what no pod of a tenant may ask for: the canary with one more wish.
var demands = []struct {
	what string
	wish func(*corev1.PodSpec)
}{
	{"the host's network", func(s *corev1.PodSpec) { s.HostNetwork = true }},
	{"the host's processes", func(s *corev1.PodSpec) { s.HostPID = true }},
	{"the host's IPC", func(s *corev1.PodSpec) { s.HostIPC = true }},
	{"the host's file system", func(s *corev1.PodSpec) {
		s.Volumes = []corev1.Volume{{Name: "host", VolumeSource: corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: "/"}}}}
	}},
	{"a privileged container", func(s *corev1.PodSpec) {
		s.Containers[0].SecurityContext = &corev1.SecurityContext{Privileged: ptr.To(true)}
	}},
	{"no sandbox", func(s *corev1.PodSpec) { s.RuntimeClassName = nil }},
	{"a token of the host", func(s *corev1.PodSpec) { s.AutomountServiceAccountToken = nil }},
}

// admissions asks the host's API, as its administrator, for pods that it must
// refuse and for one that it must not.
func (c *canaries) admissions(ctx context.Context, vc v1alpha1.VirtualCluster) []Admission {
	out := []Admission{c.ask(ctx, c.plan.pod(vc, prober), "nothing", true)}
	for _, d := range demands {
		pod := c.plan.pod(vc, prober)
		d.wish(&pod.Spec)
		out = append(out, c.ask(ctx, pod, d.what, false))
	}
	return out
}

func (c *canaries) ask(ctx context.Context, pod *corev1.Pod, what string, control bool) Admission {
	pod.Name += "-dry"
	a := Admission{What: what, Control: control, Pod: *podRef(pod)}
	err := c.host.Create(ctx, pod, &client.CreateOptions{DryRun: []string{metav1.DryRunAll}})
	switch {
	case apierrors.IsForbidden(err), apierrors.IsInvalid(err):
		a.Refused, a.Answer = true, err.Error()
	case err != nil:
		a.Err = err
	}
	return a
}
