package store

import (
	"fmt"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// countFaults counts how often a store comes to a place.
func countFaults(t *testing.T, at faultPoint) *atomic.Int64 {
	n := new(atomic.Int64)
	onFault = func(point faultPoint) {
		if point == at {
			n.Add(1)
		}
	}
	t.Cleanup(func() { onFault = nil })
	return n
}

// growing has no reason for a checkpoint but segments that are full. It keeps a log
// that has been brought into the file, which crashed may have copied before that.
var growing = Options{NoSync: true, pace: pace{
	layerBytes: 1 << 30, backlogBytes: 1 << 30, segmentBytes: 4 << 10,
	layerAge: time.Hour, retry: time.Hour, restAge: time.Hour,
}}

// TestPrepared fills segment after segment: what comes next is prepared, and what a
// crash leaves is whole at every moment, whatever lies in which segment.
func TestPrepared(t *testing.T) {
	turns := countFaults(t, faultSegmentFull)
	path := filepath.Join(t.TempDir(), "store.db")
	s := openAt(t, path, growing)
	for n := range 300 {
		mustPut(t, s, fmt.Sprint(n), strings.Repeat("v", 500))
		await(t, func() bool { return len(s.now.Load().layers) == 1 }) // the full one is free again
		if n%30 == 0 {
			wantKeys(t, openAt(t, crashed(t, path), Options{NoSync: true, Clock: newFakeClock()}), n+1)
		}
	}
	if turns.Load() < 2 { // 4 KiB, 32 KiB, 256 KiB
		t.Errorf("%d segments were prepared when they were needed", turns.Load())
	}
}

// TestUnprepared writes what no prepared segment has room for.
func TestUnprepared(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store.db")
	s := openAt(t, path, growing)
	n := 0
	for _, size := range []int{10, 10_000, 300_000, 300_000, 10, 10_000} {
		mustPut(t, s, fmt.Sprint(n), strings.Repeat("v", size))
		n++
		wantKeys(t, openAt(t, crashed(t, path), Options{NoSync: true, Clock: newFakeClock()}), n)
	}
}

// TestPreparingIsWaitedFor closes stores, one of them out of service, whose other
// segment is being prepared.
func TestPreparingIsWaitedFor(t *testing.T) {
	for _, failed := range []bool{false, true} {
		begun, hold := make(chan struct{}), make(chan struct{})
		var over atomic.Bool
		onFault = func(at faultPoint) {
			switch at {
			case faultPrepareBegun:
				close(begun)
				<-hold
			case faultPrepared:
				over.Store(true)
			}
		}
		t.Cleanup(func() { onFault = nil })
		path := filepath.Join(t.TempDir(), "store.db")
		s, err := Open(path, growing)
		if err != nil {
			t.Fatal(err)
		}
		mustPut(t, s, "0", strings.Repeat("v", 2000))
		<-begun
		mustPut(t, s, "1", "groups go on")
		if failed {
			s.fail(errBroken)
		}
		closed := make(chan error)
		go func() { closed <- s.Close() }()
		<-s.stopping
		close(hold)
		if err := <-closed; err != nil {
			t.Error(err)
		}
		if !over.Load() {
			t.Error("closed while a segment was being prepared")
		}
		onFault = nil
		wantKeys(t, openAt(t, path, Options{NoSync: true}), 2)
	}
}
