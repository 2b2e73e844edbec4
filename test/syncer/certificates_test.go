package syncer

import (
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"maps"
	"math/big"
	"strings"
	"testing"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// certified is a pod of one container that asks a signer for certificates, one for each
// type of key, and a file name for each.
func certified(namespace, name, signer string, keyTypes ...string) *corev1.Pod {
	pod := simplePod(namespace, name)
	v := &corev1.ProjectedVolumeSource{}
	for _, kind := range keyTypes {
		v.Sources = append(v.Sources, corev1.VolumeProjection{PodCertificate: &corev1.PodCertificateProjection{
			SignerName: signer, KeyType: kind, CredentialBundlePath: kind + ".pem", UserAnnotations: map[string]string{"example.com/path": "/" + kind},
		}})
	}
	pod.Spec.Volumes = []corev1.Volume{{Name: "tls", VolumeSource: corev1.VolumeSource{Projected: v}}}
	return pod
}

// requestsOf are the requests for a pod's certificates that nobody has answered.
func requestsOf(t *testing.T, own *corev1.Pod) []certificatesv1.PodCertificateRequest {
	t.Helper()
	list, err := w.tenant.CertificatesV1().PodCertificateRequests(own.Namespace).List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var open []certificatesv1.PodCertificateRequest
	for _, r := range list.Items {
		if r.Spec.PodUID == own.UID && len(r.Status.Conditions) == 0 {
			open = append(open, r)
		}
	}
	return open
}

// waitRequests waits for so many requests that nobody has answered.
func waitRequests(t *testing.T, own *corev1.Pod, n int) []certificatesv1.PodCertificateRequest {
	t.Helper()
	var open []certificatesv1.PodCertificateRequest
	wait(t, "requests", func() (bool, any) { open = requestsOf(t, own); return len(open) == n, open })
	return open
}

// sign answers a request as a signer does.
func sign(t *testing.T, ca authority, r certificatesv1.PodCertificateRequest, life time.Duration) {
	t.Helper()
	csr, err := x509.ParseCertificateRequest(r.Spec.StubPKCS10Request)
	if err != nil || csr.CheckSignature() != nil {
		t.Fatal(err, "no proof of the key")
	}
	now := time.Now().Truncate(time.Second)
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: serial, NotBefore: now, NotAfter: now.Add(life), DNSNames: []string{r.Spec.PodName}}
	der, err := x509.CreateCertificate(rand.Reader, template, ca.certificate, csr.PublicKey, ca.key)
	if err != nil {
		t.Fatal(err)
	}
	at := func(d time.Duration) *metav1.Time { m := metav1.NewTime(now.Add(d)); return &m }
	r.Status = certificatesv1.PodCertificateRequestStatus{
		Conditions:       []metav1.Condition{{Type: "Issued", Status: metav1.ConditionTrue, Reason: "Test", LastTransitionTime: metav1.Now()}},
		CertificateChain: "a comment\n" + string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})) + ca.pem,
		NotBefore:        at(0), NotAfter: at(life), BeginRefreshAt: at(life / 2),
	}
	if _, err := w.tenant.CertificatesV1().PodCertificateRequests(r.Namespace).UpdateStatus(t.Context(), &r, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
}

// mounted is what the kubelet finds of a host pod's first volume, by path.
func mounted(t *testing.T, hostPod *corev1.Pod) map[string]string {
	t.Helper()
	files := map[string]string{}
	for _, source := range hostPod.Spec.Volumes[0].Projected.Sources {
		if source.PodCertificate != nil || source.Secret == nil {
			t.Fatalf("a source on the host: %+v", source)
		}
		s, err := w.host.CoreV1().Secrets(acme.HostNamespace).Get(t.Context(), source.Secret.Name, metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		for _, item := range source.Secret.Items {
			if value, ok := s.Data[item.Key]; ok {
				files[item.Path] = string(value)
			}
		}
	}
	return files
}

// waitMounted waits until the files are what is asked for.
func waitMounted(t *testing.T, hostPod *corev1.Pod, what string, is func(map[string]string) bool) map[string]string {
	t.Helper()
	var files map[string]string
	wait(t, what, func() (bool, any) { files = mounted(t, hostPod); return is(files), len(files) })
	return files
}

// TestCertificatesAreIssuedAndReplaced: a certificate for each source, whose keys never
// are in the tenant's API; another in time; and the end with the pod. The syncer is
// restarted while it waits for answers.
func TestCertificatesAreIssuedAndReplaced(t *testing.T) {
	ns, ca := namespace(t), newAuthority(t, "ca")
	shift := max(0, time.Until(w.clock.Now())).Round(time.Second) // by tests before
	life := time.Hour + 2*shift
	own := create(t, certified(ns, "web", "example.com/"+strings.ToLower(rand.Text()), "ED25519", "ECDSAP256", "RSA3072"))
	hostPod := waitHostPod(t, ns, "web", own.UID)
	open := waitRequests(t, own, 3)
	node, err := w.tenant.CoreV1().Nodes().Get(t.Context(), acme.ID.NodeName(hostNode), metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range open {
		if r.Spec.NodeUID != node.UID || string(r.Spec.NodeName) != node.Name || r.Spec.ServiceAccountName != "default" || r.Spec.UnverifiedUserAnnotations["example.com/path"] == "" {
			t.Errorf("%+v", r.Spec)
		}
	}
	if files := mounted(t, hostPod); len(files) > 0 {
		t.Errorf("the pod can start: %v", slicesOf(files))
	}
	w.restart()
	sign(t, ca, open[0], life)
	waitMounted(t, hostPod, "one file", func(f map[string]string) bool { return len(f) == 1 })
	if err := w.tenant.CertificatesV1().PodCertificateRequests(ns).Delete(t.Context(), open[1].Name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	for _, r := range waitRequests(t, own, 2) {
		sign(t, ca, r, life)
	}
	first := waitMounted(t, hostPod, "all files", func(f map[string]string) bool { return len(f) == 3 })
	for path, text := range first {
		pair, err := tls.X509KeyPair([]byte(text), []byte(text))
		if err != nil || len(pair.Certificate) != 2 || strings.Contains(text, "comment") {
			t.Errorf("%s: %v", path, err)
		}
	}
	w.clock.forward(life/2 - shift + 6*time.Minute) // half of their life, and the jitter
	again := waitRequests(t, own, 3)
	if now := mounted(t, hostPod); !maps.Equal(now, first) {
		t.Error("the certificates changed before there are others")
	}
	for _, r := range again {
		sign(t, ca, r, 24*time.Hour)
	}
	waitMounted(t, hostPod, "other files", func(f map[string]string) bool {
		for path, text := range f {
			if text == first[path] {
				return false
			}
		}
		return len(f) == 3
	})
	dropPod(t, own, hostPod)
	wait(t, "end of the keys", func() (bool, any) {
		_, err := w.host.CoreV1().Secrets(acme.HostNamespace).Get(t.Context(), hostName(ns, "web:certificates"), metav1.GetOptions{})
		return apierrors.IsNotFound(err), err
	})
}

func slicesOf(m map[string]string) []string {
	var paths []string
	for path := range m {
		paths = append(paths, path)
	}
	return paths
}

// TestDeniedCertificateIsTold: the pod waits, nothing is asked again, and another
// certificate of the pod is not held up.
func TestDeniedCertificateIsTold(t *testing.T) {
	ns, ca := namespace(t), newAuthority(t, "ca")
	own := create(t, certified(ns, "web", "example.com/"+strings.ToLower(rand.Text()), "ED25519", "ECDSAP384"))
	hostPod := waitHostPod(t, ns, "web", own.UID)
	open := waitRequests(t, own, 2)
	denied := open[0]
	denied.Status.Conditions = []metav1.Condition{{Type: "Denied", Status: metav1.ConditionTrue, Reason: "UnsupportedKeyType", Message: "not this one", LastTransitionTime: metav1.Now()}}
	if _, err := w.tenant.CertificatesV1().PodCertificateRequests(ns).UpdateStatus(t.Context(), &denied, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	waitEvent(t, ns, "web", "Denied", "UnsupportedKeyType: not this one")
	sign(t, ca, open[1], 24*time.Hour)
	files := waitMounted(t, hostPod, "the other file", func(f map[string]string) bool { return len(f) > 0 })
	if len(files) != 1 || len(requestsOf(t, own)) != 0 {
		t.Errorf("%v, and %d requests", slicesOf(files), len(requestsOf(t, own)))
	}
}

// TestForgedRequestGivesNoCertificate: another pod's owner makes a request for the pod,
// with a key of its own, and has it signed.
func TestForgedRequestGivesNoCertificate(t *testing.T) {
	ns, ca := namespace(t), newAuthority(t, "ca")
	signer := "example.com/" + strings.ToLower(rand.Text())
	own := create(t, certified(ns, "web", signer, "ED25519"))
	hostPod := waitHostPod(t, ns, "web", own.UID)
	real := waitRequests(t, own, 1)[0]
	other := create(t, certified(ns, "other", signer, "ED25519"))
	waitHostPod(t, ns, "other", other.UID)
	foreign := waitRequests(t, other, 1)[0]
	forged := &certificatesv1.PodCertificateRequest{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: real.Name + "x"}, Spec: real.Spec}
	forged.Spec.StubPKCS10Request = foreign.Spec.StubPKCS10Request
	forged, err := w.tenant.CertificatesV1().PodCertificateRequests(ns).Create(t.Context(), forged, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	requests := w.tenant.CertificatesV1().PodCertificateRequests(ns)
	sign(t, ca, *forged, 24*time.Hour)
	sign(t, ca, foreign, 24*time.Hour) // the control: the syncer takes what is asked
	waitMounted(t, waitHostPod(t, ns, "other", other.UID), "the other pod's file", func(f map[string]string) bool { return len(f) == 1 })
	if files := mounted(t, hostPod); len(files) > 0 {
		t.Fatal("a forged request gave the pod a certificate")
	}
	if got, err := requests.Get(t.Context(), real.Name, metav1.GetOptions{}); err != nil || got.UID != real.UID {
		t.Errorf("the pod's own request: %v %v", got, err)
	}
	sign(t, ca, real, 24*time.Hour)
	waitMounted(t, hostPod, "the pod's file", func(f map[string]string) bool { return len(f) == 1 })
}
