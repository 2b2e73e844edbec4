package engine

import (
	"fmt"
	"testing"

	"sublet.dev/isolation/tenant"
)

// TestLines: kinds take turns, the keys of one keep their order, and none is lost.
func TestLines(t *testing.T) {
	l := newLines()
	key := func(kind string, i int) Key { return Key{Kind: kind, Name: tenant.Name{Name: fmt.Sprint(i)}} }
	for i := range 1000 {
		l.Push(key("Pod", i))
	}
	l.Push(key("Service", 0))
	l.Push(key("PodStatus", 0))
	l.Push(key("PodStatus", 1))
	var order []Key
	for l.Len() > 0 {
		order = append(order, l.Pop())
	}
	for at, want := range []Key{key("Pod", 0), key("Service", 0), key("PodStatus", 0), key("Pod", 1), key("PodStatus", 1), key("Pod", 2), key("Pod", 3)} {
		if order[at] != want {
			t.Errorf("place %d: %v, want %v", at, order[at], want)
		}
	}
	if len(order) != 1003 || len(l.keys) != 0 || len(l.turns) != 0 {
		t.Errorf("%d keys came, %+v is left", len(order), l)
	}
	last := -1
	for _, k := range order {
		if k.Kind != "Pod" {
			continue
		}
		var i int
		if _, err := fmt.Sscan(k.Name.Name, &i); err != nil || i != last+1 {
			t.Fatalf("pod %s after %d", k.Name.Name, last)
		}
		last = i
	}
}
