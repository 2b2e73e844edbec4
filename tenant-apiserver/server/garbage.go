package server

import (
	"context"
	"runtime/metrics"
	"sync"
	"time"
)

const (
	// quietGC is how much a cell's heap may grow, in percent, before garbage is collected
	// while little happens. The heap is mostly what tenants keep for good, so Go's usual
	// 100 means as much garbage again.
	quietGC = 50
	// busyGC is the most that it may grow. A collection takes as long as what is in use is
	// large, whatever the garbage: with 100 a cell in which tenants made pods as fast as
	// they could spent a seventh of its processor time on it.
	busyGC = 200
	// collectEvery is how long garbage gathers in between. Go collects it that often anyway.
	collectEvery = 2 * time.Minute
	// lookEvery is how often it is looked how much garbage is made, and stepGC by how much
	// less may be there than at the last look: room comes at once, and goes in some seconds.
	lookEvery = 500 * time.Millisecond
	stepGC    = 10
)

// AdaptGC has this process collect garbage as cells do until stop is called, which waits
// for that and puts GOGC back: with little room while little happens, and with more, up to
// four times that, while so much is allocated that it would be collected more often than
// Go does anyway. What control planes that start and lists have besides is not touched
// (room.go). It takes the place of GOGC; GOMEMLIMIT holds as always. There may be one at a
// time.
func AdaptGC() (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	before := setNormalGC(quietGC)
	var group sync.WaitGroup
	group.Go(func() { adaptGC(ctx) })
	return func() {
		cancel()
		group.Wait()
		setNormalGC(before)
	}
}

func adaptGC(ctx context.Context) {
	ticker := time.NewTicker(lookEvery)
	defer ticker.Stop()
	set, at := quietGC, time.Now()
	_, allocated := allocations()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		now := time.Now()
		live, all := allocations()
		percent := set
		if in := now.Sub(at).Seconds(); in > 0 {
			percent = max(gcPercentFor(live, float64(all-allocated)/in), set-stepGC)
		}
		if percent != set {
			setNormalGC(percent)
		}
		set, allocated, at = percent, all, now
	}
}

// allocations returns how many bytes were in use after the last collection, and how many
// were ever allocated.
func allocations() (live, all uint64) {
	s := []metrics.Sample{{Name: "/gc/heap/live:bytes"}, {Name: "/gc/heap/allocs:bytes"}}
	metrics.Read(s)
	return s[0].Value.Uint64(), s[1].Value.Uint64()
}

// gcPercentFor is GOGC for a heap of which so many bytes are in use, and in which so many
// are allocated in a second. It goes by steps, so that it does not change all the time.
func gcPercentFor(live uint64, rate float64) int {
	percent := 100 * rate * collectEvery.Seconds() / float64(max(live, 1<<20))
	return int(min(max(percent, quietGC), busyGC)) / stepGC * stepGC
}
