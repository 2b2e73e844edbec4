package syncer

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"strings"
	"testing"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"sublet.dev/isolation/tenant"
)

// authority is a certificate authority that a tenant might have.
type authority struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
	pem         string
}

func newAuthority(t *testing.T, name string) authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(100 * 24 * time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return authority{certificate, key, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))}
}

// trustVolume is a pod's volume with a trust bundle.
func trustVolume(p corev1.ClusterTrustBundleProjection) []corev1.Volume {
	p.Path = "ca.pem"
	return []corev1.Volume{{Name: "trust", VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{
		Sources: []corev1.VolumeProjection{{ClusterTrustBundle: &p}},
	}}}}
}

// trustMap is the name of the ConfigMap that a host pod's first volume takes its bundle
// from.
func trustMap(t *testing.T, hostPod *corev1.Pod) string {
	t.Helper()
	sources := hostPod.Spec.Volumes[0].Projected.Sources
	if len(sources) != 1 || sources[0].ClusterTrustBundle != nil || sources[0].ConfigMap == nil || sources[0].ConfigMap.Optional != nil {
		t.Fatalf("sources on the host: %+v", sources)
	}
	return sources[0].ConfigMap.Name
}

func writeBundle(t *testing.T, name, signer string, labels map[string]string, text string) {
	t.Helper()
	_, err := w.tenant.CertificatesV1().ClusterTrustBundles().Create(t.Context(), &certificatesv1.ClusterTrustBundle{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels},
		Spec:       certificatesv1.ClusterTrustBundleSpec{SignerName: signer, TrustBundle: text},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
}

// anchors is the only value of a host ConfigMap; "none" without one.
func anchors(t *testing.T, name string) string {
	t.Helper()
	m, err := w.host.CoreV1().ConfigMaps(acme.HostNamespace).Get(t.Context(), name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return "none"
	}
	if err != nil {
		t.Fatal(err)
	}
	if len(m.Data) != 1 || len(m.BinaryData) > 0 {
		t.Fatalf("%d values", len(m.Data))
	}
	for _, v := range m.Data {
		return v
	}
	return ""
}

// TestTrustBundlesFollow: the pod is on the host while its bundle is missing, whose
// coming, changes and end reach the host, in one object for all pods, until the last
// pod is gone.
func TestTrustBundlesFollow(t *testing.T) {
	ns, signer := namespace(t), "example.com/trust-"+rand.Text()
	signer = strings.ToLower(signer)
	prefix := strings.ReplaceAll(signer, "/", ":") + ":"
	a, b := newAuthority(t, "a"), newAuthority(t, "b")
	alive := map[string]string{"alive": "yes"}
	var pods, hostPods []*corev1.Pod
	for _, name := range []string{"one", "two"} {
		own := simplePod(ns, name)
		own.Spec.Volumes = trustVolume(corev1.ClusterTrustBundleProjection{SignerName: &signer, LabelSelector: &metav1.LabelSelector{MatchLabels: alive}})
		own = create(t, own)
		pods, hostPods = append(pods, own), append(hostPods, waitHostPod(t, ns, name, own.UID))
	}
	name := trustMap(t, hostPods[0])
	if other := trustMap(t, hostPods[1]); other != name {
		t.Errorf("two pods that ask for the same have %s and %s", name, other)
	}
	if got := anchors(t, name); got != "none" {
		t.Fatalf("a bundle that is not there: %q", got)
	}
	writeBundle(t, prefix+"foreign-label", signer, map[string]string{"alive": "no"}, b.pem)
	writeBundle(t, prefix+"a", signer, alive, "# root\n"+a.pem)
	is := func(what string, want ...string) {
		t.Helper()
		wait(t, what, func() (bool, any) {
			got := anchors(t, name)
			n := 0
			for _, w := range want {
				n += len(w)
				if !strings.Contains(got, w) {
					return false, got
				}
			}
			return len(got) == n, got
		})
	}
	is("the first bundle", a.pem)
	bundles := w.tenant.CertificatesV1().ClusterTrustBundles()
	if _, err := bundles.Patch(t.Context(), prefix+"foreign-label", types.MergePatchType, []byte(`{"metadata":{"labels":{"alive":"yes"}}}`), metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	is("the second bundle", a.pem, b.pem)
	hostMaps := w.host.CoreV1().ConfigMaps(acme.HostNamespace)
	if _, err := hostMaps.Patch(t.Context(), name, types.MergePatchType, []byte(`{"data":{"anchors":"drift"}}`), metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	is("repair of a drift", a.pem, b.pem)
	if err := hostMaps.Delete(t.Context(), name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	is("repair of a deletion", a.pem, b.pem)
	if err := bundles.Delete(t.Context(), prefix+"a", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	is("one bundle", b.pem)
	dropPod(t, pods[0], hostPods[0])
	w.restart()
	is("the bundle of the other pod", b.pem)
	dropPod(t, pods[1], hostPods[1])
	is("end with the last pod", "none")
}

// TestTrustBundleOptional: one that may be missing is an empty file meanwhile.
func TestTrustBundleOptional(t *testing.T) {
	ns, bundle, yes := namespace(t), "optional-"+strings.ToLower(rand.Text()), true
	own := simplePod(ns, "web")
	own.Spec.Volumes = trustVolume(corev1.ClusterTrustBundleProjection{Name: &bundle, Optional: &yes})
	own = create(t, own)
	name := trustMap(t, waitHostPod(t, ns, "web", own.UID))
	if got := anchors(t, name); got != "" {
		t.Errorf("%q, want an empty file", got)
	}
	ca := newAuthority(t, "ca")
	writeBundle(t, bundle, "", nil, ca.pem)
	wait(t, "the bundle", func() (bool, any) { got := anchors(t, name); return got == ca.pem, got })
}

// TestTrustBundleOfOthersIsNotTaken: what stands on the host under the name of the
// bundle, or in the host's own API, is not the tenant's.
func TestTrustBundleOfOthersIsNotTaken(t *testing.T) {
	ns, bundle := namespace(t), "foreign-"+strings.ToLower(rand.Text())
	ca := newAuthority(t, "host")
	_, err := w.host.CertificatesV1().ClusterTrustBundles().Create(t.Context(), &certificatesv1.ClusterTrustBundle{
		ObjectMeta: metav1.ObjectMeta{Name: bundle}, Spec: certificatesv1.ClusterTrustBundleSpec{TrustBundle: ca.pem},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	own := simplePod(ns, "web")
	own.Spec.Volumes = trustVolume(corev1.ClusterTrustBundleProjection{Name: &bundle})
	own = create(t, own)
	hostPod := waitHostPod(t, ns, "web", own.UID)
	name := trustMap(t, hostPod)
	waitSecret(t, hostName(ns, "web:tokens")) // the pod has all that it gets
	if got := anchors(t, name); got != "none" {
		t.Fatalf("the host's bundle is the tenant's: %q", got)
	}
	hostMaps := w.host.CoreV1().ConfigMaps(acme.HostNamespace)
	labels, annotations := tenant.Owner{Tenant: "another", Name: tenant.Name{Name: bundle}, UID: "u"}.Marks()
	foreign, err := hostMaps.Create(t.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels, Annotations: annotations}, Data: map[string]string{"anchors": "not ours"}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	mine := newAuthority(t, "mine")
	writeBundle(t, bundle, "", nil, mine.pem)
	other := create(t, simplePod(ns, "other")) // the syncer went on
	waitHostPod(t, ns, "other", other.UID)
	if now, err := hostMaps.Get(t.Context(), name, metav1.GetOptions{}); err != nil || now.ResourceVersion != foreign.ResourceVersion {
		t.Errorf("the foreign object was touched: %v %v", now, err)
	}
	if err := hostMaps.Delete(t.Context(), name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	wait(t, "the tenant's bundle", func() (bool, any) { got := anchors(t, name); return got == mine.pem, got })
}
