package syncer

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"sublet.dev/isolation/tenant"
	"sublet.dev/syncer/engine"
	"sublet.dev/syncer/translate"
)

// podUp is everything of a pod that is written in the tenant: what a scheduler and
// a kubelet would write there.
type podUp struct {
	*Syncer
	host engine.Host[*corev1.Pod]
}

// Kind implements engine.Pass.
func (p *podUp) Kind() string { return kindPodStatus }

// Reconcile does the one next write: bind the pod, update its status, fail it when
// its host pod is lost, or let it go when its host pod is gone.
func (p *podUp) Reconcile(ctx context.Context, name tenant.Name) (time.Duration, error) {
	tenantPod, ok := fromTenant[*corev1.Pod](p.caches.tenant.pods)(name)
	if !ok {
		p.held.forget(name)
		return 0, nil
	}
	hostPod, onHost := p.host.Cached(name)
	if onHost {
		owner, err := p.host.Owner(hostPod)
		if err != nil {
			return 0, err
		}
		if owner != tenantPod.UID {
			return 0, nil // a stale one, which the Pod pass deletes
		}
	}
	switch {
	case onHost && hostPod.Spec.NodeName != "" && tenantPod.Spec.NodeName == "":
		return 0, p.bind(ctx, tenantPod, hostPod)
	case onHost:
		return 0, p.update(ctx, tenantPod, hostPod)
	case tenantPod.DeletionTimestamp != nil:
		return 0, p.end(ctx, tenantPod)
	case tenantPod.Spec.NodeName != "" && !translate.Ended(tenantPod):
		return 0, p.lose(ctx, tenantPod)
	default:
		return 0, p.explain(ctx, tenantPod)
	}
}

// bind puts the tenant's pod on the tenant's view of the node that the host's
// scheduler chose.
func (p *podUp) bind(ctx context.Context, tenantPod, hostPod *corev1.Pod) error {
	node := p.config.Tenant.ID.NodeName(hostPod.Spec.NodeName)
	err := p.tenantAPI.CoreV1().Pods(tenantPod.Namespace).Bind(ctx, &corev1.Binding{
		ObjectMeta: metav1.ObjectMeta{Namespace: tenantPod.Namespace, Name: tenantPod.Name, UID: tenantPod.UID},
		Target:     corev1.ObjectReference{APIVersion: "v1", Kind: "Node", Name: node},
	}, metav1.CreateOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("bind %s/%s: %w", tenantPod.Namespace, tenantPod.Name, err)
	}
	return nil
}

func (p *podUp) update(ctx context.Context, tenantPod, hostPod *corev1.Pod) error {
	merged, changed := p.t.PodStatus(tenantPod, hostPod)
	if !changed {
		return nil
	}
	return p.write(ctx, merged)
}

func (p *podUp) write(ctx context.Context, tenantPod *corev1.Pod) error {
	_, err := p.tenantAPI.CoreV1().Pods(tenantPod.Namespace).UpdateStatus(ctx, tenantPod, metav1.UpdateOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("status of %s/%s: %w", tenantPod.Namespace, tenantPod.Name, err)
	}
	return nil
}

// end removes a pod whose containers are gone, as its kubelet would. One that
// controllers still want to look at (it has finalizers) is shown as ended.
func (p *podUp) end(ctx context.Context, tenantPod *corev1.Pod) error {
	if len(tenantPod.Finalizers) > 0 && !translate.Ended(tenantPod) {
		return p.write(ctx, translate.Lost(tenantPod, p.now()))
	}
	if grace := tenantPod.DeletionGracePeriodSeconds; grace != nil && *grace == 0 {
		return nil // nothing but finalizers keeps it
	}
	none := int64(0)
	err := p.tenantAPI.CoreV1().Pods(tenantPod.Namespace).Delete(ctx, tenantPod.Name, metav1.DeleteOptions{
		GracePeriodSeconds: &none,
		Preconditions:      &metav1.Preconditions{UID: &tenantPod.UID},
	})
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("end %s/%s: %w", tenantPod.Namespace, tenantPod.Name, err)
	}
	return nil
}

// lose fails a pod whose host pod somebody took away, so that its controller makes
// another. The host itself is asked first: failing a pod cannot be undone.
func (p *podUp) lose(ctx context.Context, tenantPod *corev1.Pod) error {
	name := translate.NameOf(tenantPod)
	_, exists, err := p.host.Live(ctx, name)
	if err != nil {
		return fmt.Errorf("look for the host pod of %s: %w", name, err)
	}
	if exists {
		return engine.ErrUnseen // the cache will show it
	}
	return p.write(ctx, translate.Lost(tenantPod, p.now()))
}

// explain tells why a pod is not on the host, if that is known.
func (p *podUp) explain(ctx context.Context, tenantPod *corev1.Pod) error {
	why, ok := p.held.get(tenantPod)
	if !ok || translate.Ended(tenantPod) {
		return nil
	}
	merged, changed := translate.Held(tenantPod, why.reason, why.message, p.now())
	if !changed {
		return nil
	}
	return p.write(ctx, merged)
}

func (s *Syncer) now() metav1.Time { return metav1.NewTime(s.config.Clock.Now()) }
