package syncer

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"fmt"
	"maps"
	mathrand "math/rand/v2"
	"slices"
	"strings"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"sublet.dev/isolation/tenant"
	"sublet.dev/syncer/engine"
	"sublet.dev/syncer/translate"
)

// refreshJitter spreads over so much time what pods of one moment ask for again, as the
// kubelet does it.
const refreshJitter = 5 * time.Minute

// podCertificates mirrors the certificates of a pod: asked for in the tenant's API as
// the kubelet of its node would, kept in a host Secret with their keys, replaced in
// time. A key is stored before it is asked for, so that a certificate always finds it.
// It is in this process only while a pass needs it, and never in the tenant's API.
func (s *Syncer) podCertificates() engine.Pass {
	return &engine.Mirror[*corev1.Pod, *corev1.Secret]{
		Name:   kindPod,
		Source: fromTenant[*corev1.Pod](s.caches.tenant.pods),
		Target: s.hostSecrets(translate.SuffixCertificates),
		Want:   s.wantCertificates,
		Merge:  translate.MergeSecret,
	}
}

func (s *Syncer) wantCertificates(ctx context.Context, tenantPod *corev1.Pod, have *corev1.Secret) (engine.Want[*corev1.Secret], error) {
	asked := translate.Certificates(tenantPod)
	if len(asked) == 0 {
		return engine.Gone[*corev1.Secret](nil), nil
	}
	if !onNode(tenantPod) {
		return engine.Leave[*corev1.Secret](), nil
	}
	secret := s.t.CertificateSecret(tenantPod, have)
	var again time.Duration
	var errs []error
	for _, c := range asked {
		next, err := s.certify(ctx, tenantPod, c, secret)
		if errs = append(errs, err); next > 0 && (again == 0 || next < again) {
			again = next
		}
	}
	if err := errors.Join(errs...); err != nil && have != nil && maps.EqualFunc(secret.Data, have.Data, slices.Equal) {
		s.mountFails(tenantPod, err)
		return engine.Leave[*corev1.Secret](), err
	}
	want := engine.Be(secret) // what failed is tried again when it is written
	want.Again = again
	return want, nil
}

// certify does the next step for a certificate in the Secret that is going to be
// written, and says when there is another one to do by itself.
func (s *Syncer) certify(ctx context.Context, tenantPod *corev1.Pod, c translate.Certificate, secret *corev1.Secret) (again time.Duration, err error) {
	if c.Ended(secret) {
		return 0, nil
	}
	key, name, asking := c.Asking(secret)
	if !asking {
		if fresh := c.Fresh(secret, s.config.Clock.Now()); fresh > 0 {
			return fresh, nil
		}
		return 0, s.ask(ctx, c, secret)
	}
	request, err := s.request(ctx, tenantPod, c, key, name)
	if err != nil {
		return 0, err
	}
	if !c.Asks(request, tenantPod, key) {
		return 0, s.ask(ctx, c, secret) // somebody else's, in the way
	}
	issued, refusal := translate.Answer(request)
	switch {
	case refusal != nil:
		s.refused(tenantPod, c, secret, request.Name, refusal.Type, refusal.Reason+": "+refusal.Message)
	case issued:
		now := s.config.Clock.Now()
		if err := c.Take(secret, key, &request.Status, now, mathrand.N(refreshJitter)); err != nil {
			s.refused(tenantPod, c, secret, request.Name, certificatesv1.PodCertificateRequestConditionTypeFailed, err.Error())
			return 0, nil
		}
		return c.Fresh(secret, now), nil
	}
	return 0, nil
}

// refused ends the asking for a certificate, as the kubelet does it for as long as the
// pod lives, and tells the tenant.
func (s *Syncer) refused(tenantPod *corev1.Pod, c translate.Certificate, secret *corev1.Secret, request, how, why string) {
	c.End(secret, how)
	s.held.tell(tenantPod, corev1.EventTypeWarning, how, fmt.Sprintf("PodCertificateRequest %s/%s gives no certificate of %q: %s", tenantPod.Namespace, request, c.Asked.SignerName, why))
}

// ask puts a new key and the name of a request into the Secret. The request is made
// when they are stored.
func (s *Syncer) ask(ctx context.Context, c translate.Certificate, secret *corev1.Secret) error {
	var key crypto.Signer
	err := s.config.Host.keys.Do(ctx, s.config.Tenant.ID, func() (err error) {
		key, err = newKey(c.Asked.KeyType)
		return err
	})
	if err != nil {
		return fmt.Errorf("key of a certificate: %w", err)
	}
	return c.Ask(secret, key, "req-"+strings.ToLower(rand.Text()))
}

// newKey makes a key of a type of the API.
func newKey(kind string) (crypto.Signer, error) {
	switch kind {
	case "RSA3072":
		return rsa.GenerateKey(rand.Reader, 3072)
	case "RSA4096":
		return rsa.GenerateKey(rand.Reader, 4096)
	case "ECDSAP256":
		return ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case "ECDSAP384":
		return ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	case "ECDSAP521":
		return ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	case "ED25519":
		_, key, err := ed25519.GenerateKey(rand.Reader)
		return key, err
	default:
		return nil, fmt.Errorf("a type that is not known here: %q", kind)
	}
}

// request returns the request of that name, which it makes if there is none: somebody
// may have deleted it, or nobody made it yet.
func (s *Syncer) request(ctx context.Context, tenantPod *corev1.Pod, c translate.Certificate, key crypto.Signer, name string) (*certificatesv1.PodCertificateRequest, error) {
	if request, ok := fromTenant[*certificatesv1.PodCertificateRequest](s.caches.requests)(tenant.Name{Namespace: tenantPod.Namespace, Name: name}); ok {
		return request, nil
	}
	requests := s.tenantAPI.CertificatesV1().PodCertificateRequests(tenantPod.Namespace)
	request, err := requests.Get(ctx, name, metav1.GetOptions{})
	if !apierrors.IsNotFound(err) {
		return request, err
	}
	account, err := s.tenantAPI.CoreV1().ServiceAccounts(tenantPod.Namespace).Get(ctx, tenantPod.Spec.ServiceAccountName, metav1.GetOptions{})
	if err != nil {
		return nil, fmt.Errorf("service account of a certificate: %w", err)
	}
	node, err := s.tenantAPI.CoreV1().Nodes().Get(ctx, tenantPod.Spec.NodeName, metav1.GetOptions{})
	if err != nil {
		return nil, fmt.Errorf("node of a certificate: %w", err)
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		return nil, fmt.Errorf("request of a certificate: %w", err)
	}
	return requests.Create(ctx, c.Request(name, tenantPod, account.UID, node.UID, csr), metav1.CreateOptions{})
}

// ofRequest: the pod that a certificate is asked for.
func (s *Syncer) ofRequest(request *certificatesv1.PodCertificateRequest) []engine.Key {
	return keys(tenant.Name{Namespace: request.Namespace, Name: request.Spec.PodName}, kindPod)
}
