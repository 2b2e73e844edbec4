package cell

import (
	"context"
	"errors"
	"net/netip"
	"time"

	"sublet.dev/tenant-apiserver/dialer"
)

// companionPoll is how often a connection that waits for the companion of a tenant
// that just started looks for it.
const companionPoll = 10 * time.Millisecond

var errNoCompanion = errors.New("the cluster's pods are not known yet: try again")

// dialer makes the tenant's way out. Which pods there are its companion says;
// whether public addresses may be reached, the terms at the moment of a connection.
func (h *hosted) dialer() (*dialer.Dialer, error) {
	return dialer.New(dialer.Config{
		Network: companionNetwork{h},
		Public:  func() bool { return h.terms.Load().PublicWebhooks },
	})
}

// companionNetwork is a dialer.Network that asks the companion. A tenant that wakes
// may call its webhooks before its companion runs: it waits, as ctx allows.
type companionNetwork struct{ *hosted }

// At implements dialer.Network.
func (n companionNetwork) At(ctx context.Context, addr netip.Addr) (dialer.Place, error) {
	for {
		if c := n.current.Load(); c != nil {
			return (*c).At(ctx, addr)
		}
		select {
		case <-time.After(companionPoll):
		case <-ctx.Done():
			return dialer.Place{}, errNoCompanion
		}
	}
}
