package kube

import (
	"testing"

	autoscalingv1 "k8s.io/api/autoscaling/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/kubernetes/pkg/api/legacyscheme"
)

// Informers get the version that they ask for, whichever is stored.
func TestStoredDecoder(t *testing.T) {
	meta := metav1.ObjectMeta{Namespace: "ns", Name: "n"}
	percent := int32(50)
	for name, c := range map[string]struct {
		stored runtime.Object
		as     schema.GroupVersion
		want   func(runtime.Object) bool
	}{
		"the same, with defaults": {&corev1.Pod{ObjectMeta: meta}, corev1.SchemeGroupVersion,
			func(o runtime.Object) bool {
				p, ok := o.(*corev1.Pod)
				return ok && p.Spec.RestartPolicy == corev1.RestartPolicyAlways
			}},
		"an older version": {&autoscalingv2.HorizontalPodAutoscaler{ObjectMeta: meta, Spec: autoscalingv2.HorizontalPodAutoscalerSpec{
			MaxReplicas: 7, Metrics: []autoscalingv2.MetricSpec{{Type: autoscalingv2.ResourceMetricSourceType, Resource: &autoscalingv2.ResourceMetricSource{
				Name: corev1.ResourceCPU, Target: autoscalingv2.MetricTarget{Type: autoscalingv2.UtilizationMetricType, AverageUtilization: &percent},
			}}}}}, autoscalingv1.SchemeGroupVersion,
			func(o runtime.Object) bool {
				h, ok := o.(*autoscalingv1.HorizontalPodAutoscaler)
				return ok && h.Spec.MaxReplicas == 7 && *h.Spec.TargetCPUUtilizationPercentage == percent
			}},
		"another group": {&corev1.Event{ObjectMeta: meta, Message: "m"}, eventsv1.SchemeGroupVersion,
			func(o runtime.Object) bool { e, ok := o.(*eventsv1.Event); return ok && e.Note == "m" }},
	} {
		t.Run(name, func(t *testing.T) {
			kinds, _, err := legacyscheme.Scheme.ObjectKinds(c.stored)
			if err != nil {
				t.Fatal(err)
			}
			raw, err := runtime.Encode(legacyscheme.Codecs.LegacyCodec(kinds[0].GroupVersion()), c.stored)
			if err != nil {
				t.Fatal(err)
			}
			got, err := runtime.Decode(storedDecoder{c.as}, raw)
			if err != nil || !c.want(got) {
				t.Errorf("%T %+v, %v", got, got, err)
			}
		})
	}
}
