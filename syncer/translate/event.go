package translate

import (
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// eventSources are the host's components that tenants hear of: the ones that act
// on pods on any cluster.
var eventSources = map[string]bool{"kubelet": true, "default-scheduler": true, "taint-eviction-controller": true}

// reasonPreempted is the reason of the scheduler's events about pods that made room.
const reasonPreempted = "Preempted"

// Event returns the tenant's event for one about its pod on the host, or nil when
// it comes from a part of the host that is none of the tenant's business.
func (t Translation) Event(hostEvent *corev1.Event, tenantPod, hostPod *corev1.Pod) *corev1.Event {
	source := hostEvent.Source.Component
	if source == "" {
		source = hostEvent.ReportingController
	}
	if !eventSources[source] || hostEvent.InvolvedObject.UID != hostPod.UID {
		return nil
	}
	reveal := t.Reveal(tenantPod, hostPod)
	message := reveal.Text(hostEvent.Message)
	switch {
	case probeTexts[hostEvent.Reason]:
		message = reveal.names(hostEvent.Message)
	case hostEvent.Reason == reasonPreempted: // the scheduler names the other pod by its UID on the host
		message = "Preempted by a pod of higher priority on node " + reveal.node
	}
	tenantEvent := &corev1.Event{
		ObjectMeta: metav1.ObjectMeta{Namespace: tenantPod.Namespace, Name: eventName(tenantPod.Name, hostEvent.Name)},
		InvolvedObject: corev1.ObjectReference{
			APIVersion: "v1", Kind: "Pod", Namespace: tenantPod.Namespace, Name: tenantPod.Name, UID: tenantPod.UID,
			FieldPath: hostEvent.InvolvedObject.FieldPath,
		},
		Reason:              hostEvent.Reason,
		Message:             message,
		Source:              corev1.EventSource{Component: hostEvent.Source.Component},
		FirstTimestamp:      hostEvent.FirstTimestamp,
		LastTimestamp:       hostEvent.LastTimestamp,
		Count:               hostEvent.Count,
		Type:                hostEvent.Type,
		EventTime:           hostEvent.EventTime,
		Series:              hostEvent.Series,
		Action:              hostEvent.Action,
		ReportingController: hostEvent.ReportingController,
	}
	if hostEvent.Source.Host != "" {
		tenantEvent.Source.Host = reveal.node
	}
	if hostEvent.ReportingInstance != "" {
		tenantEvent.ReportingInstance = source
		if reveal.node != "" {
			tenantEvent.ReportingInstance += "-" + reveal.node
		}
	}
	return tenantEvent
}

// maxName is the greatest length of an event's name.
const maxName = 253

// eventName names the tenant's event after the pod, as the host's is, and keeps
// the part that makes it unique.
func eventName(podName, hostEventName string) string {
	unique := hostEventName[strings.LastIndexByte(hostEventName, '.')+1:]
	return strings.TrimRight(podName[:min(len(podName), maxName-1-len(unique))], "-.") + "." + unique
}

// MergeEvent returns have with what may change in an event, and whether it did.
func MergeEvent(have, want *corev1.Event) (*corev1.Event, bool) {
	merged := have.DeepCopy()
	changed := set(&merged.Count, want.Count)
	changed = set(&merged.Message, want.Message) || changed
	changed = set(&merged.LastTimestamp, want.LastTimestamp) || changed
	if !equality.Semantic.DeepEqual(merged.Series, want.Series) {
		merged.Series, changed = want.Series, true
	}
	return merged, changed
}
