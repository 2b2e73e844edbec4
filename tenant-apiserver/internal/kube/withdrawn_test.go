package kube

import (
	"testing"

	"sublet.dev/tenant-apiserver/pki"
)

// CAs of this control plane that are given up are taken out; those of others stay, and
// what is no certificate is left alone.
func TestWithout(t *testing.T) {
	dir := t.TempDir()
	first, err := pki.LoadOrCreate(dir, "ours")
	if err != nil {
		t.Fatal(err)
	}
	other, err := pki.LoadOrCreate(t.TempDir(), "theirs")
	if err != nil {
		t.Fatal(err)
	}
	both, err := pki.Rotate(dir, 2)
	if err != nil {
		t.Fatal(err)
	}
	last, err := pki.Finish(dir)
	if err != nil {
		t.Fatal(err)
	}
	text := func(all ...*pki.Authority) (s string) {
		for _, a := range all {
			s += string(a.CAPEM())
		}
		return s
	}
	for name, c := range map[string]struct {
		told    string
		now     *pki.Authority
		kept    string
		changed bool
	}{
		"the one that there is":           {text(first), first, text(first), false},
		"both, while both are trusted":    {text(both), both, text(both), false},
		"one that is given up":            {text(first, last), last, text(last), true},
		"and beside that one of others":   {text(other, first), last, text(last, other), true},
		"one of others":                   {text(other, last), last, text(last, other), false},
		"something that is no PEM at all": {"junk", last, "junk", false},
	} {
		kept, changed := without(c.told, c.now.CAPEM())
		if changed != c.changed || changed && kept != c.kept {
			t.Errorf("%s: changed %t, kept %d bytes, want %d", name, changed, len(kept), len(c.kept))
		}
	}
}
