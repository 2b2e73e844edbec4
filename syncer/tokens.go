package syncer

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"sublet.dev/syncer/engine"
	"sublet.dev/syncer/translate"
)

// podTokens mirrors the service account tokens of a pod: issued by the tenant's
// API for that very pod, kept in a host Secret, replaced in time.
func (s *Syncer) podTokens() engine.Pass {
	return &engine.Mirror[*corev1.Pod, *corev1.Secret]{
		Name:   kindPod,
		Source: fromTenant[*corev1.Pod](s.caches.tenant.pods),
		Target: s.hostSecrets(translate.SuffixTokens),
		Want:   s.wantTokens,
		Merge:  translate.MergeSecret,
	}
}

// wantTokens keeps the tokens that are fresh and asks for the others. A pod that
// ends gets no new ones, and one that is not bound yet has none: a token says on
// which node its pod is.
func (s *Syncer) wantTokens(ctx context.Context, tenantPod *corev1.Pod, have *corev1.Secret) (engine.Want[*corev1.Secret], error) {
	tokens := translate.Tokens(tenantPod)
	if len(tokens) == 0 {
		return engine.Gone[*corev1.Secret](nil), nil
	}
	if !onNode(tenantPod) {
		return engine.Leave[*corev1.Secret](), nil
	}
	now, secret := s.config.Clock.Now(), s.t.TokenSecret(tenantPod, have)
	var again time.Duration
	for _, token := range tokens {
		if token.Fresh(secret, now) <= 0 {
			if err := s.issue(ctx, tenantPod, token, secret, now); err != nil {
				s.mountFails(tenantPod, err)
				return engine.Leave[*corev1.Secret](), err
			}
		}
		if fresh := token.Fresh(secret, now); again == 0 || fresh < again {
			again = fresh
		}
	}
	want := engine.Be(secret)
	want.Again = again
	return want, nil
}

func (s *Syncer) issue(ctx context.Context, tenantPod *corev1.Pod, token translate.Token, secret *corev1.Secret, now time.Time) error {
	account := tenantPod.Spec.ServiceAccountName
	issued, err := s.tenantAPI.CoreV1().ServiceAccounts(tenantPod.Namespace).CreateToken(ctx, account, token.Request(tenantPod), metav1.CreateOptions{})
	if err != nil {
		return fmt.Errorf("token of service account %s/%s: %w", tenantPod.Namespace, account, err)
	}
	token.Put(secret, &issued.Status, now)
	return nil
}

// onNode says whether a kubelet would mount the volumes of a tenant's pod now.
func onNode(tenantPod *corev1.Pod) bool {
	return tenantPod.Spec.NodeName != "" && tenantPod.DeletionTimestamp == nil && !translate.Ended(tenantPod)
}

// reasonMount is the kubelet's own for volumes that it cannot mount.
const reasonMount = "FailedMount"

// mountFails tells the tenant of what its own API refuses its pod: no kubelet knows.
func (s *Syncer) mountFails(tenantPod *corev1.Pod, err error) {
	if status := apierrors.APIStatus(nil); errors.As(err, &status) && status.Status().Code < http.StatusInternalServerError {
		s.held.tell(tenantPod, corev1.EventTypeWarning, reasonMount, err.Error())
	}
}
