package server

import (
	"fmt"
	"syscall"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

// BenchmarkPod is what a tenant's pod asks of its control plane: it is created, bound, gets
// its token, runs, and has an event. It reports the processor time of all of that.
func BenchmarkPod(b *testing.B) {
	config := w.b.server.Loopback()
	config.ContentType, config.AcceptContentTypes = "application/vnd.kubernetes.protobuf", "application/vnd.kubernetes.protobuf,application/json"
	api, err := kubernetes.NewForConfig(config)
	if err != nil {
		b.Fatal(err)
	}
	lives := 0
	began := processorTime(b)
	b.ReportAllocs()
	for b.Loop() {
		lives++
		live(b, api, fmt.Sprintf("pod-%d-%d", b.N, lives))
	}
	b.ReportMetric(float64((processorTime(b)-began).Microseconds())/float64(lives), "cpu-us/op")
}

func live(b *testing.B, api kubernetes.Interface, name string) {
	b.Helper()
	pods := api.CoreV1().Pods("default")
	pod, err := pods.Create(b.Context(), &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"app": "web"}},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "app", Image: "app:1"}}},
	}, metav1.CreateOptions{})
	if err != nil {
		b.Fatal(err)
	}
	if err := pods.Bind(b.Context(), &corev1.Binding{
		ObjectMeta: metav1.ObjectMeta{Name: name, UID: pod.UID}, Target: corev1.ObjectReference{Kind: "Node", Name: "node-0"},
	}, metav1.CreateOptions{}); err != nil {
		b.Fatal(err)
	}
	if pod, err = pods.Get(b.Context(), name, metav1.GetOptions{}); err != nil {
		b.Fatal(err)
	}
	if _, err := api.CoreV1().ServiceAccounts("default").CreateToken(b.Context(), "default", &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{
		BoundObjectRef: &authenticationv1.BoundObjectReference{APIVersion: "v1", Kind: "Pod", Name: name, UID: pod.UID},
	}}, metav1.CreateOptions{}); err != nil {
		b.Fatal(err)
	}
	now := metav1.Now()
	pod.Status.Phase, pod.Status.StartTime = corev1.PodRunning, &now
	pod.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodScheduled, Status: corev1.ConditionTrue}, {Type: corev1.PodReady, Status: corev1.ConditionTrue}}
	pod.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "app", Image: "app:1", Ready: true, State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: now}}}}
	if _, err := pods.UpdateStatus(b.Context(), pod, metav1.UpdateOptions{}); err != nil {
		b.Fatal(err)
	}
	if _, err := api.CoreV1().Events("default").Create(b.Context(), &corev1.Event{
		ObjectMeta: metav1.ObjectMeta{Name: name}, InvolvedObject: corev1.ObjectReference{Kind: "Pod", Namespace: "default", Name: name, UID: pod.UID},
		Reason: "Scheduled", Message: "it is", FirstTimestamp: now, LastTimestamp: now, Count: 1,
	}, metav1.CreateOptions{}); err != nil {
		b.Fatal(err)
	}
}

// processorTime is what this process has used of the processors.
func processorTime(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
