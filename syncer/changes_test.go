package syncer

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
)

// TestOnlyStatus: what the Pod pass looks at is never taken for a change of status.
func TestOnlyStatus(t *testing.T) {
	pod := func(change func(*corev1.Pod)) *corev1.Pod {
		p := &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{UID: "1", Labels: map[string]string{"a": "b"}, ResourceVersion: "1"},
			Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "i"}}},
			Status:     corev1.PodStatus{Phase: corev1.PodPending},
		}
		change(p)
		return p
	}
	before := pod(func(*corev1.Pod) {})
	for name, change := range map[string]func(*corev1.Pod){
		"phase":     func(p *corev1.Pod) { p.Status.Phase = corev1.PodRunning },
		"address":   func(p *corev1.Pod) { p.Status.PodIP, p.ResourceVersion = "10.0.0.1", "2" },
		"finalizer": func(p *corev1.Pod) { p.Finalizers = []string{"x/y"} },
	} {
		if !onlyStatus(before, pod(change)) {
			t.Errorf("%s: it is more than the status", name)
		}
	}
	for name, change := range map[string]func(*corev1.Pod){
		"another pod": func(p *corev1.Pod) { p.UID = "2" },
		"ended":       func(p *corev1.Pod) { p.Status.Phase = corev1.PodSucceeded },
		"deleted":     func(p *corev1.Pod) { p.DeletionTimestamp = &metav1.Time{Time: time.Unix(1, 0)} },
		"grace":       func(p *corev1.Pod) { p.DeletionGracePeriodSeconds = ptr.To[int64](1) },
		"label":       func(p *corev1.Pod) { p.Labels = map[string]string{"a": "c"} },
		"annotation":  func(p *corev1.Pod) { p.Annotations = map[string]string{"a": "c"} },
		"image":       func(p *corev1.Pod) { p.Spec.Containers[0].Image = "j" },
		"node":        func(p *corev1.Pod) { p.Spec.NodeName = "n" },
		"debugger":    func(p *corev1.Pod) { p.Spec.EphemeralContainers = make([]corev1.EphemeralContainer, 1) },
	} {
		if onlyStatus(before, pod(change)) {
			t.Errorf("%s: it is not the status", name)
		}
	}
}
