package translate

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"slices"
	"strings"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"

	"sublet.dev/isolation/tenant"
)

// AnchorsPrefix begins the names of trust anchors. No object of a tenant can have such
// a name.
const AnchorsPrefix = ":anchors-"

// anchorsKey is the key of the ConfigMap under which the certificates stand.
const anchorsKey = "anchors"

// secretMode is the mode of projected files whose volume has a group, as the kubelet
// gives it to what it makes itself.
const secretMode int32 = 0o600

// Anchors are the certificates that one source of a projected volume asks for: those
// of the ClusterTrustBundle of a name, or of all that a signer's selector matches. All
// sources of a tenant's pods that ask for the same are the same Anchors: they have the
// same name and UID, which are made from what is asked for, and no namespace.
type Anchors struct {
	metav1.ObjectMeta
	bundle, signer string // one of them is empty
	selector       labels.Selector
	optional       bool
}

func anchorsOf(p *corev1.ClusterTrustBundleProjection) *Anchors {
	a := &Anchors{optional: p.Optional != nil && *p.Optional, selector: labels.Nothing()}
	switch {
	case p.Name != nil:
		a.bundle = *p.Name
	case p.SignerName != nil:
		a.signer = *p.SignerName
		// One that does not parse, which the tenant's API lets nobody write, matches nothing.
		if selector, err := metav1.LabelSelectorAsSelector(p.LabelSelector); err == nil {
			a.selector = selector
		}
	}
	asked, _ := json.Marshal([]any{a.bundle, a.signer, p.LabelSelector, a.optional}) // strings and maps of them: it cannot fail
	hash := sha256.Sum256(asked)
	a.Name = AnchorsPrefix + hex.EncodeToString(hash[:16])
	a.UID = types.UID(hex.EncodeToString(hash[:]))
	return a
}

// AnchorsOf lists the different trust anchors that a pod asks for.
func AnchorsOf(tenantPod *corev1.Pod) []*Anchors {
	var all []*Anchors
	seen := map[string]bool{}
	eachProjection(tenantPod, func(_ string, _ int, s *corev1.VolumeProjection) {
		if s.ClusterTrustBundle == nil {
			return
		}
		if a := anchorsOf(s.ClusterTrustBundle); !seen[a.Name] {
			seen[a.Name] = true
			all = append(all, a)
		}
	})
	return all
}

// eachProjection calls f for every source of every projected volume of a pod, with the
// volume's name and the source's place in it.
func eachProjection(tenantPod *corev1.Pod, f func(volume string, i int, s *corev1.VolumeProjection)) {
	for _, v := range tenantPod.Spec.Volumes {
		if v.Projected == nil {
			continue
		}
		for i := range v.Projected.Sources {
			f(v.Name, i, &v.Projected.Sources[i])
		}
	}
}

// The indexes of bundles and of those who ask for them: what [BundleKeys] and
// [Anchors.BundleKey] say.
const (
	bundleByName   = "name/"
	bundleBySigner = "signer/"
)

// BundleKeys are the keys of those Anchors that a bundle may belong to.
func BundleKeys(bundle *certificatesv1.ClusterTrustBundle) []string {
	keys := []string{bundleByName + bundle.Name}
	if bundle.Spec.SignerName != "" {
		keys = append(keys, bundleBySigner+bundle.Spec.SignerName)
	}
	return keys
}

// BundleKey is the key that all bundles have which may belong to the Anchors.
func (a *Anchors) BundleKey() string {
	if a.bundle != "" {
		return bundleByName + a.bundle
	}
	return bundleBySigner + a.signer
}

// holds says whether a bundle belongs to the Anchors.
func (a *Anchors) holds(bundle *certificatesv1.ClusterTrustBundle) bool {
	if a.bundle != "" {
		return bundle.Name == a.bundle
	}
	return a.signer != "" && bundle.Spec.SignerName == a.signer && a.selector.Matches(labels.Set(bundle.Labels))
}

// TrustAnchors returns the host ConfigMap of Anchors, with the certificates of those
// of the bundles that belong to them, each once, in PEM without headers and comments.
// It is nil while none belongs to them, unless that is allowed: then a pod does not
// start.
func (t Translation) TrustAnchors(a *Anchors, bundles []*certificatesv1.ClusterTrustBundle) *corev1.ConfigMap {
	found := false
	certificates := map[string]bool{}
	for _, bundle := range bundles {
		if a.holds(bundle) {
			found = true
			addCertificates(certificates, bundle.Spec.TrustBundle)
		}
	}
	if !found && !a.optional {
		return nil
	}
	var text strings.Builder
	for _, der := range sortedKeys(certificates) {
		text.Write(pem.EncodeToMemory(&pem.Block{Type: pemCertificate, Bytes: []byte(der)}))
	}
	return &corev1.ConfigMap{ObjectMeta: t.hostMeta(a, ""), Data: map[string]string{anchorsKey: text.String()}}
}

// pemCertificate is the type of PEM blocks that hold certificates (RFC 7468, 5).
const pemCertificate = "CERTIFICATE"

func addCertificates(to map[string]bool, text string) {
	for block, rest := pem.Decode([]byte(text)); block != nil; block, rest = pem.Decode(rest) {
		if block.Type == pemCertificate {
			to[string(block.Bytes)] = true
		}
	}
}

func sortedKeys(m map[string]bool) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// IsAnchors says whether a name that the marks of a host ConfigMap give is that of
// [Anchors].
func IsAnchors(name tenant.Name) bool {
	return name.Namespace == "" && strings.HasPrefix(name.Name, AnchorsPrefix)
}

// trustBundle returns the host's source for a tenant's.
func (b *podBuilder) trustBundle(from *corev1.ClusterTrustBundleProjection) *corev1.ConfigMapProjection {
	to := &corev1.ConfigMapProjection{Items: []corev1.KeyToPath{{Key: anchorsKey, Path: from.Path, Mode: b.madeMode()}}}
	to.Name = b.hostName("", anchorsOf(from).Name)
	return to
}

// madeMode is the mode of a file that the kubelet would make; nil for the volume's.
func (b *podBuilder) madeMode() *int32 {
	if sc := b.tenantPod.Spec.SecurityContext; sc == nil || sc.FSGroup == nil {
		return nil
	}
	mode := secretMode
	return &mode
}
