package manager

import "testing"

// TestRecountGivesUp: kinds that the host does not count for long are given up, and those
// that are new, or whose definitions came meanwhile, are waited for from the beginning.
func TestRecountGivesUp(t *testing.T) {
	both := func() []string { return []string{"widgets.example.org", "gadgets.example.org"} }
	tire := func(r *recounts) {
		t.Helper()
		for try := range recountTries {
			if r.givesUp("acme", both()) {
				t.Fatalf("given up at try %d of %d", try+1, recountTries)
			}
		}
	}
	for name, c := range map[string]struct {
		then func(*recounts)
		want bool
	}{
		"still not counted":        {func(*recounts) {}, true},
		"another kind, too":        {func(r *recounts) { r.givesUp("acme", append(both(), "gears.example.org")) }, false},
		"all were counted":         {func(r *recounts) { r.givesUp("acme", nil) }, false},
		"a definition has come":    {func(r *recounts) { r.forget("acme") }, false},
		"another tenant's counted": {func(r *recounts) { r.givesUp("globex", nil) }, true},
	} {
		r := newRecounts(nil)
		tire(r)
		c.then(r)
		if got := r.givesUp("acme", both()); got != c.want {
			t.Errorf("%s: given up: %t, want %t", name, got, c.want)
		}
		if given := r.givesUp("acme", both()); given != c.want {
			t.Errorf("%s: given up at the next look: %t, want %t", name, given, c.want)
		}
	}
}
