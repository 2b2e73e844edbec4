package syncer

import (
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"sublet.dev/isolation/tenant"
)

// pass is a pass over a pod, as podDown makes it: whether it may bring the pod to the host.
func (c *crowd) pass(t *testing.T, name tenant.Name, priority int64, room int) bool {
	t.Helper()
	c.begin(name)
	may, _ := c.admit(name, priority, func() int { return room })
	if ended := c.end(name, false); ended != may {
		t.Errorf("the pass over %s may go: %v, went: %v", name.Name, may, ended)
	}
	return may
}

func (c *crowd) calls(room int) []tenant.Name {
	names, _ := c.call(func() int { return room })
	return names
}

func number(i int) tenant.Name { return tenant.Name{Name: fmt.Sprint(i)} }

// TestCrowd: those in line are called in their order, no more than there is room for,
// and none is called twice or lost.
func TestCrowd(t *testing.T) {
	c := newCrowd()
	none := func() int { return 0 }
	for i := range 10 {
		if may, first := c.admit(number(i), 0, none); may || first != (i == 0) {
			t.Errorf("%d: may go %v, is the only one in line %v", i, may, first)
		}
		if c.pass(t, number(i), 0, 9) {
			t.Errorf("%d stands in line already", i)
		}
	}
	order := c.calls(3)
	if len(order) != 3 {
		t.Fatalf("%v were called into room for 3", order)
	}
	if more := c.calls(3); len(more) != 0 {
		t.Errorf("%v were called although the others have not come", more)
	}
	if c.pass(t, number(99), 0, 9) {
		t.Error("one that has just come overtakes those in line")
	}
	for at := 0; at < len(order); at++ { // each that comes makes room for one
		if !c.pass(t, order[at], 0, 0) {
			t.Errorf("%s was called", order[at])
		}
		order = append(order, c.calls(3)...)
	}
	for i, n := range order[:10] {
		if n != number(i) {
			t.Errorf("place %d has %s", i, n)
		}
	}
	if len(order) != 11 || order[10] != number(99) || len(c.line)+len(c.in)+len(c.goes) != 0 {
		t.Errorf("%v came, %+v is left", order, c)
	}
	c.pass(t, number(1), 0, 0)
	if n := c.calls(-2); len(n) != 0 {
		t.Errorf("%v were called without room", n)
	}
}

// TestCrowdRoom: while nobody waits, as many go as there is room for, those counted that
// are on their way.
func TestCrowdRoom(t *testing.T) {
	c, two := newCrowd(), func() int { return 2 }
	for i := range 3 {
		if may, _ := c.admit(number(i), 0, two); may != (i < 2) {
			t.Errorf("%d may go: %v", i, may)
		}
	}
	if n := c.calls(2); len(n) != 0 {
		t.Errorf("%v were called, there are two on their way", n)
	}
	if !c.end(number(0), false) || c.end(number(0), false) {
		t.Error("it went once")
	}
	if n := c.calls(2); len(n) != 1 || n[0] != number(2) {
		t.Errorf("%v were called", n)
	}
}

// TestCrowdUnseen: a host pod that was made has its place at the scheduler until the cache
// shows it, or would have shown it; one of that name that goes before it is made changes
// nothing.
func TestCrowdUnseen(t *testing.T) {
	c, two := newCrowd(), func() int { return 2 }
	for i := range 5 {
		c.begin(number(i))
		c.admit(number(i), 0, two)
	}
	c.seen(number(0)) // another one of its name
	if c.end(number(0), true) || c.end(number(1), true) {
		t.Error("they are not to be seen yet")
	}
	if n := c.calls(2); len(n) != 0 {
		t.Errorf("%v were called, there are two on their way", n)
	}
	c.seen(number(0))
	if n := c.calls(2); len(n) != 1 || n[0] != number(2) {
		t.Errorf("%v were called, one was seen", n)
	}
	c.goes[number(1)].made = time.Now().Add(-2 * unseenFor)
	if n := c.calls(2); len(n) != 1 || n[0] != number(3) {
		t.Errorf("%v were called, one was removed before it was seen", n)
	}
	c.begin(number(2))
	if !c.end(number(2), false) || len(c.goes) != 1 {
		t.Errorf("it was seen in the pass that made it; %+v", c.goes)
	}
}

// TestCrowdCalledMeanwhile: who is called while the pass that put it in line is not over
// has its place in the next one, and gives it back after that.
func TestCrowdCalledMeanwhile(t *testing.T) {
	c, a := newCrowd(), number(1)
	c.begin(a)
	if may, first := c.admit(a, 0, func() int { return 0 }); may || !first {
		t.Fatal("there is no room")
	}
	if n := c.calls(1); len(n) != 1 {
		t.Fatalf("%v were called", n)
	}
	if c.end(a, false) {
		t.Error("the pass had nothing of it")
	}
	if !c.pass(t, a, 0, 0) || len(c.goes) != 0 {
		t.Errorf("it was called; %+v", c)
	}
}

// TestCrowdNothingToBring: a pod that was called and is not to be brought any more leaves
// its place to others.
func TestCrowdNothingToBring(t *testing.T) {
	c := newCrowd()
	c.pass(t, number(1), 0, 0)
	c.pass(t, number(2), 0, 0)
	if n := c.calls(1); len(n) != 1 {
		t.Fatalf("%v were called", n)
	}
	c.begin(number(1))
	if !c.end(number(1), false) {
		t.Error("its place is given back")
	}
	if n := c.calls(1); len(n) != 1 || n[0] != number(2) {
		t.Errorf("%v were called", n)
	}
}

// TestCrowdByPriority: the most important are called first, those alike as they came.
func TestCrowdByPriority(t *testing.T) {
	c := newCrowd()
	for i, priority := range []int64{0, 5, -1, 5, 0, 9} {
		c.pass(t, number(i), priority, 0)
	}
	for i, place := range []int{4, 2, 6, 3, 5, 1} {
		if got := c.place(number(i)); got != place {
			t.Errorf("%d stands at place %d, not %d", i, got, place)
		}
	}
	var order []string
	for _, n := range c.calls(6) {
		order = append(order, n.Name)
	}
	if got := strings.Join(order, " "); got != "5 1 3 0 4 2" {
		t.Errorf("they were called as %s", got)
	}
	if got := c.place(number(5)); got != 0 {
		t.Errorf("who was called stands at place %d", got)
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

// TestRoomFor: a tenant alone fills up what the scheduler may have of it; beside others it
// brings some together, once none of its pods waits there.
func TestRoomFor(t *testing.T) {
	for _, c := range []struct {
		waiting int
		alone   bool
		room    int
	}{
		{0, true, toSchedule}, {1, true, toSchedule - 1}, {toSchedule, true, 0},
		{0, false, toScheduleBeside}, {1, false, 0}, {toScheduleBeside, false, 0}, {toSchedule, false, 0},
	} {
		if got := roomFor(c.waiting, c.alone); got != c.room {
			t.Errorf("%d wait, alone %t: room for %d, not %d", c.waiting, c.alone, got, c.room)
		}
	}
}
