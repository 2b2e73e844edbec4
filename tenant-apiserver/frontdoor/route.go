package frontdoor

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
)

// ErrNameTaken is returned by Set for a server name that routes to another
// tenant.
var ErrNameTaken = errors.New("the server name belongs to another tenant")

// tenantDoor is a route and what goes through it. FrontDoor.mu guards the
// fields; a caller of its methods must hold it.
type tenantDoor struct {
	id       string // never changes: readable without mu
	route    Route
	listener net.Listener          // for the tenant's pods; nil: none
	conns    map[net.Conn]struct{} // both ends of every connection
	open     int                   // connections
	removed  bool
}

func (t *tenantDoor) closeListener() {
	if t.listener != nil {
		_ = t.listener.Close() // it is not used any more
		t.listener = nil
	}
}

func (t *tenantDoor) closeConns() {
	for c := range t.conns {
		_ = c.Close() // its goroutine sees the error
	}
}

// Set makes the route so. It is idempotent; connections that are open stay. When
// it returns an error, the tenant's previous route is still in place.
func (f *FrontDoor) Set(r Route) error {
	r.ServerName = strings.ToLower(r.ServerName)
	if r.Tenant == "" || r.ServerName == "" || r.Socket == "" {
		return errors.New("front door: a route needs a tenant, a server name and a socket")
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return fmt.Errorf("front door: %w", net.ErrClosed)
	}
	if other := f.names[r.ServerName]; other != nil && other.route.Tenant != r.Tenant {
		return fmt.Errorf("route %s: %w", r.ServerName, ErrNameTaken)
	}
	t := f.tenants[r.Tenant]
	if t == nil {
		t = &tenantDoor{id: r.Tenant, conns: map[net.Conn]struct{}{}}
	}
	if r.InCluster != t.route.InCluster || t.listener == nil && r.InCluster.IsValid() {
		if err := f.listen(t, r.InCluster); err != nil {
			return err
		}
	}
	delete(f.names, t.route.ServerName)
	t.route = r
	f.tenants[r.Tenant], f.names[r.ServerName] = t, t
	return nil
}

// listen moves the tenant's own listener to addr. The caller must hold mu.
func (f *FrontDoor) listen(t *tenantDoor, addr netip.AddrPort) error {
	if !addr.IsValid() {
		t.closeListener()
		return nil
	}
	var config net.ListenConfig
	l, err := config.Listen(f.ctx, "tcp", addr.String())
	if err != nil {
		return fmt.Errorf("listen for the tenant's pods: %w", err)
	}
	t.closeListener()
	t.listener = l
	f.wg.Add(1)
	go func() {
		defer f.wg.Done()
		if err := f.accept(l, func(c net.Conn) { f.pass(t, c, nil) }); err != nil {
			f.config.Logger.Error("front door: a tenant's own port is closed", "tenant", t.id, "address", addr, "error", err)
		}
	}()
	return nil
}

// Remove takes the tenant's route away and closes its connections. A tenant
// without a route is no error.
func (f *FrontDoor) Remove(tenant string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	t := f.tenants[tenant]
	if t == nil {
		return
	}
	t.removed = true
	t.closeListener()
	t.closeConns()
	delete(f.tenants, tenant)
	delete(f.names, t.route.ServerName)
}

// admit counts a connection of the tenant and returns the socket it is to be
// passed to; ok is false when the tenant is gone or has too many.
func (f *FrontDoor) admit(t *tenantDoor, conn net.Conn) (socket string, ok bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if t.removed || f.closed || t.open >= f.config.PerTenant {
		return "", false
	}
	t.open++
	t.conns[conn] = struct{}{}
	return t.route.Socket, true
}

// attach makes the far end of a connection known, so that it is closed with it.
func (f *FrontDoor) attach(t *tenantDoor, conn net.Conn) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if t.removed || f.ctx.Err() != nil {
		return false
	}
	t.conns[conn] = struct{}{}
	return true
}

func (f *FrontDoor) leave(t *tenantDoor, conns ...net.Conn) {
	f.mu.Lock()
	defer f.mu.Unlock()
	t.open--
	for _, c := range conns {
		delete(t.conns, c)
	}
}

// present says whether the tenant's route still stands.
func (f *FrontDoor) present(t *tenantDoor) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return !t.removed
}
