package translate

import (
	"bytes"
	"encoding/pem"
	"strings"
	"testing"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"sublet.dev/isolation/tenant"
)

// block is a PEM block of some bytes.
func block(kind string, headers map[string]string, content string) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: kind, Headers: headers, Bytes: []byte(content)}))
}

func bundle(name, signer, label, text string) *certificatesv1.ClusterTrustBundle {
	return &certificatesv1.ClusterTrustBundle{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"alive": label}},
		Spec:       certificatesv1.ClusterTrustBundleSpec{SignerName: signer, TrustBundle: text},
	}
}

var bundles = []*certificatesv1.ClusterTrustBundle{
	bundle("plain", "", "yes", "a comment\n"+block("CERTIFICATE", map[string]string{"Note": "x"}, "root-b")+block("PRIVATE KEY", nil, "key")+block("CERTIFICATE", nil, "root-a")),
	bundle("x:y:1", "x/y", "yes", block("CERTIFICATE", nil, "root-1")+block("CERTIFICATE", nil, "root-2")),
	bundle("x:y:2", "x/y", "yes", block("CERTIFICATE", nil, "root-2")+block("CERTIFICATE", nil, "root-3")),
	bundle("x:y:3", "x/y", "no", block("CERTIFICATE", nil, "root-4")),
	bundle("x:z:1", "x/z", "yes", block("CERTIFICATE", nil, "root-5")),
}

func contents(t *testing.T, hostMap *corev1.ConfigMap) string {
	if hostMap == nil {
		return "none"
	}
	var all []string
	rest := []byte(hostMap.Data[anchorsKey])
	for len(rest) > 0 {
		b, after := pem.Decode(rest)
		if b == nil || b.Type != "CERTIFICATE" || len(b.Headers) > 0 || !bytes.HasPrefix(rest, []byte("-----BEGIN")) {
			t.Fatalf("not normalised: %q", rest)
		}
		all, rest = append(all, string(b.Bytes)), after
	}
	return strings.Join(all, " ")
}

func TestTrustAnchors(t *testing.T) {
	str := func(s string) *string { return &s }
	yes := true
	alive := &metav1.LabelSelector{MatchLabels: map[string]string{"alive": "yes"}}
	nobody := &metav1.LabelSelector{MatchLabels: map[string]string{"alive": "perhaps"}}
	wrong := &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{Key: "alive", Operator: "Like"}}}
	tr := Translation{Tenant: testTenant}
	names := map[string]string{}
	for what, c := range map[string]struct {
		ask  corev1.ClusterTrustBundleProjection
		want string
	}{
		"by name":                          {corev1.ClusterTrustBundleProjection{Name: str("plain")}, "root-a root-b"},
		"by name, with a signer":           {corev1.ClusterTrustBundleProjection{Name: str("x:z:1")}, "root-5"},
		"by name, not there":               {corev1.ClusterTrustBundleProjection{Name: str("other")}, "none"},
		"by name, not there, optional":     {corev1.ClusterTrustBundleProjection{Name: str("other"), Optional: &yes}, ""},
		"by name, optional":                {corev1.ClusterTrustBundleProjection{Name: str("plain"), Optional: &yes}, "root-a root-b"},
		"selector of nothing":              {corev1.ClusterTrustBundleProjection{SignerName: str("x/y")}, "none"},
		"selector of nothing, optional":    {corev1.ClusterTrustBundleProjection{SignerName: str("x/y"), Optional: &yes}, ""},
		"selector of everything":           {corev1.ClusterTrustBundleProjection{SignerName: str("x/y"), LabelSelector: &metav1.LabelSelector{}}, "root-1 root-2 root-3 root-4"},
		"selector":                         {corev1.ClusterTrustBundleProjection{SignerName: str("x/y"), LabelSelector: alive}, "root-1 root-2 root-3"},
		"selector, no match":               {corev1.ClusterTrustBundleProjection{SignerName: str("x/y"), LabelSelector: nobody}, "none"},
		"selector that does not parse":     {corev1.ClusterTrustBundleProjection{SignerName: str("x/y"), LabelSelector: wrong}, "none"},
		"no signer does not mean any":      {corev1.ClusterTrustBundleProjection{SignerName: str(""), LabelSelector: &metav1.LabelSelector{}}, "none"},
		"nothing at all":                   {corev1.ClusterTrustBundleProjection{}, "none"},
		"a signer that nobody has bundles": {corev1.ClusterTrustBundleProjection{SignerName: str("x/w"), LabelSelector: alive}, "none"},
	} {
		a := anchorsOf(&c.ask)
		hostMap := tr.TrustAnchors(a, bundles)
		if got := contents(t, hostMap); got != c.want {
			t.Errorf("%s: %q, want %q", what, got, c.want)
		}
		if other, taken := names[a.Name]; taken || !IsAnchors(NameOf(a)) {
			t.Errorf("%s and %s have one name: %s", what, other, a.Name)
		}
		names[a.Name] = what
		for _, b := range bundles {
			if a.holds(b) && !strings.Contains(strings.Join(BundleKeys(b), " ")+" ", a.BundleKey()+" ") {
				t.Errorf("%s: a change of %s would not be seen", what, b.Name)
			}
		}
		if hostMap == nil {
			continue
		}
		if owner, err := tenant.ReadOwner(hostMap.Name, hostMap.Labels, hostMap.Annotations); err != nil || owner.Name != NameOf(a) || owner.UID != string(a.UID) {
			t.Errorf("%s: marks %v %v", what, owner, err)
		}
	}
}

// TestAnchorsOfPod: sources that ask for the same share what they get, and the host's
// volume names just that.
func TestAnchorsOfPod(t *testing.T) {
	name, signer := "plain", "x/y"
	source := func(p corev1.ClusterTrustBundleProjection) corev1.VolumeProjection {
		return corev1.VolumeProjection{ClusterTrustBundle: &p}
	}
	pod := plainPod()
	pod.Spec.Volumes = []corev1.Volume{
		{Name: "a", VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{
			source(corev1.ClusterTrustBundleProjection{Name: &name, Path: "one"}),
			source(corev1.ClusterTrustBundleProjection{SignerName: &signer, Path: "two"}),
		}}}},
		{Name: "b", VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{
			source(corev1.ClusterTrustBundleProjection{Name: &name, Path: "three"}),
		}}}},
	}
	all := AnchorsOf(pod)
	if len(all) != 2 {
		t.Fatalf("%d anchors", len(all))
	}
	tr := Translation{Tenant: testTenant, Lookup: nothing{}, Data: nothing{}}
	hostPod, refused := tr.Pod(pod)
	if len(refused) > 0 {
		t.Fatal(refused)
	}
	one, three := hostPod.Spec.Volumes[0].Projected.Sources[0].ConfigMap, hostPod.Spec.Volumes[1].Projected.Sources[0].ConfigMap
	if one.Name != three.Name || one.Name != tr.TrustAnchors(all[0], bundles).Name {
		t.Errorf("%q, %q: want the ConfigMap of the bundle", one.Name, three.Name)
	}
	if one.Items[0].Path != "one" || three.Items[0].Path != "three" || one.Items[0].Mode != nil || one.Optional != nil {
		t.Errorf("%+v", one)
	}
	group := int64(7)
	pod.Spec.SecurityContext = &corev1.PodSecurityContext{FSGroup: &group}
	hostPod, _ = tr.Pod(pod)
	if mode := hostPod.Spec.Volumes[0].Projected.Sources[0].ConfigMap.Items[0].Mode; mode == nil || *mode != 0o600 {
		t.Errorf("mode %v with a group", mode)
	}
	secret := hostPod.Name + " " + one.Name
	if text := tr.Reveal(pod, hostPod).Text(`references non-existent config key in ` + secret); strings.Contains(text, one.Name) {
		t.Errorf("the tenant would see %q", text)
	}
}
