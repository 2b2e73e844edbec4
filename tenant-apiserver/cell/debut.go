package cell

import (
	"context"
	"sync"
	"time"
)

// debutWait bounds how long requests wait for the first companion of a control plane. It
// takes milliseconds to make one. Only tests change it, before there is any cell.
var debutWait = 5 * time.Second

// debut is the time from when a control plane serves until there is a companion, or one
// could not be made. Who has woken the tenant with a request that needs the companion
// waits for it: he is not to be told that there is none.
type debut struct {
	once sync.Once
	over chan struct{} // closed when it is over
}

func newDebut() *debut { return &debut{over: make(chan struct{})} }

func (d *debut) end() { d.once.Do(func() { close(d.over) }) }

// await waits until it is over, or ctx ends. It lasts no longer than debutWait for
// whoever waits first, and then nobody waits any more.
func (d *debut) await(ctx context.Context) {
	timer := time.NewTimer(debutWait)
	defer timer.Stop()
	select {
	case <-d.over:
	case <-timer.C:
		d.end()
	case <-ctx.Done():
	}
}

// companionNow returns the companion that runs, nil if none does. While the first of a
// control plane is being made it waits for that.
func (h *hosted) companionNow(ctx context.Context) *Companion {
	if c := h.current.Load(); c != nil {
		return c
	}
	if d := h.debut.Load(); d != nil { // what a start writes needs none
		d.await(ctx)
	}
	return h.current.Load()
}
