package syncer

import (
	"context"
	"errors"
	"sync"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
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

// reason is why the pod with that UID is not on the host.
type reason struct {
	uid             types.UID
	reason, message string
}

// held remembers why pods are not on the host. It is a memory of the last try, not
// a state: after a restart the next try fills it again.
type held struct {
	mu       sync.Mutex
	reasons  map[tenant.Name]reason // guarded by mu; at most one a pod
	begin    func()                 // guarded by mu: makes recorder; nil unless Run runs
	recorder record.EventRecorder   // guarded by mu; nil until the first event
	shutdown func()                 // guarded by mu: ends recorder
}

func newHeld() *held { return &held{reasons: map[tenant.Name]reason{}} }

// record lets events be sent to the tenant until stop. What sends them has room for a
// thousand, and most tenants are told nothing: it begins with the first.
func (h *held) record(ctx context.Context, tenantAPI kubernetes.Interface) (stop func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.begin = func() {
		broadcaster := record.NewBroadcaster(record.WithContext(ctx))
		broadcaster.StartRecordingToSink(&typedcorev1.EventSinkImpl{Interface: tenantAPI.CoreV1().Events("")})
		h.recorder = broadcaster.NewRecorder(scheme.Scheme, corev1.EventSource{Component: component})
		h.begin, h.shutdown = nil, broadcaster.Shutdown
	}
	return h.end
}

func (h *held) end() {
	h.mu.Lock()
	shutdown := h.shutdown
	h.begin, h.recorder, h.shutdown = nil, nil, nil
	h.mu.Unlock()
	if shutdown != nil {
		shutdown()
	}
}

// send sends an event, if Run runs. The caller holds mu.
func (h *held) send(tenantObject runtime.Object, kind, why, message string) {
	if h.begin != nil {
		h.begin()
	}
	if h.recorder != nil {
		h.recorder.Event(tenantObject, kind, why, message)
	}
}

// put remembers the reason and says whether it is news.
func (h *held) put(tenantPod *corev1.Pod, r reason) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	name := translate.NameOf(tenantPod)
	if h.reasons[name] == r {
		return false
	}
	h.reasons[name] = r
	h.send(tenantPod, corev1.EventTypeWarning, r.reason, r.message)
	return true
}

// tell sends an event about an object of the tenant's.
func (h *held) tell(tenantObject runtime.Object, kind, why, message string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.send(tenantObject, kind, why, message)
}

func (h *held) get(tenantPod *corev1.Pod) (reason, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	r, ok := h.reasons[translate.NameOf(tenantPod)]
	return r, ok && r.uid == tenantPod.UID
}

// forget forgets the reason: the pod is on the host, or gone.
func (h *held) forget(name tenant.Name) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.reasons, name)
}

// hold tells the tenant why its pod is not on the host: an event now, a condition
// by the PodStatus pass.
func (s *Syncer) hold(tenantPod *corev1.Pod, why, message string) {
	if s.held.put(tenantPod, reason{tenantPod.UID, why, message}) {
		s.engine.Add(engine.Key{Kind: kindPodStatus, Name: translate.NameOf(tenantPod)})
	}
}

// holdFor holds a pod for an error that the user or the provider can do something
// about: a quota, a missing RuntimeClass, a missing service account. All others
// are ours to retry.
func (s *Syncer) holdFor(name tenant.Name, err error) {
	tenantPod, ok := fromTenant[*corev1.Pod](s.caches.tenant.pods)(name)
	if !ok || tenantPod.Spec.NodeName != "" {
		return
	}
	switch {
	case errors.Is(err, engine.ErrForeign):
		s.hold(tenantPod, reasonHeld, "an object of the provider is in the way: ask the provider")
	case apierrors.IsForbidden(err) || apierrors.IsInvalid(err) || apierrors.IsNotFound(err):
		message := err.Error()
		if status := apierrors.APIStatus(nil); errors.As(err, &status) {
			message = status.Status().Message
		}
		s.hold(tenantPod, reasonHeld, s.t.Reveal(tenantPod, nil).Text(message))
	}
}
