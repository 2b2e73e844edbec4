package tenant

import "testing"

func TestRank(t *testing.T) {
	for _, r := range []Rank{{}, {Priority: 7}, {Priority: -1 << 31}, {Priority: 1 << 30, Patient: true}, {Patient: true}} {
		if got := ReadRank(map[string]string{AnnotationRank: r.String()}); got != r {
			t.Errorf("%q is read as %+v, not %+v", r.String(), got, r)
		}
	}
	for _, text := range []string{"", "x", "7,Always", "99999999999", ",Never", "7 "} {
		if got := ReadRank(map[string]string{AnnotationRank: text}); got != (Rank{}) {
			t.Errorf("%q is read as %+v", text, got)
		}
	}
}
