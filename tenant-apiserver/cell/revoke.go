package cell

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"

	"sublet.dev/isolation/tenant"
)

// Revoke refuses certificates of these serial numbers at the tenant's API from now
// on, and has closed what was open with them when it returns. It returns
// ErrNotHosted when the cell does not host the tenant: who places it there tells of
// them.
func (c *Cell) Revoke(id tenant.ID, serials []string) error {
	h, err := c.find(id)
	if err != nil {
		return err
	}
	h.revoke(serials)
	return nil
}

func (c *Cell) serveRevoke(w http.ResponseWriter, r *http.Request) {
	var serials []string
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 1<<20)).Decode(&serials); err != nil {
		http.Error(w, "decode the serial numbers: "+err.Error(), http.StatusBadRequest)
		return
	}
	err := c.Revoke(tenant.ID(r.PathValue("id")), serials)
	if errors.Is(err, ErrNotHosted) {
		http.Error(w, err.Error(), http.StatusNotFound)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

// Revoke asks for certificates to be refused: see [Cell.Revoke].
func (c *Client) Revoke(ctx context.Context, id tenant.ID, serials []string) error {
	body, err := json.Marshal(serials)
	if err != nil {
		return fmt.Errorf("encode the serial numbers: %w", err)
	}
	return c.do(ctx, http.MethodPost, "/tenants/"+string(id)+"/revoked", body, nil)
}
