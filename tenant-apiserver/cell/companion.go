package cell

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"sync/atomic"
	"time"

	metricsapi "sigs.k8s.io/metrics-server/pkg/api"

	"sublet.dev/tenant-apiserver/dialer"
	"sublet.dev/tenant-apiserver/server"
)

// Companion is the work that goes with a tenant's control plane.
type Companion interface {
	// Run works until ctx ends and then returns nil. It is called once.
	Run(ctx context.Context) error
	// Kubelet answers the tenant API's requests to kubelets (logs, exec, attach,
	// port-forward).
	Kubelet() http.Handler
	// Metrics says what the tenant's pods and nodes use; ctx ends its questions, since
	// upstream's interface has no contexts.
	Metrics(ctx context.Context) metricsapi.MetricsGetter
	// Rest says whether there is nothing to do now, so that it can be ended and
	// another one made later.
	Rest() (r Rest, ok bool)
	// At says what the host knows of an address; the connections of the tenant's
	// control plane depend on it.
	At(ctx context.Context, addr netip.Addr) (dialer.Place, error)
}

// accompany keeps a companion running until ctx ends.
func (h *hosted) accompany(ctx context.Context, api *server.Server, kubelet *lateHandler) {
	for retry := firstRetry; ; retry = min(2*retry, lastRetry) {
		err := h.companion(ctx, api, kubelet)
		kubelet.debut.end() // at the latest
		if ctx.Err() != nil {
			return
		}
		h.set(Degraded, ReasonCompanion, "The API answers, but pods and services are not being carried out: "+err.Error())
		h.log.Error("the tenant's companion failed", "error", err, "retry", retry)
		select {
		case <-ctx.Done():
			return
		case <-time.After(retry):
		}
	}
}

// companion makes a companion and runs it. It returns an error unless ctx ended.
func (h *hosted) companion(ctx context.Context, api *server.Server, kubelet *lateHandler) error {
	objects, err := api.NewInformers(ctx)
	if err != nil {
		return err
	}
	// Its own, or those of one that could not be made, end here.
	defer objects.Shutdown()
	c, err := h.cell.config.Companion(h.tenant.Tenant, api.Loopback(), objects)
	if err != nil {
		return fmt.Errorf("make it: %w", err)
	}
	kubelet.set(c.Kubelet())
	h.present(&c)
	kubelet.debut.end()
	defer h.current.Store(nil)
	h.set(Ready, "", "")
	if err := c.Run(ctx); err != nil {
		return err
	}
	return errors.New("it ended by itself")
}

// lateHandler is a handler that is known later than those who call it.
type lateHandler struct {
	debut   *debut // when it is known
	handler atomic.Pointer[http.Handler]
}

func (l *lateHandler) set(h http.Handler) { l.handler.Store(&h) }

// ServeHTTP waits until the handler is known; it answers 503 if it is not in time.
func (l *lateHandler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if l.handler.Load() == nil {
		l.debut.await(r.Context())
	}
	h := l.handler.Load()
	if h == nil {
		http.Error(w, "the tenant is starting: try again", http.StatusServiceUnavailable)
		return
	}
	(*h).ServeHTTP(w, r)
}
