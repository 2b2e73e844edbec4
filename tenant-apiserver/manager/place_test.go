package manager

import (
	"testing"

	"sublet.dev/api/v1alpha1"
)

func TestPlace(t *testing.T) {
	m := &Manager{config: Config{PerCell: 2}}
	in := func(cells ...string) (all []v1alpha1.VirtualCluster) {
		for _, c := range cells {
			all = append(all, v1alpha1.VirtualCluster{Status: v1alpha1.VirtualClusterStatus{Cell: c}})
		}
		return all
	}
	for _, c := range []struct {
		taken []string
		want  string
	}{
		{nil, "cell-0"},
		{[]string{"", "cell-0"}, "cell-0"}, // one has no place yet
		{[]string{"cell-0", "cell-0"}, "cell-1"},
		{[]string{"cell-0", "cell-2", "cell-0"}, "cell-1"},
		{[]string{"cell-1", "cell-1", "cell-0"}, "cell-0"},
	} {
		if got := m.place(in(c.taken...)); got != c.want {
			t.Errorf("with %q: %s, want %s", c.taken, got, c.want)
		}
	}
}
