package cell

import (
	"cmp"
	"slices"
	"time"

	"sublet.dev/tenant-apiserver/store"
)

const (
	// checkEvery is how long the cell rests between two looks through all open
	// stores. Opening a store looks through it as well.
	checkEvery = 6 * time.Hour
	// checkSlice entries are looked at in one read transaction, and checkPause is
	// the rest after each, whoever's the store is: some 3,000 entries a second, a
	// per cent of a processor.
	checkSlice = 64
	checkPause = 20 * time.Millisecond
)

// patrol looks through the stores of all hosted tenants, one after the other, again
// and again until the cell ends. A damaged one goes out of service by that, which
// ends its control plane and no other: see [store.Check.Step].
func (c *Cell) patrol() {
	for c.rest(cmp.Or(c.config.CheckEvery, checkEvery)) {
		for _, h := range c.all() {
			if s := h.file(); s != nil {
				h.check(s)
			}
		}
	}
}

// check looks through one store. What it finds the store's owner hears of from the
// store; that the store was closed meanwhile matters to nobody.
func (h *hosted) check(s *store.Store) {
	look := s.NewCheck()
	for {
		done, err := look.Step(h.ctx, checkSlice)
		if done || err != nil {
			return
		}
		if !h.cell.rest(checkPause) {
			return
		}
	}
}

// rest waits, and says whether the cell goes on.
func (c *Cell) rest(d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-c.ctx.Done():
		return false
	}
}

// all returns the hosted tenants in a fixed order.
func (c *Cell) all() []*hosted {
	c.mu.Lock()
	defer c.mu.Unlock()
	var all []*hosted
	for _, h := range c.hosted {
		all = append(all, h)
	}
	slices.SortFunc(all, func(a, b *hosted) int { return cmp.Compare(a.tenant.ID, b.tenant.ID) })
	return all
}
