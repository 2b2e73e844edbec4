package translate

import (
	"slices"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"sublet.dev/isolation/tenant"
)

// hostConditions are the conditions of pods that the host decides. All others are
// the tenant's own.
var hostConditions = []corev1.PodConditionType{
	corev1.PodScheduled, corev1.PodInitialized, corev1.ContainersReady, corev1.PodReady,
	corev1.PodReadyToStartContainers, corev1.DisruptionTarget, corev1.PodResizePending, corev1.PodResizeInProgress,
	corev1.AllContainersRestarting,
}

// PodStatus returns the tenant's pod with the status that the host's pod gives it,
// and whether that changed anything. Whatever the tenant wrote there is replaced,
// but for conditions of its own.
func (t Translation) PodStatus(tenantPod, hostPod *corev1.Pod) (*corev1.Pod, bool) {
	reveal, host := t.Reveal(tenantPod, hostPod), &hostPod.Status
	address := ""
	if reveal.node != "" && host.HostIP != "" {
		address = NodeAddress(reveal.node)
	}
	status := corev1.PodStatus{
		ObservedGeneration:         observed(tenantPod, hostPod),
		Phase:                      host.Phase,
		Conditions:                 reveal.conditions(tenantPod, hostPod),
		Message:                    reveal.Text(host.Message),
		Reason:                     host.Reason,
		HostIP:                     address,
		PodIP:                      host.PodIP,
		PodIPs:                     host.PodIPs,
		StartTime:                  host.StartTime,
		InitContainerStatuses:      reveal.containers(host.InitContainerStatuses),
		ContainerStatuses:          reveal.containers(host.ContainerStatuses),
		EphemeralContainerStatuses: reveal.containers(host.EphemeralContainerStatuses),
		QOSClass:                   tenantPod.Status.QOSClass, // the tenant's API computed it, and it is immutable
		Resize:                     host.Resize,
		AllocatedResources:         host.AllocatedResources,
		Resources:                  host.Resources,
	}
	if n := host.NominatedNodeName; n != "" {
		status.NominatedNodeName = t.Tenant.ID.NodeName(n)
	}
	if address != "" {
		status.HostIPs = []corev1.HostIP{{IP: address}}
	}
	if status.Phase == "" {
		status.Phase = corev1.PodPending
	}
	if status.QOSClass == "" {
		status.QOSClass = host.QOSClass
	}
	if equality.Semantic.DeepEqual(tenantPod.Status, status) {
		return tenantPod, false
	}
	merged := tenantPod.DeepCopy()
	merged.Status = status
	return merged, true
}

// observed returns the generation of the tenant's pod that the host's kubelet has
// seen: the present one until it has seen the newest.
func observed(tenantPod, hostPod *corev1.Pod) int64 {
	generation, err := strconv.ParseInt(hostPod.Annotations[tenant.AnnotationGeneration], 10, 64)
	if err != nil || hostPod.Status.ObservedGeneration < hostPod.Generation {
		return tenantPod.Status.ObservedGeneration
	}
	return generation
}

// conditions returns the host's conditions and the tenant's own ones, in the
// tenant's order. The pod is ready when the host says so and every readiness gate,
// which the host does not know, is open.
func (r Reveal) conditions(tenantPod, hostPod *corev1.Pod) []corev1.PodCondition {
	var merged []corev1.PodCondition
	for _, c := range tenantPod.Status.Conditions {
		if !slices.Contains(hostConditions, c.Type) {
			merged = append(merged, c)
		} else if h := condition(hostPod.Status.Conditions, c.Type); h != nil {
			merged = append(merged, r.condition(tenantPod, *h, &c))
		} else if c.Type == corev1.DisruptionTarget {
			merged = append(merged, c) // the tenant's API sets it on eviction
		}
	}
	for _, h := range hostPod.Status.Conditions {
		if slices.Contains(hostConditions, h.Type) && condition(tenantPod.Status.Conditions, h.Type) == nil {
			merged = append(merged, r.condition(tenantPod, h, nil))
		}
	}
	return merged
}

// condition returns the tenant's version of a host's condition. before is the
// tenant's present one, nil when there is none.
func (r Reveal) condition(tenantPod *corev1.Pod, host corev1.PodCondition, before *corev1.PodCondition) corev1.PodCondition {
	c := corev1.PodCondition{
		Type:               host.Type,
		ObservedGeneration: tenantGeneration(host, tenantPod),
		Status:             host.Status,
		LastTransitionTime: host.LastTransitionTime,
		Reason:             host.Reason,
		Message:            r.Text(host.Message),
	}
	if host.Type == corev1.PodScheduled && before != nil && before.Status == c.Status {
		c.LastTransitionTime = before.LastTransitionTime // the tenant's API was told by the binding, a moment later
	}
	if gate := closedGate(tenantPod); host.Type == corev1.PodReady && host.Status == corev1.ConditionTrue && gate != nil {
		c.Status, c.Reason = corev1.ConditionFalse, "ReadinessGatesNotReady"
		c.Message = "the readiness gate " + strconv.Quote(string(gate.ConditionType)) + " is not open"
		if before != nil && before.Status == c.Status {
			c.LastTransitionTime = before.LastTransitionTime
		}
	}
	return c
}

// tenantGeneration is the tenant's generation for a condition that the host gave
// one.
func tenantGeneration(host corev1.PodCondition, tenantPod *corev1.Pod) int64 {
	if host.ObservedGeneration == 0 {
		return 0
	}
	return tenantPod.Generation
}

// closedGate returns a readiness gate of the pod that is not open.
func closedGate(tenantPod *corev1.Pod) *corev1.PodReadinessGate {
	for i, g := range tenantPod.Spec.ReadinessGates {
		c := condition(tenantPod.Status.Conditions, g.ConditionType)
		if c == nil || c.Status != corev1.ConditionTrue {
			return &tenantPod.Spec.ReadinessGates[i]
		}
	}
	return nil
}

func condition(conditions []corev1.PodCondition, kind corev1.PodConditionType) *corev1.PodCondition {
	for i := range conditions {
		if conditions[i].Type == kind {
			return &conditions[i]
		}
	}
	return nil
}

func (r Reveal) containers(host []corev1.ContainerStatus) []corev1.ContainerStatus {
	var tenantStatuses []corev1.ContainerStatus
	for i := range host {
		h := host[i].DeepCopy()
		tenantStatuses = append(tenantStatuses, corev1.ContainerStatus{
			Name:                 h.Name,
			State:                r.state(h.State),
			LastTerminationState: r.state(h.LastTerminationState),
			Ready:                h.Ready,
			RestartCount:         h.RestartCount,
			Image:                h.Image,
			ImageID:              h.ImageID,
			ContainerID:          h.ContainerID,
			Started:              h.Started,
			AllocatedResources:   h.AllocatedResources,
			Resources:            h.Resources,
			VolumeMounts:         h.VolumeMounts,
			User:                 h.User,
			StopSignal:           h.StopSignal,
		})
	}
	return tenantStatuses
}

// ownWords are the reasons with which a terminated state's message is what the
// container itself wrote.
var ownWords = map[string]bool{"Completed": true, "Error": true}

func (r Reveal) state(host corev1.ContainerState) corev1.ContainerState {
	if host.Waiting != nil {
		host.Waiting.Message = r.Text(host.Waiting.Message)
	}
	if host.Terminated != nil && !ownWords[host.Terminated.Reason] {
		host.Terminated.Message = r.Text(host.Terminated.Message)
	}
	return host
}

// Held returns the tenant's pod, which has no host pod, with the condition that
// says why, and whether that changed anything.
func Held(tenantPod *corev1.Pod, reason, message string, now metav1.Time) (*corev1.Pod, bool) {
	before := condition(tenantPod.Status.Conditions, corev1.PodScheduled)
	if before != nil && before.Status == corev1.ConditionFalse && before.Reason == reason && before.Message == message {
		return tenantPod, false
	}
	c := corev1.PodCondition{
		Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Reason: reason, Message: message, LastTransitionTime: now,
	}
	return withCondition(tenantPod, c), true
}

// The reason and message of a pod whose host pod is gone.
const (
	ReasonLost  = "PodLost"
	messageLost = "the pod was removed from its node; a controller of the pod, if any, replaces it"
)

// Lost returns the tenant's pod, which had a host pod and has none any more, as
// failed: what a controller replaces. Whoever took the host pod away may have said why
// (an eviction, a pod of higher priority, a taint): that stays.
func Lost(tenantPod *corev1.Pod, now metav1.Time) *corev1.Pod {
	lost, reason, message := tenantPod.DeepCopy(), ReasonLost, messageLost
	if why := condition(lost.Status.Conditions, corev1.DisruptionTarget); why != nil && why.Status == corev1.ConditionTrue && why.Reason != "" {
		reason, message = why.Reason, why.Message
	} else {
		lost = withCondition(lost, corev1.PodCondition{
			Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue, Reason: reason, Message: message, LastTransitionTime: now,
		})
	}
	for _, kind := range []corev1.PodConditionType{corev1.PodReady, corev1.ContainersReady} {
		if c := condition(lost.Status.Conditions, kind); c != nil && c.Status == corev1.ConditionTrue {
			c.Status, c.Reason, c.Message, c.LastTransitionTime = corev1.ConditionFalse, reason, message, now
		}
	}
	lost.Status.Phase, lost.Status.Reason, lost.Status.Message = corev1.PodFailed, reason, message
	return lost
}

// withCondition returns a copy of the pod with the condition in place of its own
// of that type.
func withCondition(tenantPod *corev1.Pod, c corev1.PodCondition) *corev1.Pod {
	changed := tenantPod.DeepCopy()
	if have := condition(changed.Status.Conditions, c.Type); have != nil {
		*have = c
	} else {
		changed.Status.Conditions = append(changed.Status.Conditions, c)
	}
	return changed
}

// Ended says whether a pod's containers will never run again.
func Ended(pod *corev1.Pod) bool {
	return pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed
}
