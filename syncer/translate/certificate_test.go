package translate

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"strings"
	"testing"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func certificatePod(sources ...corev1.PodCertificateProjection) *corev1.Pod {
	pod := plainPod()
	pod.Spec.NodeName, pod.Spec.ServiceAccountName = "view", "robot"
	v := &corev1.ProjectedVolumeSource{}
	for i := range sources {
		v.Sources = append(v.Sources, corev1.VolumeProjection{PodCertificate: &sources[i]})
	}
	pod.Spec.Volumes = []corev1.Volume{{Name: "tls", VolumeSource: corev1.VolumeSource{Projected: v}}}
	return pod
}

func newTestKey(t *testing.T) crypto.Signer {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// issue signs a certificate for a key with another one.
func issue(t *testing.T, public crypto.PublicKey) string {
	t.Helper()
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, public, newTestKey(t))
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Headers: map[string]string{"Note": "x"}, Bytes: der}))
}

func csrOf(t *testing.T, key crypto.Signer) []byte {
	t.Helper()
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		t.Fatal(err)
	}
	return csr
}

// TestCertificateLife: asked for, issued, mounted, replaced, and each step is found in
// the Secret alone.
func TestCertificateLife(t *testing.T) {
	pod := certificatePod(
		corev1.PodCertificateProjection{SignerName: "x/y", KeyType: "ED25519", CredentialBundlePath: "all.pem"},
		corev1.PodCertificateProjection{SignerName: "x/y", KeyType: "ED25519", KeyPath: "key.pem", CertificateChainPath: "chain.pem"},
	)
	tr := Translation{Tenant: testTenant, Lookup: nothing{}, Data: nothing{}}
	all := Certificates(pod)
	if len(all) != 2 || all[0].name == all[1].name {
		t.Fatalf("%+v", all)
	}
	secret := tr.CertificateSecret(pod, nil)
	now := time.Now()
	for _, c := range all {
		if _, _, asking := c.Asking(secret); asking || c.Fresh(secret, now) > 0 || c.Ended(secret) {
			t.Fatal("a new certificate has a state")
		}
		key := newTestKey(t)
		if err := c.Ask(secret, key, "req-1"); err != nil {
			t.Fatal(err)
		}
		secret = tr.CertificateSecret(pod, secret) // what a new syncer reads
		stored, name, asking := c.Asking(secret)
		if !asking || name != "req-1" || !same(key.Public(), stored) {
			t.Fatalf("%v %q %v", stored, name, asking)
		}
		for _, f := range c.files() {
			if len(secret.Data[c.name+f.key]) > 0 {
				t.Errorf("%s is there before it is issued", f.path)
			}
		}
		begin := metav1.NewTime(now.Add(time.Hour))
		if err := c.Take(secret, stored, &certificatesv1.PodCertificateRequestStatus{CertificateChain: issue(t, key.Public()) + issue(t, newTestKey(t).Public()), BeginRefreshAt: &begin}, now, time.Minute); err != nil {
			t.Fatal(err)
		}
		if _, _, asking := c.Asking(secret); asking {
			t.Error("it still asks")
		}
		if fresh := c.Fresh(tr.CertificateSecret(pod, secret), now); fresh < time.Hour || fresh > 62*time.Minute {
			t.Errorf("fresh for %s", fresh)
		}
	}
	checkMounted(t, tr, pod, secret)
}

// checkMounted compares what the kubelet mounts with what there is.
func checkMounted(t *testing.T, tr Translation, pod *corev1.Pod, secret *corev1.Secret) {
	t.Helper()
	hostPod, refused := tr.Pod(pod)
	if len(refused) > 0 {
		t.Fatal(refused)
	}
	files := map[string]string{}
	for _, s := range hostPod.Spec.Volumes[0].Projected.Sources {
		if s.PodCertificate != nil || s.Secret.Name != secret.Name {
			t.Fatalf("%+v", s)
		}
		for _, item := range s.Secret.Items {
			var kinds []string
			rest := secret.Data[item.Key]
			for block, after := pem.Decode(rest); block != nil; block, after = pem.Decode(after) {
				kinds = append(kinds, block.Type)
				if len(block.Headers) > 0 {
					t.Errorf("%s has headers", item.Path)
				}
			}
			files[item.Path] = strings.Join(kinds, " ")
		}
	}
	for path, want := range map[string]string{"all.pem": "PRIVATE KEY CERTIFICATE CERTIFICATE", "key.pem": "PRIVATE KEY", "chain.pem": "CERTIFICATE CERTIFICATE"} {
		if files[path] != want {
			t.Errorf("%s: %q, want %q", path, files[path], want)
		}
	}
}

// TestHostileCertificates: a signer is the tenant's, and may write what it likes.
func TestHostileCertificates(t *testing.T) {
	pod := certificatePod(corev1.PodCertificateProjection{SignerName: "x/y", KeyType: "ED25519", CredentialBundlePath: "all.pem"})
	c := Certificates(pod)[0]
	key, now := newTestKey(t), metav1.Now()
	good := issue(t, key.Public())
	for what, status := range map[string]struct {
		chain string
		begin *metav1.Time
		fits  bool
	}{
		"good":            {good, &now, true}, // the control
		"empty":           {"", &now, false},
		"no time":         {good, nil, false},
		"no PEM":          {"hello", &now, false},
		"another's key":   {issue(t, newTestKey(t).Public()), &now, false},
		"a key inside":    {good + string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: []byte("x")})), &now, false},
		"no certificate":  {string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte("x")})), &now, false},
		"much too large":  {good + strings.Repeat(good, 2*maxCertificates/len(good)), &now, false},
		"text around PEM": {"x\n" + good + "y\n", &now, true},
	} {
		secret := Translation{Tenant: testTenant}.CertificateSecret(pod, nil)
		if err := c.Ask(secret, key, "req-1"); err != nil {
			t.Fatal(err)
		}
		err := c.Take(secret, key, &certificatesv1.PodCertificateRequestStatus{CertificateChain: status.chain, BeginRefreshAt: status.begin}, time.Now(), 0)
		if (err == nil) != status.fits {
			t.Errorf("%s: %v", what, err)
		}
		if _, has := secret.Data[c.name+certBundle]; has != status.fits {
			t.Errorf("%s: there is a file: %v", what, has)
		}
	}
}

// TestRequestIsOurs: who makes a request of a name first does not get a certificate
// into another's pod.
func TestRequestIsOurs(t *testing.T) {
	days := int32(7200)
	pod := certificatePod(corev1.PodCertificateProjection{SignerName: "x/y", KeyType: "ECDSAP256", MaxExpirationSeconds: &days, UserAnnotations: map[string]string{"x/a": "b"}, KeyPath: "k"})
	c := Certificates(pod)[0]
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	request := func() *certificatesv1.PodCertificateRequest {
		return c.Request("req-1", pod, "sa", "node", csrOf(t, key))
	}
	made := request()
	if !c.Asks(made, pod, key) {
		t.Fatal("our own request is not ours")
	}
	if s := made.Spec; s.PodUID != "u1" || s.NodeName != "view" || s.NodeUID != "node" || s.ServiceAccountName != "robot" || s.ServiceAccountUID != "sa" ||
		*s.MaxExpirationSeconds != 7200 || s.UnverifiedUserAnnotations["x/a"] != "b" || made.OwnerReferences[0].UID != "u1" {
		t.Errorf("%+v", made)
	}
	for what, change := range map[string]func(*certificatesv1.PodCertificateRequest){
		"another pod":    func(r *certificatesv1.PodCertificateRequest) { r.Spec.PodUID = "u2" },
		"another signer": func(r *certificatesv1.PodCertificateRequest) { r.Spec.SignerName = "x/z" },
		"another key":    func(r *certificatesv1.PodCertificateRequest) { r.Spec.StubPKCS10Request = csrOf(t, newTestKey(t)) },
		"no key":         func(r *certificatesv1.PodCertificateRequest) { r.Spec.StubPKCS10Request = nil },
	} {
		other := request()
		change(other)
		if c.Asks(other, pod, key) {
			t.Errorf("%s: taken for ours", what)
		}
	}
}

func TestAnswer(t *testing.T) {
	for _, c := range []struct {
		types   []string
		issued  bool
		refusal string
	}{
		{nil, false, ""}, {[]string{"Issued"}, true, ""}, {[]string{"Denied"}, false, "Denied"}, {[]string{"Failed"}, false, "Failed"},
		{[]string{"Issued", "Denied"}, false, "Denied"}, {[]string{"Other"}, false, ""},
	} {
		request := &certificatesv1.PodCertificateRequest{}
		for _, name := range c.types {
			request.Status.Conditions = append(request.Status.Conditions, metav1.Condition{Type: name})
		}
		issued, refusal := Answer(request)
		if issued != c.issued || (refusal == nil) != (c.refusal == "") || refusal != nil && refusal.Type != c.refusal {
			t.Errorf("%v: %v %v", c.types, issued, refusal)
		}
	}
}
