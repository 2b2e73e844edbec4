package audit

import "testing"

func TestOutdated(t *testing.T) {
	for v, want := range map[string]bool{
		"2.4.2": false, "v2.3.2": false, "2.3.1": true, "2.2.6": false, "1.7.33": false, "1.7.32": true, "1.6.40": true, "3.0.0": false,
		"2.4.2+unknown": false,
	} {
		if got, err := outdated(v, mended["containerd"]); err != nil || got != want {
			t.Errorf("outdated(%q) = %v, %v; want %v", v, got, err, want)
		}
	}
	for _, v := range []string{"", "unknown", "devel"} {
		if _, err := outdated(v, mended["runc"]); err == nil {
			t.Errorf("outdated(%q): no error", v)
		}
	}
}
