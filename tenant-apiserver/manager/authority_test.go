package manager

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/util/keyutil"

	"sublet.dev/api/v1alpha1"
	"sublet.dev/tenant-apiserver/pki"
)

// endSoon gives the authority in dir a CA certificate that ends then, with the key
// that it has.
func endSoon(t *testing.T, dir string, end time.Time) {
	t.Helper()
	a, err := pki.Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := keyutil.PrivateKeyFromFile(a.CAKeyFile())
	if err != nil {
		t.Fatal(err)
	}
	key := parsed.(*ecdsa.PrivateKey)
	template := *a.Certificate()
	template.NotAfter = end
	der, err := x509.CreateCertificate(rand.Reader, &template, &template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	data := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	if err := os.WriteFile(a.CAFile(), data, 0o600); err != nil {
		t.Fatal(err)
	}
}

// The authority is as the spec wants it; one whose CA is about to end is rotated by
// itself, and nothing is made where nothing is.
func TestRotated(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "pki")
	spec := v1alpha1.AuthoritySpec{Generation: 1, Oldest: 1}
	if _, err := rotated(dir, spec); !errors.Is(err, pki.ErrMissing) {
		t.Fatalf("where nothing is: %v", err)
	}
	first, err := pki.LoadOrCreate(dir, "acme")
	if err != nil {
		t.Fatal(err)
	}
	want := func(what string, oldest, generation int64) *pki.Authority {
		t.Helper()
		var last *pki.Authority
		for range 2 { // idempotent
			a, err := rotated(dir, spec)
			if err != nil {
				t.Fatalf("%s: %v", what, err)
			}
			if a.Oldest() != oldest || a.Generation() != generation {
				t.Errorf("%s: CAs %d to %d, want %d to %d", what, a.Oldest(), a.Generation(), oldest, generation)
			}
			last = a
		}
		return last
	}
	if a := want("as it is", 1, 1); !bytes.Equal(a.CAPEM(), first.CAPEM()) {
		t.Error("it is another authority")
	}
	endSoon(t, dir, time.Now().Add(2*renewCA))
	want("long before the end", 1, 1)
	endSoon(t, dir, time.Now().Add(renewCA/2))
	want("before the end", 1, 2)
	spec = v1alpha1.AuthoritySpec{Generation: 2, Oldest: 2}
	want("finished", 2, 2)
	spec = v1alpha1.AuthoritySpec{Generation: 3, Oldest: 2}
	want("asked for", 2, 3)
	spec = v1alpha1.AuthoritySpec{Generation: 4, Oldest: 3}
	want("the next, which ends the one before", 3, 4)
	spec = v1alpha1.AuthoritySpec{Generation: 7, Oldest: 6}
	want("so far ahead that the present one is too old", 7, 7)
	spec = v1alpha1.AuthoritySpec{Generation: 1, Oldest: 1}
	want("never back", 7, 7)
}

// The trust in a CA that was replaced ends by itself once nothing that it signed is good,
// and not before.
func TestOutlived(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "pki")
	first, err := pki.LoadOrCreate(dir, "acme")
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	late := now.Add(longestSigned + time.Hour)
	of := func(generation int64, end time.Time, revoked bool) v1alpha1.Credential {
		at := metav1.NewTime(end)
		return v1alpha1.Credential{
			Spec:   v1alpha1.CredentialSpec{Revoked: revoked},
			Status: v1alpha1.CredentialStatus{Generation: generation, NotAfter: &at},
		}
	}
	if outlived(first, nil, late) {
		t.Error("there is one CA alone")
	}
	second, err := pki.Rotate(dir, 2)
	if err != nil {
		t.Fatal(err)
	}
	good, over := late.Add(time.Hour), late.Add(-time.Hour)
	for what, c := range map[string]struct {
		at   time.Time
		all  []v1alpha1.Credential
		want bool
	}{
		"at once: CSRs may have been signed":   {now, nil, false},
		"a year later":                         {late, nil, true},
		"a kubeconfig of the old one is good":  {late, []v1alpha1.Credential{of(2, good, false), of(1, good, false)}, false},
		"it is revoked":                        {late, []v1alpha1.Credential{of(1, good, true)}, true},
		"it has ended":                         {late, []v1alpha1.Credential{of(1, over, false)}, true},
		"those that are good are of the other": {late, []v1alpha1.Credential{of(2, good, false)}, true},
	} {
		if got := outlived(second, c.all, c.at); got != c.want {
			t.Errorf("%s: %t", what, got)
		}
	}
}
