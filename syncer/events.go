package syncer

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"sublet.dev/isolation/tenant"
	"sublet.dev/syncer/translate"
)

// podEvents tells the tenant the host's events about its pods. Events end by
// themselves on both sides, so nothing is deleted, and the tenant's are not
// watched: one that the tenant deletes stays deleted.
type podEvents struct {
	*Syncer
	mu sync.Mutex
	// told are the resource versions of host events that the tenant was told, by their
	// UID. Guarded by mu.
	told map[types.UID]string
	most int // how many told may hold until those that are gone are looked for; guarded by mu
	// before are the tenant's events about pods that were there when the syncer began, so
	// that they need not be told again; nil until they were read. Guarded by mu.
	before map[tenant.Name]*corev1.Event
}

func (s *Syncer) podEvents() *podEvents {
	return &podEvents{Syncer: s, told: map[types.UID]string{}, most: spareTold}
}

// Kind implements engine.Pass.
func (p *podEvents) Kind() string { return kindPodEvents }

// Reconcile writes the events of one pod that the tenant has not been told.
func (p *podEvents) Reconcile(ctx context.Context, name tenant.Name) (time.Duration, error) {
	host := p.hostPods()
	tenantPod, ok := fromTenant[*corev1.Pod](p.caches.tenant.pods)(name)
	hostPod, onHost := host.Cached(name)
	if !ok || !onHost {
		return 0, nil
	}
	if owner, err := host.Owner(hostPod); err != nil || owner != tenantPod.UID {
		return 0, err
	}
	var errs []error
	for _, hostEvent := range indexed[*corev1.Event](p.caches.host.events, byPod, hostPod.Name) {
		if p.knows(hostEvent) {
			continue
		}
		if tenantEvent := p.t.Event(hostEvent, tenantPod, hostPod); tenantEvent != nil {
			errs = append(errs, p.tell(ctx, hostEvent, tenantEvent))
		}
	}
	return 0, errors.Join(errs...)
}

// eventPage is how many of the tenant's events are read at a time.
const eventPage = 500

// remember reads the tenant's events about pods, once: a syncer that begins finds most
// of what it would tell told already.
func (p *podEvents) remember(ctx context.Context) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.before != nil {
		return nil
	}
	before := map[tenant.Name]*corev1.Event{}
	for page := (metav1.ListOptions{Limit: eventPage, FieldSelector: "involvedObject.kind=Pod"}); ; {
		list, err := p.tenantAPI.CoreV1().Events("").List(ctx, page)
		if err != nil {
			return fmt.Errorf("read the tenant's events: %w", err)
		}
		for i := range list.Items {
			e := &list.Items[i]
			before[translate.NameOf(e)] = &corev1.Event{
				InvolvedObject: corev1.ObjectReference{UID: e.InvolvedObject.UID},
				Count:          e.Count, Message: e.Message, LastTimestamp: e.LastTimestamp, Series: e.Series,
			}
		}
		if page.Continue = list.Continue; page.Continue == "" {
			p.before = before
			return nil
		}
	}
}

// tell creates or updates one event.
func (p *podEvents) tell(ctx context.Context, hostEvent, tenantEvent *corev1.Event) error {
	if err := p.remember(ctx); err != nil {
		return err
	}
	if p.wasThere(tenantEvent) {
		p.note(hostEvent)
		return nil
	}
	_, err := p.tenantAPI.CoreV1().Events(tenantEvent.Namespace).Create(ctx, tenantEvent, metav1.CreateOptions{})
	if apierrors.IsAlreadyExists(err) {
		err = p.retell(ctx, tenantEvent)
	}
	if apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("event %s/%s: %w", tenantEvent.Namespace, tenantEvent.Name, err)
	}
	p.note(hostEvent)
	return nil
}

// wasThere says whether the tenant had an event like this when the syncer began. It
// forgets what it answered.
func (p *podEvents) wasThere(want *corev1.Event) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	have, ok := p.before[translate.NameOf(want)]
	delete(p.before, translate.NameOf(want))
	if !ok || have.InvolvedObject.UID != want.InvolvedObject.UID {
		return false
	}
	_, changed := translate.MergeEvent(have, want)
	return !changed
}

func (p *podEvents) knows(hostEvent *corev1.Event) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.told[hostEvent.UID] == hostEvent.ResourceVersion
}

// spareTold is how many events at least are remembered before any is forgotten.
const spareTold = 1000

// note remembers what was told, and forgets events that are gone from the host.
func (p *podEvents) note(hostEvent *corev1.Event) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.told[hostEvent.UID] = hostEvent.ResourceVersion
	if len(p.told) <= p.most {
		return
	}
	there := map[types.UID]bool{}
	for _, o := range p.caches.host.events.GetStore().List() {
		if e, ok := o.(*corev1.Event); ok {
			there[e.UID] = true
		}
	}
	maps.DeleteFunc(p.told, func(uid types.UID, _ string) bool { return !there[uid] })
	p.most = 2*len(p.told) + spareTold
}

// retell updates an event that is there, unless it is about another object.
func (p *podEvents) retell(ctx context.Context, want *corev1.Event) error {
	events := p.tenantAPI.CoreV1().Events(want.Namespace)
	have, err := events.Get(ctx, want.Name, metav1.GetOptions{})
	if err != nil {
		return err
	}
	merged, changed := translate.MergeEvent(have, want)
	if !changed || have.InvolvedObject.UID != want.InvolvedObject.UID {
		return nil
	}
	_, err = events.Update(ctx, merged, metav1.UpdateOptions{})
	return err
}
