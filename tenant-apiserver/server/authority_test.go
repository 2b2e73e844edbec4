package server

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net"
	"path/filepath"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/util/cert"

	"sublet.dev/tenant-apiserver/pki"
	"sublet.dev/tenant-apiserver/plan"
)

// changed is a tenant whose CAs change while it runs.
type changed struct {
	*member
	dir string // of its keys
	ns  string
}

// becomes makes a state of its authority the one that holds.
func (c *changed) becomes(t *testing.T, a *pki.Authority, err error) *pki.Authority {
	t.Helper()
	if err == nil {
		err = c.server.SetAuthority(a)
	}
	if err != nil {
		t.Fatal(err)
	}
	c.ca = a
	return a
}

// watches opens a watch.
func (c *changed) watches(t *testing.T, config *rest.Config) watch.Interface {
	t.Helper()
	w, err := client(t, config).CoreV1().ConfigMaps(c.ns).Watch(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Stop)
	return w
}

// goOn wants watches to see an object that somebody makes now.
func (c *changed) goOn(t *testing.T, name string, by *rest.Config, watches map[string]watch.Interface) {
	t.Helper()
	object := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name}}
	if _, err := client(t, by).CoreV1().ConfigMaps(c.ns).Create(t.Context(), object, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	for whose, w := range watches {
		seen := false
		for e := range w.ResultChan() {
			if m, ok := e.Object.(*corev1.ConfigMap); ok && m.Name == name {
				seen = true
				break
			}
		}
		if !seen {
			t.Errorf("the watch of %s was cut before it saw %s", whose, name)
		}
	}
}

// token is a client with a token of a service account that knows the server as its pods
// do.
func (c *changed) token(t *testing.T, k kubernetes.Interface) *rest.Config {
	t.Helper()
	request, err := k.CoreV1().ServiceAccounts(c.ns).CreateToken(t.Context(), "default", &authenticationv1.TokenRequest{}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	config := rest.AnonymousClientConfig(c.admin(t))
	config.BearerToken = request.Status.Token
	config.CAData = []byte(c.told(t, k, c.ns, "kube-root-ca.crt", "ca.crt", string(c.ca.CAPEM())))
	return config
}

// told waits until a ConfigMap says so.
func (c *changed) told(t *testing.T, k kubernetes.Interface, ns, name, key, want string) string {
	t.Helper()
	var last string
	await(t, name, func(ctx context.Context) (bool, error) {
		m, err := k.CoreV1().ConfigMaps(ns).Get(ctx, name, metav1.GetOptions{})
		if err == nil {
			last = m.Data[key]
		}
		return last == want, nil
	})
	return last
}

// signs waits until CSRs are signed by the CA of that generation.
func (c *changed) signs(t *testing.T, k kubernetes.Interface) {
	t.Helper()
	ca := c.ca.Certificate()
	n := 0
	await(t, "a CSR that is signed by "+ca.Subject.String(), func(ctx context.Context) (bool, error) {
		n++
		leaf, err := signedRequest(ctx, t, k, fmt.Sprintf("csr-%d-%d", c.ca.Generation(), n))
		return err == nil && leaf.CheckSignatureFrom(ca) == nil, err
	})
}

// signedRequest has a request of that name signed.
func signedRequest(ctx context.Context, t *testing.T, k kubernetes.Interface, name string) (*x509.Certificate, error) {
	requests := k.CertificatesV1().CertificateSigningRequests()
	csr, _ := request(t, name, certificatesv1.KubeAPIServerClientSignerName)
	csr, err := requests.Create(ctx, csr, metav1.CreateOptions{})
	if err != nil {
		return nil, err
	}
	csr.Status.Conditions = []certificatesv1.CertificateSigningRequestCondition{{
		Type: certificatesv1.CertificateApproved, Status: corev1.ConditionTrue, Reason: "Test",
	}}
	if _, err = requests.UpdateApproval(ctx, name, csr, metav1.UpdateOptions{}); err != nil {
		return nil, err
	}
	await(t, "certificate", func(ctx context.Context) (bool, error) {
		csr, err = requests.Get(ctx, name, metav1.GetOptions{})
		return err == nil && len(csr.Status.Certificate) > 0, err
	})
	certs, err := cert.ParseCertsPEM(csr.Status.Certificate)
	if err != nil {
		return nil, err
	}
	return certs[0], nil
}

// The CAs change while the control plane runs: what is open goes on, certificates of both
// are good, everybody is told, and new certificates are of the new one. When the old one
// is given up, what was open with its certificates is cut, and nothing else.
func TestCAsChangeWhileItRuns(t *testing.T) {
	c := &changed{member: own(t, "rotating", 9, plan.Terms{})}
	c.dir = filepath.Join(filepath.Dir(c.config.StorePath), "pki")
	first := c.ca
	old, _ := c.recorded(t, "jane")
	k := client(t, old)
	c.ns = metav1.NamespaceDefault
	await(t, "the service account", func(ctx context.Context) (bool, error) {
		_, err := k.CoreV1().ServiceAccounts(c.ns).Get(ctx, "default", metav1.GetOptions{})
		return found(err)
	})
	secret := legacyToken(t, k, c.ns)
	pods := c.token(t, k)
	c.signs(t, k)
	allow(t, k, client(t, pods), c.ns)
	watches := map[string]watch.Interface{"the old certificate": c.watches(t, old), "the token": c.watches(t, pods)}

	second, err := pki.Rotate(c.dir, 2)
	c.becomes(t, second, err)
	fresh, _ := c.recorded(t, "jane")
	fresh.CAData = pemOf(second.Certificate()) // it knows the new one alone
	watches["the new certificate"] = c.watches(t, fresh)
	c.goOn(t, "during", fresh, watches)
	later := rest.CopyConfig(old) // a new connection of somebody who knows the old one alone
	later.Dial = dialAnew()
	c.goOn(t, "by-an-old-certificate", later, watches)
	k = client(t, fresh)
	c.told(t, k, c.ns, "kube-root-ca.crt", "ca.crt", string(second.CAPEM()))
	c.toldTo(t, k, pemOf(first.Certificate()), pemOf(second.Certificate()))
	c.fills(t, k, secret, second)
	c.signs(t, k)
	if n, ok := c.server.OldConnections(); n == 0 || !ok {
		t.Errorf("%d connections of the old CA, %t", n, ok)
	}

	third, err := pki.Finish(c.dir)
	c.becomes(t, third, err)
	for range watches["the old certificate"].ResultChan() { // until it is cut
	}
	delete(watches, "the old certificate")
	if n, ok := c.server.OldConnections(); ok {
		t.Errorf("%d connections of a CA that is given up", n)
	}
	c.goOn(t, "after", fresh, watches)
	trusting := rest.CopyConfig(old) // it knows the server, but the server does not know it
	trusting.CAData = third.CAPEM()
	if _, err := client(t, trusting).CoreV1().Namespaces().List(t.Context(), metav1.ListOptions{}); !apierrors.IsUnauthorized(err) {
		t.Errorf("a certificate of the CA that was given up: %v", err)
	}
	if _, err := client(t, old).CoreV1().Namespaces().List(t.Context(), metav1.ListOptions{}); err == nil {
		t.Error("who knows the CA alone that was given up is answered")
	}
	c.told(t, k, c.ns, "kube-root-ca.crt", "ca.crt", string(third.CAPEM()))
	c.toldTo(t, k, pemOf(second.Certificate()))
	c.fills(t, k, secret, third)
	again := rest.CopyConfig(pods)
	again.CAData = third.CAPEM() // as its pods are told by now
	if _, err := client(t, again).CoreV1().ConfigMaps(c.ns).List(t.Context(), metav1.ListOptions{}); err != nil {
		t.Errorf("a token from before: %v", err)
	}
}

// toldTo waits until aggregated API servers are told those CAs, in any order.
func (c *changed) toldTo(t *testing.T, k kubernetes.Interface, want ...[]byte) {
	t.Helper()
	await(t, "what API servers are told", func(ctx context.Context) (bool, error) {
		m, err := k.CoreV1().ConfigMaps("kube-system").Get(ctx, "extension-apiserver-authentication", metav1.GetOptions{})
		if err != nil {
			return false, nil
		}
		told, err := cert.ParseCertsPEM([]byte(m.Data["client-ca-file"]))
		if err != nil || len(told) != len(want) {
			return false, err
		}
		have := map[string]bool{}
		for _, ca := range told {
			have[string(pemOf(ca))] = true
		}
		for _, ca := range want {
			if !have[string(ca)] {
				return false, nil
			}
		}
		return true, nil
	})
}

// fills waits until a Secret of a service account has those CAs.
func (c *changed) fills(t *testing.T, k kubernetes.Interface, secret string, a *pki.Authority) {
	t.Helper()
	await(t, "the CAs in a Secret", func(ctx context.Context) (bool, error) {
		s, err := k.CoreV1().Secrets(c.ns).Get(ctx, secret, metav1.GetOptions{})
		return err == nil && string(s.Data[corev1.ServiceAccountRootCAKey]) == string(a.CAPEM()), err
	})
}

// legacyToken makes a Secret that is filled with a token, and waits until it is.
func legacyToken(t *testing.T, k kubernetes.Interface, ns string) string {
	t.Helper()
	const name = "legacy"
	_, err := k.CoreV1().Secrets(ns).Create(t.Context(), &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: name, Annotations: map[string]string{corev1.ServiceAccountNameKey: "default"}},
		Type:       corev1.SecretTypeServiceAccountToken,
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	await(t, "the Secret's token", func(ctx context.Context) (bool, error) {
		s, err := k.CoreV1().Secrets(ns).Get(ctx, name, metav1.GetOptions{})
		return err == nil && len(s.Data[corev1.ServiceAccountTokenKey]) > 0, err
	})
	return name
}

// pemOf is a certificate as it is written.
func pemOf(c *x509.Certificate) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: cert.CertificateBlockType, Bytes: c.Raw})
}

// dialAnew is a function of its own, so that a client with it shares no connection.
func dialAnew() func(context.Context, string, string) (net.Conn, error) {
	return (&net.Dialer{}).DialContext
}

// allow lets everybody with a token read ConfigMaps, as pods has one.
func allow(t *testing.T, k, pods kubernetes.Interface, ns string) {
	t.Helper()
	rbac := k.RbacV1()
	role := &rbacv1.Role{
		ObjectMeta: metav1.ObjectMeta{Name: "reader"},
		Rules:      []rbacv1.PolicyRule{{APIGroups: []string{""}, Resources: []string{"configmaps"}, Verbs: []string{"get", "list", "watch"}}},
	}
	if _, err := rbac.Roles(ns).Create(t.Context(), role, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	binding := &rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: "readers"},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: "reader"},
		Subjects:   []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Name: "default", Namespace: ns}},
	}
	if _, err := rbac.RoleBindings(ns).Create(t.Context(), binding, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	await(t, "the permission", func(ctx context.Context) (bool, error) { // who judges watches the bindings
		_, err := pods.CoreV1().ConfigMaps(ns).List(ctx, metav1.ListOptions{})
		if apierrors.IsForbidden(err) {
			return false, nil
		}
		return err == nil, err
	})
}

// The next serving certificate is of the authority that holds.
func TestServingCertificateOfAnotherAuthority(t *testing.T) {
	dir := t.TempDir()
	first, err := pki.LoadOrCreate(dir, "x")
	if err != nil {
		t.Fatal(err)
	}
	config := w.a.config
	config.PKI = first
	s := &servingCert{config: config}
	before := shown(t, s)
	second, err := pki.Rotate(dir, 2)
	if err != nil {
		t.Fatal(err)
	}
	s.set(second)
	now := shown(t, s)
	if before.CheckSignatureFrom(first.Certificate()) != nil || now.CheckSignatureFrom(second.Certificate()) != nil {
		t.Errorf("signed by %s and then by %s", before.Issuer, now.Issuer)
	}
	if now.NotAfter.Before(time.Now().Add(servingTTL - time.Hour)) {
		t.Errorf("good until %s", now.NotAfter)
	}
}
