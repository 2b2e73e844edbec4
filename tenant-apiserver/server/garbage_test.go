package server

import (
	"context"
	"sync"
	"testing"
)

// A cell in which little happens collects soon, and one that allocates much has room, but
// never without bound.
func TestGCPercentFor(t *testing.T) {
	const mib = 1 << 20
	for name, c := range map[string]struct {
		live uint64
		rate float64 // MiB a second
		want int
	}{
		"nothing happens":                     {300 * mib, 0, quietGC},
		"heartbeats":                          {300 * mib, 0.5, quietGC},
		"as much as is in use in two minutes": {600 * mib, 5, 100},
		"so much that it is no round number":  {600 * mib, 5.6, 110},
		"more than there may be":              {600 * mib, 100, busyGC},
		"before the first collection":         {0, 100, busyGC},
	} {
		if got := gcPercentFor(c.live, c.rate*mib); got != c.want {
			t.Errorf("%s: GOGC is %d, want %d", name, got, c.want)
		}
	}
}

// keep makes sure that what is allocated for nothing is allocated.
var keep []byte

// TestAdaptGC: GOGC follows what the process does, waits while control planes that start
// have room, and is what it was in the end.
func TestAdaptGC(t *testing.T) {
	before := otherwise(t)
	stop := sync.OnceFunc(AdaptGC())
	t.Cleanup(stop)
	if p := gcPercent(); p != quietGC {
		t.Errorf("GOGC is %d at first, want %d", p, quietGC)
	}
	await(t, "room for a process that allocates", func(context.Context) (bool, error) {
		for range 64 {
			keep = make([]byte, 1<<20)
		}
		return gcPercent() > quietGC, nil
	})
	leave := makeRoom()
	given := gcPercent()
	await(t, "no more room for one that rests, once the start is over", func(context.Context) (bool, error) {
		room.Lock()
		defer room.Unlock()
		return room.normal == quietGC, nil
	})
	if p := gcPercent(); p != given {
		t.Errorf("GOGC became %d while a control plane started, which had %d", p, given)
	}
	leave()
	await(t, "GOGC to be that of a cell in which nothing happens", func(context.Context) (bool, error) {
		return gcPercent() == quietGC, nil
	})
	stop()
	if p := gcPercent(); p != before {
		t.Errorf("GOGC is %d afterwards, and was %d before", p, before)
	}
}
