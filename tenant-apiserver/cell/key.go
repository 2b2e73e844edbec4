package cell

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"

	"sublet.dev/isolation/tenant"
	"sublet.dev/tenant-apiserver/server"
)

// KeyStatus says with which keys a tenant's store is encrypted.
type KeyStatus = server.KeyStatus

// ErrNotRunning is returned for a tenant whose control plane does not run here.
var ErrNotRunning = errors.New("the tenant's control plane does not run")

// keyFile is where a tenant's encryption keys are.
func (c Config) keyFile(id tenant.ID) string {
	if c.KeyFile == nil {
		return filepath.Join(c.Dir(id), "keys.json")
	}
	return c.KeyFile(id)
}

// running returns a tenant's control plane. One that sleeps is woken.
func (c *Cell) running(ctx context.Context, id tenant.ID) (*server.Server, error) {
	if s, ok := c.Get(id); ok && s.Phase == Asleep {
		if _, err := c.Wake(ctx, id, "its encryption key is asked for"); err != nil {
			return nil, err
		}
	}
	c.mu.Lock()
	h := c.hosted[id]
	c.mu.Unlock()
	if h != nil {
		if api := h.api.Load(); api != nil {
			return api, nil
		}
	}
	return nil, ErrNotRunning
}

// RotateKey makes a new encryption key for a tenant's store, under which everything
// is rewritten while the tenant goes on: see [server.Server.RotateKey].
func (c *Cell) RotateKey(ctx context.Context, id tenant.ID) (KeyStatus, error) {
	api, err := c.running(ctx, id)
	if err != nil {
		return KeyStatus{}, err
	}
	return api.RotateKey(ctx)
}

// KeyStatus says with which keys a tenant's store is encrypted.
func (c *Cell) KeyStatus(ctx context.Context, id tenant.ID) (KeyStatus, error) {
	api, err := c.running(ctx, id)
	if err != nil {
		return KeyStatus{}, err
	}
	return api.KeyStatus(), nil
}

func (c *Cell) serveKey(w http.ResponseWriter, r *http.Request) {
	s, err := c.KeyStatus(r.Context(), tenant.ID(r.PathValue("id")))
	ReplyKey(w, s, err)
}

func (c *Cell) serveRotateKey(w http.ResponseWriter, r *http.Request) {
	s, err := c.RotateKey(r.Context(), tenant.ID(r.PathValue("id")))
	ReplyKey(w, s, err)
}

// ReplyKey answers a request for a rotation, or for how far it is.
func ReplyKey(w http.ResponseWriter, s KeyStatus, err error) {
	switch {
	case errors.Is(err, ErrNotRunning):
		http.Error(w, err.Error(), http.StatusNotFound)
	case errors.Is(err, server.ErrRotating):
		http.Error(w, err.Error(), http.StatusConflict)
	case err != nil:
		http.Error(w, err.Error(), http.StatusInternalServerError)
	default:
		reply(w, s)
	}
}

// RotateKey asks for a new encryption key: see [Cell.RotateKey].
func (c *Client) RotateKey(ctx context.Context, id tenant.ID) (KeyStatus, error) {
	var s KeyStatus
	err := c.do(ctx, http.MethodPost, fmt.Sprintf("/tenants/%s/key", id), nil, &s)
	return s, err
}

// KeyStatus asks with which keys a tenant's store is encrypted.
func (c *Client) KeyStatus(ctx context.Context, id tenant.ID) (KeyStatus, error) {
	var s KeyStatus
	err := c.do(ctx, http.MethodGet, fmt.Sprintf("/tenants/%s/key", id), nil, &s)
	return s, err
}
