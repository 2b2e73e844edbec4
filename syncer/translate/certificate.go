package translate

import (
	"bytes"
	"cmp"
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// SuffixCertificates is appended to a pod's name for the host Secret with its
// certificates and their keys. No object of a tenant can have such a name.
const SuffixCertificates = ":certificates"

// The keys of a certificate in the Secret, behind its name. The first three are files
// of the volume; the others are the state, which is nowhere else.
const (
	certBundle  = ".bundle"  // key and chain in one
	certKey     = ".key"     // PEM, PKCS #8
	certChain   = ".chain"   // PEM, the pod's own certificate first
	certRefresh = ".refresh" // when another one is to be asked for
	certNext    = ".next"    // the key of the certificate that is asked for now
	certRequest = ".request" // the name of the request for it
	certEnded   = ".ended"   // why no more is asked for
)

// maxCertificates is the size in bytes of all certificates of a pod: what a Secret can
// hold, with room for state.
const maxCertificates = corev1.MaxSecretSize - 64<<10

// Certificate is one source of a projected volume that asks for a certificate.
type Certificate struct {
	Asked *corev1.PodCertificateProjection
	name  string // of its keys in the Secret
}

func certificateOf(volume string, i int, p *corev1.PodCertificateProjection) Certificate {
	hash := sha256.Sum256(fmt.Appendf(nil, "%d:%s", i, volume))
	return Certificate{Asked: p, name: "certificate-" + hex.EncodeToString(hash[:8])}
}

// Certificates lists the certificates that a pod asks for. Each has a key of its own.
func Certificates(tenantPod *corev1.Pod) []Certificate {
	var all []Certificate
	eachProjection(tenantPod, func(volume string, i int, s *corev1.VolumeProjection) {
		if s.PodCertificate != nil {
			all = append(all, certificateOf(volume, i, s.PodCertificate))
		}
	})
	return all
}

// podCertificate returns the host's source for a tenant's. The kubelet waits for its
// files.
func (b *podBuilder) podCertificate(volume string, i int, from *corev1.PodCertificateProjection) *corev1.SecretProjection {
	to, c := &corev1.SecretProjection{}, certificateOf(volume, i, from)
	to.Name = b.ref(b.tenantPod.Name + SuffixCertificates)
	for _, file := range c.files() {
		to.Items = append(to.Items, corev1.KeyToPath{Key: c.name + file.key, Path: file.path, Mode: b.madeMode()})
	}
	return to
}

type certificateFile struct{ key, path string }

// files are those that the source asks for.
func (c Certificate) files() []certificateFile {
	all := []certificateFile{{certBundle, c.Asked.CredentialBundlePath}, {certKey, c.Asked.KeyPath}, {certChain, c.Asked.CertificateChainPath}}
	return slices.DeleteFunc(all, func(f certificateFile) bool { return f.path == "" })
}

// CertificateSecret returns the host Secret for a pod's certificates, with all that
// have (which may be nil) holds of those that the pod asks for.
func (t Translation) CertificateSecret(tenantPod *corev1.Pod, have *corev1.Secret) *corev1.Secret {
	want := &corev1.Secret{
		ObjectMeta: t.hostMeta(tenantPod, SuffixCertificates),
		Type:       corev1.SecretTypeOpaque,
		Data:       map[string][]byte{},
	}
	if have == nil {
		return want
	}
	for _, c := range Certificates(tenantPod) {
		for _, key := range []string{certBundle, certKey, certChain, certRefresh, certNext, certRequest, certEnded} {
			if value, ok := have.Data[c.name+key]; ok {
				want.Data[c.name+key] = value
			}
		}
	}
	return want
}

// Ended says whether the signer refused the certificate, so that the pod asks for no
// more. What it has it keeps.
func (c Certificate) Ended(hostSecret *corev1.Secret) bool {
	return len(hostSecret.Data[c.name+certEnded]) > 0
}

// End notes why no more is asked for.
func (c Certificate) End(hostSecret *corev1.Secret, why string) {
	c.forget(hostSecret)
	hostSecret.Data[c.name+certEnded] = []byte(cmp.Or(why, "refused"))
}

// Fresh returns how long the certificate may be used before another is to be asked
// for; not positive when that is now.
func (c Certificate) Fresh(hostSecret *corev1.Secret, now time.Time) time.Duration {
	for _, file := range c.files() {
		if len(hostSecret.Data[c.name+file.key]) == 0 {
			return 0
		}
	}
	refresh, err := time.Parse(time.RFC3339Nano, string(hostSecret.Data[c.name+certRefresh]))
	if err != nil {
		return 0
	}
	return refresh.Sub(now)
}

// Ask stores the key of a certificate that is to be asked for, and the name of the
// request.
func (c Certificate) Ask(hostSecret *corev1.Secret, key crypto.Signer, request string) error {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return fmt.Errorf("key of a certificate: %w", err)
	}
	hostSecret.Data[c.name+certNext] = pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
	hostSecret.Data[c.name+certRequest] = []byte(request)
	return nil
}

// Asking returns the key and the name of the request for the certificate that is asked
// for now; false when none is, or when what is stored of it is damaged.
func (c Certificate) Asking(hostSecret *corev1.Secret) (key crypto.Signer, request string, ok bool) {
	block, _ := pem.Decode(hostSecret.Data[c.name+certNext])
	request = string(hostSecret.Data[c.name+certRequest])
	if block == nil || request == "" {
		return nil, "", false
	}
	any, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, "", false
	}
	key, ok = any.(crypto.Signer)
	return key, request, ok
}

func (c Certificate) forget(hostSecret *corev1.Secret) {
	delete(hostSecret.Data, c.name+certNext)
	delete(hostSecret.Data, c.name+certRequest)
}

// Request returns what a kubelet would ask the tenant's API for: csr is a PKCS #10
// request with nothing in it but the key.
func (c Certificate) Request(name string, tenantPod *corev1.Pod, account, node types.UID, csr []byte) *certificatesv1.PodCertificateRequest {
	return &certificatesv1.PodCertificateRequest{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: tenantPod.Namespace, Name: name,
			OwnerReferences: []metav1.OwnerReference{{APIVersion: "v1", Kind: "Pod", Name: tenantPod.Name, UID: tenantPod.UID}},
		},
		Spec: certificatesv1.PodCertificateRequestSpec{
			SignerName: c.Asked.SignerName,
			PodName:    tenantPod.Name, PodUID: tenantPod.UID,
			ServiceAccountName: tenantPod.Spec.ServiceAccountName, ServiceAccountUID: account,
			NodeName: types.NodeName(tenantPod.Spec.NodeName), NodeUID: node,
			MaxExpirationSeconds: c.Asked.MaxExpirationSeconds, StubPKCS10Request: csr,
			UnverifiedUserAnnotations: maps.Clone(c.Asked.UserAnnotations),
		},
	}
}

// Asks says whether a request is the one that was made for the certificate of the pod,
// with that key: nobody can change one, but anybody may make one.
func (c Certificate) Asks(request *certificatesv1.PodCertificateRequest, tenantPod *corev1.Pod, key crypto.Signer) bool {
	csr, err := x509.ParseCertificateRequest(request.Spec.StubPKCS10Request)
	return err == nil && request.Spec.PodUID == tenantPod.UID && request.Spec.SignerName == c.Asked.SignerName && same(csr.PublicKey, key)
}

func same(public crypto.PublicKey, key crypto.Signer) bool {
	of, ok := key.Public().(interface{ Equal(crypto.PublicKey) bool })
	return ok && of.Equal(public)
}

// Answer is what a signer said: nothing yet, a certificate, or why there is none.
func Answer(request *certificatesv1.PodCertificateRequest) (issued bool, refusal *metav1.Condition) {
	for i, c := range request.Status.Conditions {
		switch c.Type {
		case certificatesv1.PodCertificateRequestConditionTypeIssued:
			issued = true
		case certificatesv1.PodCertificateRequestConditionTypeDenied, certificatesv1.PodCertificateRequestConditionTypeFailed:
			refusal = &request.Status.Conditions[i]
		}
	}
	return issued && refusal == nil, refusal
}

// Take puts the certificate that was issued for a key in the place of the one before.
// jitter is how much later than its signer says another is asked for; now is when at the
// earliest, and some seconds more: a signer is the tenant's. It is an error
// if there is no certificate for that key, or one that does not fit; nothing changes
// then.
func (c Certificate) Take(hostSecret *corev1.Secret, key crypto.Signer, status *certificatesv1.PodCertificateRequestStatus, now time.Time, jitter time.Duration) error {
	chain, err := chainFor(key, status.CertificateChain)
	if err != nil {
		return err
	}
	if status.BeginRefreshAt == nil {
		return errors.New("it does not say when to begin to replace it")
	}
	private := hostSecret.Data[c.name+certNext]
	content := map[string][]byte{certBundle: slices.Concat(private, chain), certKey: private, certChain: chain}
	next := maps.Clone(hostSecret.Data)
	for _, file := range c.files() {
		next[c.name+file.key] = content[file.key]
	}
	size := 0
	for _, value := range next {
		size += len(value)
	}
	if size > maxCertificates {
		return fmt.Errorf("the certificates of the pod would have %d bytes together, they may have %d", size, maxCertificates)
	}
	refresh := status.BeginRefreshAt.Add(jitter)
	if earliest := now.Add(leastFresh); refresh.Before(earliest) {
		refresh = earliest
	}
	hostSecret.Data = next
	hostSecret.Data[c.name+certRefresh] = []byte(refresh.UTC().Format(time.RFC3339Nano))
	c.forget(hostSecret)
	return nil
}

// chainFor returns the certificates of a text in PEM, without headers and comments. The
// first one must be that of the key.
func chainFor(key crypto.Signer, text string) ([]byte, error) {
	var chain bytes.Buffer
	for block, rest := pem.Decode([]byte(text)); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != pemCertificate {
			return nil, fmt.Errorf("the chain holds a %q", block.Type)
		}
		if chain.Len() == 0 {
			leaf, err := x509.ParseCertificate(block.Bytes)
			if err != nil {
				return nil, fmt.Errorf("its first certificate: %w", err)
			}
			if !same(leaf.PublicKey, key) {
				return nil, errors.New("its first certificate is for another key")
			}
		}
		chain.Write(pem.EncodeToMemory(&pem.Block{Type: pemCertificate, Bytes: block.Bytes}))
	}
	if chain.Len() == 0 {
		return nil, errors.New("the chain is empty")
	}
	return chain.Bytes(), nil
}
