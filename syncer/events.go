package syncer

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"sublet.dev/isolation/tenant"
	"sublet.dev/syncer/translate"
)

// podEventKey names a host event about a pod.
type podEventKey struct{ pod, event types.UID }

// podEvents tells the tenant the host's events about its pods. Events end by
// themselves on both sides, so nothing is deleted, and the tenant's are not
// watched: one that the tenant deletes stays deleted.
type podEvents struct {
	*Syncer
	mu      sync.Mutex
	written map[podEventKey]string // guarded by mu: the resource version that the tenant was told
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
	for _, hostEvent := range indexed[*corev1.Event](p.caches.events, byPod, hostPod.Name) {
		if tenantEvent := p.t.Event(hostEvent, tenantPod, hostPod); tenantEvent != nil {
			errs = append(errs, p.tell(ctx, hostPod, hostEvent, tenantEvent))
		}
	}
	p.trim()
	return 0, errors.Join(errs...)
}

// tell creates or updates one event, once for each version of the host's.
func (p *podEvents) tell(ctx context.Context, hostPod *corev1.Pod, hostEvent, tenantEvent *corev1.Event) error {
	key := podEventKey{hostPod.UID, hostEvent.UID}
	if p.told(key, hostEvent.ResourceVersion) {
		return nil
	}
	events := p.tenantAPI.CoreV1().Events(tenantEvent.Namespace)
	_, err := events.Create(ctx, tenantEvent, metav1.CreateOptions{})
	if apierrors.IsAlreadyExists(err) {
		err = p.retell(ctx, tenantEvent)
	}
	if apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("event %s/%s: %w", tenantEvent.Namespace, tenantEvent.Name, err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.written[key] = hostEvent.ResourceVersion
	return nil
}

func (p *podEvents) told(key podEventKey, version string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.written[key] == version
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

// maxWritten bounds the memory of what the tenant was told; beyond it everything
// is told again, which changes nothing.
const maxWritten = 10_000

func (p *podEvents) trim() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.written) > maxWritten {
		clear(p.written)
	}
}
