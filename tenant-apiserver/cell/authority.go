package cell

import (
	"context"
	"errors"
	"fmt"

	"sublet.dev/tenant-apiserver/pki"
)

// loadAuthority opens the keys in a tenant's directory. A tenant that has run
// before is not given new ones: nobody who knew it could reach it any more.
func loadAuthority(dir, name string, existing bool) (*pki.Authority, error) {
	if !existing {
		return pki.LoadOrCreate(PKIDir(dir), CAName(name))
	}
	a, err := pki.Load(PKIDir(dir))
	if errors.Is(err, pki.ErrMissing) {
		return nil, fmt.Errorf("%w, though the tenant has run before; put %s back from a backup, or delete the tenant", err, PKIDir(dir))
	}
	return a, err
}

// load opens the tenant's keys for a control plane that is to start.
func (h *hosted) load(existing bool) (*pki.Authority, error) {
	h.certifying.Lock()
	defer h.certifying.Unlock()
	want := h.tenantNow().CAs
	a, err := loadAuthority(h.cell.config.Dir(h.tenant.ID), h.tenant.Name, existing)
	if err == nil {
		h.told = want
	}
	return a, err
}

// certify has the control plane, if it runs, use the CAs that the tenant has now.
func (h *hosted) certify() error {
	h.certifying.Lock()
	defer h.certifying.Unlock()
	api, want := h.api.Load(), h.tenantNow().CAs
	if api == nil || h.told == want {
		return nil
	}
	a, err := loadAuthority(h.cell.config.Dir(h.tenant.ID), h.tenant.Name, true)
	if err != nil {
		return err
	}
	if err := api.SetAuthority(a); err != nil {
		return err
	}
	h.told = want
	h.log.Info("the tenant's CAs have changed", "oldest", a.Oldest(), "generation", a.Generation())
	return nil
}

// certified has a tenant use the CAs that it has now, and waits until it runs or has
// failed. One that sleeps is woken for that: its pods have to know them.
func (c *Cell) certified(ctx context.Context, h *hosted) (Status, error) {
	if err := h.certify(); err != nil {
		return Status{}, fmt.Errorf("use the CAs of tenant %s: %w", h.tenant.Name, err)
	}
	s, err := c.settled(ctx, h)
	if err == nil && s.Phase == Asleep && h.knows() != h.tenantNow().CAs {
		return c.Wake(ctx, h.tenant.ID, "its CAs have changed")
	}
	return s, err
}

// tenantNow is the tenant with the CAs that it has now. Its control plane may go on with
// others for a moment.
func (h *hosted) tenantNow() Tenant {
	h.changing.Lock()
	defer h.changing.Unlock()
	t := h.tenant
	t.CAs = h.cas
	return t
}

// knows returns which CAs the control plane that runs, or ran last, has been given.
func (h *hosted) knows() [2]int64 {
	h.certifying.Lock()
	defer h.certifying.Unlock()
	return h.told
}

// remembered is the tenant as its control plane knows it.
func (h *hosted) remembered() Tenant {
	t := h.tenant
	t.CAs = h.knows()
	return t
}

// slept notes that a control plane which ran before knew those.
func (h *hosted) slept(cas [2]int64) {
	h.certifying.Lock()
	defer h.certifying.Unlock()
	h.told = cas
}
