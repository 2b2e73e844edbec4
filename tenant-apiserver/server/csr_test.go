package server

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"testing"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/util/keyutil"
)

// request makes a CertificateSigningRequest for jane.
func request(t *testing.T, name, signer string, groups ...string) (*certificatesv1.CertificateSigningRequest, []byte) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: "jane", Organization: groups}}, key)
	if err != nil {
		t.Fatal(err)
	}
	keyPEM, err := keyutil.MarshalPrivateKeyToPEM(key)
	if err != nil {
		t.Fatal(err)
	}
	return &certificatesv1.CertificateSigningRequest{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: certificatesv1.CertificateSigningRequestSpec{
			Request:    pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}),
			SignerName: signer,
			Usages:     []certificatesv1.KeyUsage{certificatesv1.UsageClientAuth},
		},
	}, keyPEM
}

// A request that the tenant's admin approved is signed by the tenant's authority,
// and the certificate is good for the tenant's API and no other.
func TestCertificateSigningRequests(t *testing.T) {
	config := w.a.admin(t)
	requests := client(t, config).CertificatesV1().CertificateSigningRequests()
	csr, key := request(t, "jane", certificatesv1.KubeAPIServerClientSignerName)
	csr, err := requests.Create(t.Context(), csr, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	csr.Status.Conditions = []certificatesv1.CertificateSigningRequestCondition{{
		Type: certificatesv1.CertificateApproved, Status: corev1.ConditionTrue, Reason: "Test",
	}}
	if _, err = requests.UpdateApproval(t.Context(), "jane", csr, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	await(t, "certificate", func(ctx context.Context) (bool, error) {
		csr, err = requests.Get(ctx, "jane", metav1.GetOptions{})
		return err == nil && len(csr.Status.Certificate) > 0, err
	})
	if _, err := tls.X509KeyPair(csr.Status.Certificate, key); err != nil {
		t.Fatal(err)
	}
	for _, m := range []*member{w.a, w.b} {
		c := rest.AnonymousClientConfig(m.admin(t))
		c.CertData, c.KeyData = csr.Status.Certificate, key
		_, err := client(t, c).CoreV1().Namespaces().List(t.Context(), metav1.ListOptions{})
		if m == w.a {
			wantForbidden(t, err, `User "jane" cannot list resource "namespaces"`)
		} else if !apierrors.IsUnauthorized(err) {
			t.Errorf("the other tenant answers %v, want 401", err)
		}
	}
	masters, _ := request(t, "masters", certificatesv1.KubeAPIServerClientSignerName, "system:masters")
	_, err = requests.Create(t.Context(), masters, metav1.CreateOptions{})
	wantForbidden(t, err, "system:masters")
}
