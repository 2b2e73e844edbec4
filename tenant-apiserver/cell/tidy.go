package cell

import (
	"context"
	"runtime"
	"runtime/debug"
	"time"
)

// When the memory of tenants that sleep is given back.
const (
	// tidyQuiet is how long nobody has fallen asleep: several often do so one after
	// the other. tidyLatest is how long that is waited for.
	tidyQuiet  = time.Second
	tidyLatest = 10 * time.Second
	// Giving back looks at the whole heap, at a quarter of the processors. tidyShare
	// bounds the part of the time that it takes, one in so many, but tidyPause bounds
	// how long it is not done.
	tidyShare = 20
	tidyPause = 15 * time.Second
)

// tidy gives the memory of tenants that sleep, or are gone, back to the system, until
// ctx ends.
func (c *Cell) tidy(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-c.shrunk:
		}
		if !c.awaitQuiet(ctx) {
			return
		}
		warmed := c.warmed.Load()
		took := giveBack()
		if warmed {
			c.noteFresh()
		}
		c.config.Logger.Debug("gave memory back", "took", took)
		select {
		case <-ctx.Done():
			return
		case <-time.After(min(tidyShare*took, tidyPause)):
		}
	}
}

// awaitQuiet waits until no tenant has fallen asleep for a while; false: ctx ended.
func (c *Cell) awaitQuiet(ctx context.Context) bool {
	latest := time.NewTimer(tidyLatest)
	defer latest.Stop()
	for {
		select {
		case <-ctx.Done():
			return false
		case <-c.shrunk:
		case <-latest.C:
			return true
		case <-time.After(tidyQuiet):
			return true
		}
	}
}

// giveBack collects garbage, gives what is free to the system, and says how long that
// took. One collection is not enough: what pools hold survives it, and the stacks of
// goroutines that ended are free only after it.
func giveBack() time.Duration {
	begun := time.Now()
	runtime.GC()
	debug.FreeOSMemory()
	return time.Since(begun)
}

// freed notes that much memory is not used any more.
func (c *Cell) freed() {
	select {
	case c.shrunk <- struct{}{}:
	default:
	}
}
