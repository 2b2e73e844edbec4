package engine

import (
	"fmt"
	"testing"

	"sublet.dev/isolation/tenant"
)

// TestLines: kinds take turns, the keys of one keep their order, and none is lost.
func TestLines(t *testing.T) {
	l := newLines(nil)
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

// TestPatientLines: patient kinds wait for others, but not for ever.
func TestPatientLines(t *testing.T) {
	l := newLines(map[string]sort{"Events": patient})
	l.Push(Key{Kind: "Events", Name: tenant.Name{Name: "0"}})
	l.Push(Key{Kind: "Events", Name: tenant.Name{Name: "1"}})
	for i := range 3 * patientTurns {
		l.Push(Key{Kind: "Pod", Name: tenant.Name{Name: fmt.Sprint(i)}})
	}
	var at []int
	for i := 0; l.Len() > 0; i++ {
		if l.Pop().Kind == "Events" {
			at = append(at, i)
		}
	}
	if len(at) != 2 || at[0] != patientTurns || at[1] != 2*patientTurns+1 {
		t.Errorf("the patient ones came at %v", at)
	}
	l.Push(Key{Kind: "Events"})
	if l.Pop().Kind != "Events" || l.Len() != 0 || len(l.keys) != 0 || len(l.turns) != 0 {
		t.Errorf("%+v", l)
	}
}

// TestPromptLines: prompt kinds come first, and others are not forgotten.
func TestPromptLines(t *testing.T) {
	l := newLines(map[string]sort{"Status": prompt})
	for i := range 2 * promptTurns {
		l.Push(Key{Kind: "Pod", Name: tenant.Name{Name: fmt.Sprint(i)}})
	}
	for i := range 2 * promptTurns {
		l.Push(Key{Kind: "Status", Name: tenant.Name{Name: fmt.Sprint(i)}})
	}
	var at []int
	for i := 0; l.Len() > 0; i++ {
		if l.Pop().Kind == "Pod" {
			at = append(at, i)
		}
	}
	if len(at) != 2*promptTurns || at[0] != promptTurns || at[1] != 2*promptTurns+1 || at[2] != 2*promptTurns+2 {
		t.Errorf("the others came at %v", at)
	}
}
