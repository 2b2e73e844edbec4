package syncer

import (
	"context"
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"sublet.dev/isolation/tenant"
	"sublet.dev/syncer/engine"
	"sublet.dev/syncer/translate"
)

const (
	kindClaim       = "PersistentVolumeClaim"
	kindClaimStatus = "PersistentVolumeClaimStatus"
)

// The reasons of claims that have no volume.
const (
	reasonClaimRefused = "ClaimRefused"
	reasonClaimLost    = "ClaimLost"
	reasonNoSnapshot   = "WaitForSnapshot"
)

// errClaim says that a pod's claim is not on the host yet.
var errClaim = errors.New("a claim of the pod has no counterpart on the host yet")

func (s *Syncer) hostClaims() engine.Host[*corev1.PersistentVolumeClaim] {
	ns := s.config.Tenant.HostNamespace
	return onHost[*corev1.PersistentVolumeClaim](s, s.caches.host.claims,
		s.hostRead.CoreV1().PersistentVolumeClaims(ns), s.hostWrite.CoreV1().PersistentVolumeClaims(ns), "")
}

func (s *Syncer) tenantClaim(name tenant.Name) (*corev1.PersistentVolumeClaim, bool) {
	return fromTenant[*corev1.PersistentVolumeClaim](s.caches.tenant.claims)(name)
}

// claimDown mirrors the tenant's claims. One that the tenant's plan does not offer is
// not on the host, and the tenant is told why; so is one that had a volume which is
// gone: an empty one in its place would pass for it.
type claimDown struct {
	*Syncer
	mirror engine.Pass
}

func (s *Syncer) claims() engine.Pass {
	p := &claimDown{Syncer: s}
	p.mirror = &engine.Mirror[*corev1.PersistentVolumeClaim, *corev1.PersistentVolumeClaim]{
		Name: kindClaim, Source: s.tenantClaim, Target: s.hostClaims(), Want: p.want, Merge: translate.MergeClaim,
	}
	return p
}

// Kind implements engine.Pass.
func (p *claimDown) Kind() string { return kindClaim }

// Reconcile implements engine.Pass. A claim whose size the host refuses stays as it
// is there.
func (p *claimDown) Reconcile(ctx context.Context, name tenant.Name) (time.Duration, error) {
	again, err := p.mirror.Reconcile(ctx, name)
	tenantClaim, ok := p.tenantClaim(name)
	if ok && (apierrors.IsForbidden(err) || apierrors.IsInvalid(err)) {
		message := err.Error()
		if status := apierrors.APIStatus(nil); errors.As(err, &status) {
			message = status.Status().Message
		}
		p.held.tell(tenantClaim, corev1.EventTypeWarning, reasonHeld, p.t.RevealClaim(tenantClaim, message))
	}
	return again, err
}

func (p *claimDown) want(_ context.Context, tenantClaim, hostClaim *corev1.PersistentVolumeClaim) (engine.Want[*corev1.PersistentVolumeClaim], error) {
	leave := engine.Leave[*corev1.PersistentVolumeClaim]()
	if hostClaim == nil && (tenantClaim.DeletionTimestamp != nil || translate.HadVolume(tenantClaim)) {
		return leave, nil
	}
	want, refusals := p.t.Claim(tenantClaim, p.claimOffer())
	if len(refusals) == 0 && hostClaim == nil && !p.sourceIsThere(tenantClaim) {
		p.held.tell(tenantClaim, corev1.EventTypeNormal, reasonNoSnapshot, "it waits for the snapshot that it begins as: "+translate.SnapshotOf(tenantClaim))
		return leave, nil // the snapshot brings us back
	}
	if len(refusals) == 0 {
		return engine.Be(want), nil
	}
	if hostClaim == nil {
		p.held.tell(tenantClaim, corev1.EventTypeWarning, reasonClaimRefused, translate.Refused(refusals))
	}
	return leave, nil // one that has a volume keeps it, whatever became of the plan
}

// claimUp brings the tenant what became of its claims: a view of the volume, the
// claim's binding to it, the claim's status; one of them at a time.
type claimUp struct {
	*Syncer
	host         engine.Host[*corev1.PersistentVolumeClaim]
	volumes      engine.Pass
	bind, status engine.Pass
}

func (s *Syncer) claimStatuses(volumes engine.Pass) engine.Pass {
	p := &claimUp{Syncer: s, host: s.hostClaims(), volumes: volumes}
	adjust := func(merge func(hostClaim, tenantClaim *corev1.PersistentVolumeClaim) (*corev1.PersistentVolumeClaim, bool), write func(context.Context, *corev1.PersistentVolumeClaim) error) engine.Pass {
		return &engine.Adjust[*corev1.PersistentVolumeClaim, *corev1.PersistentVolumeClaim]{
			Name: kindClaimStatus, Source: p.host.Cached, Target: s.tenantClaim, Pair: p.pair, Merge: merge, Write: write,
		}
	}
	p.bind = adjust(translate.BindClaim, func(ctx context.Context, c *corev1.PersistentVolumeClaim) error {
		_, err := s.tenantAPI.CoreV1().PersistentVolumeClaims(c.Namespace).Update(ctx, c, metav1.UpdateOptions{})
		return err
	})
	p.status = adjust(translate.ClaimStatus, p.writeStatus)
	return p
}

func (p *claimUp) pair(hostClaim, tenantClaim *corev1.PersistentVolumeClaim) bool {
	owner, err := p.host.Owner(hostClaim)
	return err == nil && owner == tenantClaim.UID
}

func (p *claimUp) writeStatus(ctx context.Context, tenantClaim *corev1.PersistentVolumeClaim) error {
	_, err := p.tenantAPI.CoreV1().PersistentVolumeClaims(tenantClaim.Namespace).UpdateStatus(ctx, tenantClaim, metav1.UpdateOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

// Kind implements engine.Pass.
func (p *claimUp) Kind() string { return kindClaimStatus }

// Reconcile implements engine.Pass.
func (p *claimUp) Reconcile(ctx context.Context, name tenant.Name) (time.Duration, error) {
	if hostClaim, onHost := p.host.Cached(name); onHost {
		if owner, err := p.host.Owner(hostClaim); err == nil {
			if _, err := p.volumes.Reconcile(ctx, tenant.Name{Name: translate.VolumeName(owner)}); err != nil {
				return 0, err
			}
		}
	} else if tenantClaim, ok := p.tenantClaim(name); ok && translate.HadVolume(tenantClaim) {
		return 0, p.lose(ctx, tenantClaim)
	}
	if _, err := p.bind.Reconcile(ctx, name); err != nil {
		return 0, err
	}
	return p.status.Reconcile(ctx, name)
}

// lose tells the tenant that a volume is gone. The host itself is asked first.
func (p *claimUp) lose(ctx context.Context, tenantClaim *corev1.PersistentVolumeClaim) error {
	if tenantClaim.Status.Phase == corev1.ClaimLost || tenantClaim.DeletionTimestamp != nil {
		return nil
	}
	_, exists, err := p.host.Live(ctx, translate.NameOf(tenantClaim))
	if err != nil {
		return fmt.Errorf("look for the host claim of %s: %w", translate.NameOf(tenantClaim), err)
	}
	if exists {
		return engine.ErrUnseen
	}
	p.held.tell(tenantClaim, corev1.EventTypeWarning, reasonClaimLost, "its volume is gone: ask your provider")
	return p.writeStatus(ctx, translate.LoseClaim(tenantClaim))
}

// mountable brings the claims of a pod to the host, and says why one cannot be
// mounted yet: a pod that is made before would get what a claim of the same name had.
func (p *podDown) mountable(ctx context.Context, tenantPod *corev1.Pod) error {
	for _, use := range translate.Claims(tenantPod) {
		if err := p.mountableClaim(ctx, tenantPod, use); err != nil {
			return err
		}
	}
	return nil
}

func (p *podDown) mountableClaim(ctx context.Context, tenantPod *corev1.Pod, use translate.ClaimUse) error {
	name := tenant.Name{Namespace: tenantPod.Namespace, Name: use.Name}
	tenantClaim, ok := p.tenantClaim(name)
	if !ok {
		return apierrors.NewNotFound(corev1.Resource("persistentvolumeclaims"), use.Name)
	}
	if _, refusals := p.t.Claim(tenantClaim, p.claimOffer()); len(refusals) > 0 {
		if _, onHost := p.hostClaims().Cached(name); !onHost {
			return apierrors.NewForbidden(corev1.Resource("persistentvolumeclaims"), use.Name, errors.New(translate.Refused(refusals)))
		}
	}
	if use.Ephemeral && !metav1.IsControlledBy(tenantClaim, tenantPod) {
		return apierrors.NewForbidden(corev1.Resource("persistentvolumeclaims"), use.Name, errors.New("it was not made for this pod: choose another name for the pod, its volume or the claim"))
	}
	if tenantClaim.DeletionTimestamp != nil {
		return apierrors.NewForbidden(corev1.Resource("persistentvolumeclaims"), use.Name, errors.New("it is being deleted"))
	}
	if _, err := p.claimPass.Reconcile(ctx, name); err != nil && !errors.Is(err, engine.ErrUnseen) {
		return err
	}
	host := p.hostClaims()
	hostClaim, onHost, err := host.Live(ctx, name)
	if err != nil {
		return fmt.Errorf("look for the host claim of %s: %w", name, err)
	}
	if !onHost || hostClaim.DeletionTimestamp != nil {
		return errClaim
	}
	if owner, err := host.Owner(hostClaim); err != nil || owner != tenantClaim.UID {
		return errors.Join(errClaim, err)
	}
	return nil
}

// ofTenantClaim: a claim, and the pods that wait for it.
func (s *Syncer) ofTenantClaim(tenantClaim *corev1.PersistentVolumeClaim) []engine.Key {
	all := keys(translate.NameOf(tenantClaim), kindClaim, kindClaimStatus)
	for _, tenantPod := range indexed[*corev1.Pod](s.caches.tenant.pods, byClaim, translate.NameOf(tenantClaim).String()) {
		if _, onHost := s.hostPods().Cached(translate.NameOf(tenantPod)); !onHost {
			all = append(all, keys(translate.NameOf(tenantPod), kindPod)...)
		}
	}
	return all
}

// ofHostClaim: the claim, and the view of its volume.
func (s *Syncer) ofHostClaim(hostClaim *corev1.PersistentVolumeClaim) []engine.Key {
	owner, err := s.hostClaims().Owner(hostClaim)
	name, ok := s.owner(hostClaim)
	if err != nil || !ok {
		return nil
	}
	return append(keys(name, kindClaim, kindClaimStatus), keys(tenant.Name{Name: translate.VolumeName(owner)}, kindVolume)...)
}

// claimNames are the keys of an index of pods by their claims.
func claimNames(tenantPod *corev1.Pod) []string {
	var names []string
	for _, use := range translate.Claims(tenantPod) {
		names = append(names, use.Name)
	}
	return inNamespace(tenantPod, names)
}
