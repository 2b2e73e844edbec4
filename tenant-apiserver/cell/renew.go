package cell

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"
)

// ErrRenewed is what Run returns when the cell has ended by itself, so that another
// process may take its place: see [Config.Renew].
var ErrRenewed = errors.New("all tenants of the cell sleep, and a new process will take less memory")

const (
	// renewQuiet is how long nothing has changed at the latest when a cell ends by
	// itself, and a tenth of Config.Renew if that is less.
	renewQuiet = 30 * time.Second
	// renewAhead: nobody is due within so many times that. Another process needs a
	// second or two.
	renewAhead = 2
	// renewEach is what a tenant that sleeps may cost more than in a process in which
	// none has run, and renewLeast what it is not worth while to give back.
	renewEach, renewLeast = 100 << 10, 4 << 20
)

// renewal says when a cell whose tenants all sleep is to end, so that a new process
// takes its place: Go does not move objects, so where many control planes have run
// there are gaps for good.
type renewal struct {
	fresh   int64     // anonymous memory before any control plane ran, in bytes; 0: not known. Guarded by Cell.mu
	changed time.Time // when a status changed last; guarded by Cell.mu
	asked   int       // how many requests are being answered; guarded by Cell.mu
	follow  int       // how many wait for changes: managers, who start another. Guarded by Cell.mu
	left    bool      // nobody is told any more that tenants stop; guarded by Cell.mu
}

// awaitRenewal waits until the cell has left its tenants' sockets to another process;
// false: ctx ended.
func (c *Cell) awaitRenewal(ctx context.Context) bool {
	if c.config.Renew <= 0 {
		return false
	}
	quiet := min(c.config.Renew/10, renewQuiet)
	for next := c.config.Renew; ; next = quiet {
		select {
		case <-ctx.Done():
			return false
		case <-time.After(next):
		}
		if c.followed() && c.grown() && c.leave(quiet) {
			return true
		}
	}
}

// followed says whether there is a manager: without, nobody would start another process.
func (c *Cell) followed() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.renewal.follow > 0
}

// following counts who waits for changes.
func (c *Cell) following(by int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.renewal.follow += by
}

// grown says whether the process has so much more memory than one in which no control
// plane has run that it is worth while to replace it.
func (c *Cell) grown() bool {
	if !c.ran.Load() {
		return false
	}
	now, err := anonymous()
	if err != nil {
		c.config.Logger.Warn("the cell does not know its memory", "error", err)
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.renewal.fresh == 0 || now-c.renewal.fresh > max(renewLeast, int64(len(c.hosted))*renewEach)
}

// noteFresh remembers the memory of a process in which no control plane has run.
func (c *Cell) noteFresh() {
	now, err := anonymous()
	if err != nil || c.ran.Load() {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.renewal.fresh = now
}

// resting says whether all tenants sleep, and have for a while, and nobody wants
// anything. The caller must hold mu.
func (c *Cell) resting(quiet time.Duration) bool {
	now := c.config.Clock.Now()
	if c.closed || c.renewal.asked > 0 || now.Sub(c.renewal.changed) < quiet {
		return false
	}
	for _, h := range c.hosted {
		due := h.status.Due
		if h.status.Phase != Asleep || len(h.wake) > 0 || !due.IsZero() && due.Sub(now)-wakeAhead < renewAhead*quiet {
			return false
		}
	}
	return true
}

// leave gives the tenants' sockets up when all tenants sleep, unless somebody connects
// meanwhile; then the cell goes on. From then on whoever connects is refused by the
// kernel, and no connection has been accepted that nobody will serve.
func (c *Cell) leave(quiet time.Duration) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.resting(quiet) {
		return false
	}
	var left []*hosted
	for _, h := range c.hosted {
		left = append(left, h)
		if !h.gate.leave() && c.comeBack(left) {
			return false
		}
	}
	c.closed, c.renewal.left = true, true
	c.touch()
	return true
}

// comeBack makes the sockets of tenants again, and says whether it could: otherwise
// another process has to. The caller must hold mu.
func (c *Cell) comeBack(left []*hosted) bool {
	for _, h := range left {
		if err := h.gate.comeBack(); err != nil {
			h.log.Error("the tenant's socket is gone until the cell starts again", "error", err)
			return false
		}
	}
	return true
}

// admit counts in a request, which a cell that ends by itself waits for; false: it ends.
func (c *Cell) admit() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.renewal.left {
		return false
	}
	c.renewal.asked++
	return true
}

func (c *Cell) release() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.renewal.asked--
}

// anonymous returns the anonymous memory of this process in bytes.
func anonymous() (int64, error) {
	data, err := os.ReadFile("/proc/self/smaps_rollup") // proc(5)
	if err != nil {
		return 0, fmt.Errorf("look at the memory: %w", err)
	}
	_, rest, _ := bytes.Cut(data, []byte("\nAnonymous:"))
	value, _, _ := bytes.Cut(rest, []byte("kB"))
	kib, err := strconv.ParseInt(string(bytes.TrimSpace(value)), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("look at the memory: %w", err)
	}
	return kib << 10, nil
}
