package translate

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"

	"sublet.dev/syncer/engine"
)

// apiPod is a pod as a tenant's API has it: with defaults, and the volume of its token.
func apiPod() *corev1.Pod {
	pod := plainPod()
	pod.Labels = map[string]string{"app": "web"}
	pod.Spec.ServiceAccountName, pod.Spec.RestartPolicy, pod.Spec.DNSPolicy = "default", corev1.RestartPolicyAlways, corev1.DNSClusterFirst
	pod.Spec.TerminationGracePeriodSeconds = ptr.To[int64](30)
	pod.Spec.Tolerations = []corev1.Toleration{
		{Key: corev1.TaintNodeNotReady, Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoExecute, TolerationSeconds: ptr.To[int64](300)},
		{Key: corev1.TaintNodeUnreachable, Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoExecute, TolerationSeconds: ptr.To[int64](300)},
	}
	pod.Spec.Volumes = []corev1.Volume{{Name: "kube-api-access", VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{
		Sources: []corev1.VolumeProjection{
			{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{Path: "token", ExpirationSeconds: ptr.To[int64](3607)}},
			{ConfigMap: &corev1.ConfigMapProjection{LocalObjectReference: corev1.LocalObjectReference{Name: "kube-root-ca.crt"}, Items: []corev1.KeyToPath{{Key: "ca.crt", Path: "ca.crt"}}}},
			{DownwardAPI: &corev1.DownwardAPIProjection{Items: []corev1.DownwardAPIVolumeFile{{Path: "namespace", FieldRef: &corev1.ObjectFieldSelector{APIVersion: "v1", FieldPath: "metadata.namespace"}}}}},
		},
	}}}}
	pod.Spec.Containers[0].VolumeMounts = []corev1.VolumeMount{{Name: "kube-api-access", MountPath: "/var/run/secrets/kubernetes.io/serviceaccount", ReadOnly: true}}
	return pod
}

// BenchmarkPod is what a pod costs the syncer each time that it is compared.
func BenchmarkPod(b *testing.B) {
	pod, tr := apiPod(), Translation{Tenant: testTenant, Lookup: nothing{}, Data: nothing{}}
	hostPod, refusals := tr.Pod(pod)
	if len(refusals) > 0 {
		b.Fatal(refusals)
	}
	b.Run("translate", func(b *testing.B) {
		for b.Loop() {
			tr.Pod(pod)
		}
	})
	b.Run("merge", func(b *testing.B) {
		for b.Loop() {
			if _, d := MergePod(hostPod, hostPod); d != engine.Same {
				b.Fatal(d)
			}
		}
	})
	b.Run("resize", func(b *testing.B) {
		for b.Loop() {
			if _, changed := Resize(pod, hostPod); changed {
				b.Fatal("changed")
			}
		}
	})
	b.Run("status", func(b *testing.B) {
		same, _ := tr.PodStatus(pod, hostPod)
		for b.Loop() {
			if _, changed := tr.PodStatus(same, hostPod); changed {
				b.Fatal("changed")
			}
		}
	})
}
