package cell

import "sublet.dev/tenant-apiserver/plan"

// Planned is a Companion that carries out a part of what a tenant's plan gives.
type Planned interface {
	// SetTerms says what the tenant may have from now on. It is called before Run's
	// first work may matter to a tenant and whenever a plan has changed, one call at a
	// time.
	SetTerms(t plan.Terms)
}

// acquaint gives the companion that runs, if there is one, what the tenant may have
// now. The caller must hold changing.
func (h *hosted) acquaint() {
	if c := h.current.Load(); c != nil {
		if p, ok := (*c).(Planned); ok {
			p.SetTerms(*h.terms.Load())
		}
	}
}

// present makes a companion the one that runs.
func (h *hosted) present(c *Companion) {
	h.changing.Lock()
	defer h.changing.Unlock()
	h.current.Store(c)
	h.acquaint()
}
