package syncer

import (
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"sublet.dev/isolation/tenant"
)

// TestCrowd: those in line are called in their order, no more than there is room for,
// and none is called twice or lost.
func TestCrowd(t *testing.T) {
	c, room := newCrowd(), 3
	name := func(i int) tenant.Name { return tenant.Name{Name: fmt.Sprint(i)} }
	for i := range 10 {
		if first := c.add(name(i), 0); first != (i == 0) {
			t.Errorf("%d is the only one in line: %v", i, first)
		}
		if c.add(name(i), 0) || !c.waits() {
			t.Errorf("%d stands in line already", i)
		}
	}
	order := append([]tenant.Name(nil), c.call(func() int { return room })...)
	if len(order) != 3 {
		t.Fatalf("%v were called into room for 3", order)
	}
	if more := c.call(func() int { return room }); len(more) != 0 {
		t.Errorf("%v were called although the others have not come", more)
	}
	for at := 0; at < len(order); at++ { // each that comes makes room for one
		if !c.came(order[at]) || c.came(order[at]) {
			t.Errorf("%s was called once", order[at])
		}
		order = append(order, c.call(func() int { return room })...)
	}
	for i, n := range order {
		if n != name(i) {
			t.Errorf("place %d has %s", i, n)
		}
	}
	if len(order) != 10 || c.waits() || len(c.line)+len(c.in)+len(c.called) != 0 {
		t.Errorf("%d came, %+v is left", len(order), c)
	}
	c.add(name(1), 0)
	if n := c.call(func() int { return -2 }); len(n) != 0 {
		t.Errorf("%v were called without room", n)
	}
}

// TestCrowdByPriority: the most important are called first, those alike as they came.
func TestCrowdByPriority(t *testing.T) {
	c := newCrowd()
	for i, priority := range []int64{0, 5, -1, 5, 0, 9} {
		c.add(tenant.Name{Name: fmt.Sprint(i)}, priority)
	}
	var order []string
	for _, n := range c.call(func() int { return 6 }) {
		order = append(order, n.Name)
	}
	if got := strings.Join(order, " "); got != "5 1 3 0 4 2" {
		t.Errorf("they were called as %s", got)
	}
}

// TestScheduling: a pod that the scheduler has placed, or found no place for, is not in
// the way of others.
func TestScheduling(t *testing.T) {
	condition := corev1.PodStatus{Conditions: []corev1.PodCondition{{Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Reason: corev1.PodReasonUnschedulable}}}
	for name, c := range map[string]struct {
		pod   corev1.Pod
		waits bool
	}{
		"new":           {corev1.Pod{}, true},
		"placed":        {corev1.Pod{Spec: corev1.PodSpec{NodeName: "n"}}, false},
		"unschedulable": {corev1.Pod{Status: condition}, false},
		"ended":         {corev1.Pod{Status: corev1.PodStatus{Phase: corev1.PodFailed}}, false},
	} {
		if got := len(scheduling(&c.pod)) > 0; got != c.waits {
			t.Errorf("%s: waits %v", name, got)
		}
	}
}
