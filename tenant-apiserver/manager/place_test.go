package manager

import "testing"

func TestPlace(t *testing.T) {
	for _, c := range []struct {
		count map[string]int
		alone map[string]bool
		own   bool
		want  string
	}{
		{want: "cell-0"},
		{count: map[string]int{"cell-0": 1}, want: "cell-0"},
		{count: map[string]int{"cell-0": 2}, want: "cell-1"},
		{count: map[string]int{"cell-0": 2, "cell-2": 1}, want: "cell-1"},
		{count: map[string]int{"cell-0": 1, "cell-1": 2}, want: "cell-0"},
		{count: map[string]int{"cell-0": 2, "cell-1": 1}, alone: map[string]bool{"cell-1": true}, want: "cell-2"},
		{own: true, want: "cell-1"},
		{count: map[string]int{"cell-1": 1}, own: true, want: "cell-2"},
	} {
		o := occupants{c.count, c.alone}
		if got := o.place(c.own, 2); got != c.want {
			t.Errorf("%+v: %s, want %s", c, got, c.want)
		}
	}
}
