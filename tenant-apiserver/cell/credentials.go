package cell

import (
	"maps"
	"path/filepath"
	"slices"

	"sublet.dev/tenant-apiserver/server"
)

// AuditLog returns where the requests to a tenant's API are recorded, in its
// directory.
func AuditLog(dir string) string { return filepath.Join(dir, "audit.log") }

// update gives a tenant the terms, and takes the credentials from it, that its
// manager now asks for. What was revoked stays revoked.
func (h *hosted) update(t Tenant) {
	h.changing.Lock()
	defer h.changing.Unlock()
	h.setTerms(t.Terms)
	h.acquaint()
	h.authentication, h.cas = t.Authentication, t.CAs
	h.refuse(t.Revoked)
}

// revoke takes credentials from the tenant.
func (h *hosted) revoke(serials []string) {
	h.changing.Lock()
	defer h.changing.Unlock()
	h.refuse(serials)
}

// refuse remembers serial numbers, and tells the control plane if it runs. The
// caller must hold changing.
func (h *hosted) refuse(serials []string) {
	for _, serial := range serials {
		h.revoked[serial] = struct{}{}
	}
	if api := h.api.Load(); api != nil {
		h.tell(api)
	}
}

// begin gives a control plane that has started what it is to know, and from then on
// every change.
func (h *hosted) begin(api *server.Server) {
	h.changing.Lock()
	defer h.changing.Unlock()
	h.api.Store(api)
	h.tell(api)
}

// tell gives a control plane what holds now. The caller must hold changing.
func (h *hosted) tell(api *server.Server) {
	api.SetTerms(*h.terms.Load())
	api.Revoke(slices.Collect(maps.Keys(h.revoked)))
	if err := api.SetAuthentication(h.authentication); err != nil {
		// The manager tells the provider; the tenant goes on with what it had.
		h.log.Error("the tenant's authentication configuration cannot be used", "error", err)
	}
}
