package cell

import (
	"context"
	"slices"
	"strings"

	"sublet.dev/isolation/tenant"
)

// Get returns the status of a tenant; ok is false when it is not hosted.
func (c *Cell) Get(id tenant.ID) (s Status, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	h := c.hosted[id]
	if h == nil {
		return Status{}, false
	}
	return h.status, true
}

// Snapshot returns the cell's state as soon as its revision is above after, or
// the current one when ctx ends.
func (c *Cell) Snapshot(ctx context.Context, after uint64) Snapshot {
	for {
		c.mu.Lock()
		s, changed := c.snapshot(), c.changed
		c.mu.Unlock()
		if s.Revision > after {
			return s
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return s
		case <-c.ctx.Done():
			return s
		}
	}
}

// snapshot returns the current state. The caller must hold mu.
func (c *Cell) snapshot() Snapshot {
	s := Snapshot{Instance: c.instance, Revision: c.revision, Ending: c.renewal.left, Tenants: []Status{}}
	for _, h := range c.hosted {
		s.Tenants = append(s.Tenants, h.status)
	}
	slices.SortFunc(s.Tenants, func(a, b Status) int { return strings.Compare(string(a.ID), string(b.ID)) })
	return s
}

// touch wakes everybody who waits for a change. The caller must hold mu.
func (c *Cell) touch() {
	c.revision++
	c.renewal.changed = c.config.Clock.Now()
	close(c.changed)
	c.changed = make(chan struct{})
}

// settled waits until the tenant's phase is settled.
func (c *Cell) settled(ctx context.Context, h *hosted) (Status, error) {
	for {
		c.mu.Lock()
		s, changed := h.status, c.changed
		c.mu.Unlock()
		if s.Settled() {
			return s, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return s, nil
		case <-c.ctx.Done():
			return s, ErrStopping
		}
	}
}
