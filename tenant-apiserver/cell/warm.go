package cell

import (
	"time"

	"sublet.dev/tenant-apiserver/server"
)

// warmAfter is how long a cell waits for tenants before it warms up: one that was
// started again gets those it had within that, and they warm it up, but for documents
// that nobody has asked for yet.
const warmAfter = 300 * time.Millisecond

// warm makes what the first tenant would otherwise wait for, unless there has been
// one.
func (c *Cell) warm() {
	select {
	case <-c.ctx.Done():
		return
	case <-time.After(warmAfter):
	}
	if err := c.starting.settle(c.ctx); err != nil {
		return // it is stopping
	}
	leave, err := c.starting.enter(c.ctx, func() bool { return false })
	if err != nil {
		return
	}
	defer leave()
	begun := time.Now()
	if c.ran.Load() {
		err = server.RenderDocuments()
	} else {
		err = server.Warm(c.ctx, c.config.GoldenDir, c.config.Logger)
	}
	if err != nil && c.ctx.Err() == nil {
		c.config.Logger.Warn("the first tenant will start slowly", "error", err)
		return
	}
	// Rendering OpenAPI documents takes several times the memory of what stays.
	c.warmed.Store(true)
	c.freed()
	c.config.Logger.Debug("warm", "after", time.Since(begun))
}
