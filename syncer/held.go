package syncer

import (
	"context"
	"sync"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/tools/record"

	"sublet.dev/isolation/tenant"
	"sublet.dev/syncer/engine"
	"sublet.dev/syncer/translate"
)

// The reasons of pods that are not on the host.
const (
	// reasonRefused: the pod may not run, see isolation/policy.
	reasonRefused = "Refused"
	// reasonHeld: the host did not take the pod, or something it needs is missing;
	// it is tried again.
	reasonHeld = "HostRefused"
)

// component is the source of our own events in the tenant.
const component = "sublet"

// reason is why a pod is not on the host.
type reason struct{ reason, message string }

// held remembers why pods are not on the host. It is a memory of the last try, not
// a state: after a restart the next try fills it again.
type held struct {
	mu       sync.Mutex
	reasons  map[types.UID]reason // guarded by mu
	recorder record.EventRecorder // guarded by mu; nil until Run
}

func newHeld() *held { return &held{reasons: map[types.UID]reason{}} }

// record sends events to the tenant until stop.
func (h *held) record(ctx context.Context, tenantAPI kubernetes.Interface) (stop func()) {
	broadcaster := record.NewBroadcaster(record.WithContext(ctx))
	broadcaster.StartRecordingToSink(&typedcorev1.EventSinkImpl{Interface: tenantAPI.CoreV1().Events("")})
	h.mu.Lock()
	defer h.mu.Unlock()
	h.recorder = broadcaster.NewRecorder(scheme.Scheme, corev1.EventSource{Component: component})
	return broadcaster.Shutdown
}

// put remembers the reason and says whether it is news.
func (h *held) put(tenantPod *corev1.Pod, r reason) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.reasons[tenantPod.UID] == r {
		return false
	}
	h.reasons[tenantPod.UID] = r
	if h.recorder != nil {
		h.recorder.Event(tenantPod, corev1.EventTypeWarning, r.reason, r.message)
	}
	return true
}

func (h *held) get(uid types.UID) (reason, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	r, ok := h.reasons[uid]
	return r, ok
}

func (h *held) forget(uid types.UID) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.reasons, uid)
}

// hold tells the tenant why its pod is not on the host: an event now, a condition
// by the PodStatus pass.
func (s *Syncer) hold(tenantPod *corev1.Pod, why, message string) {
	if s.held.put(tenantPod, reason{why, message}) {
		s.engine.Add(engine.Key{Kind: kindPodStatus, Name: translate.NameOf(tenantPod)})
	}
}

// release forgets why a pod was not on the host.
func (s *Syncer) release(tenantPod *corev1.Pod) { s.held.forget(tenantPod.UID) }

// holdFor holds a pod for an error that the user or the provider can do something
// about: a quota, a missing RuntimeClass, a missing service account. All others
// are ours to retry.
func (s *Syncer) holdFor(name tenant.Name, err error) {
	lasting := apierrors.IsForbidden(err) || apierrors.IsInvalid(err) || apierrors.IsNotFound(err)
	tenantPod, ok := fromTenant[*corev1.Pod](s.caches.tenant.pods)(name)
	if !lasting || !ok || tenantPod.Spec.NodeName != "" {
		return
	}
	s.hold(tenantPod, reasonHeld, s.t.Reveal(tenantPod, nil).Text(err.Error()))
}
