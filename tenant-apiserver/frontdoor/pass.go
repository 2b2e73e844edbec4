package frontdoor

import (
	"context"
	"errors"
	"io"
	"net"
	"time"
)

// pass connects a client with the tenant's API until both have ended. taken was
// already read from the client.
func (f *FrontDoor) pass(t *tenantDoor, client net.Conn, taken []byte) {
	socket, ok := f.admit(t, client)
	if !ok {
		refuse(client, alertInternalError)
		f.config.Logger.Warn("front door: refused a connection", "tenant", t.id, "limit", f.config.PerTenant)
		return
	}
	api, err := f.dial(t, client, socket)
	if err != nil {
		f.leave(t, client)
		if errors.Is(err, errGone) {
			return
		}
		refuse(client, alertInternalError)
		f.config.Logger.Warn("front door: the tenant's API does not answer", "tenant", t.id, "error", err)
		return
	}
	defer api.Close()
	defer f.leave(t, client, api)
	if !f.attach(t, api) {
		return
	}
	if _, err := api.Write(taken); err != nil {
		return
	}
	f.wg.Add(1) // the caller's own count keeps the group above zero
	done := make(chan struct{})
	go func() {
		defer f.wg.Done()
		defer close(done)
		oneWay(api, client)
	}()
	oneWay(client, api)
	<-done
}

// dial connects to the tenant's API. A socket that is not there yet, or whose
// process is being restarted, is tried again for Config.DialTimeout, or until the
// client gives up.
func (f *FrontDoor) dial(t *tenantDoor, client net.Conn, socket string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(f.ctx, f.config.DialTimeout)
	defer cancel()
	var dialer net.Dialer
	for pause := 5 * time.Millisecond; ; pause = min(2*pause, 40*time.Millisecond) {
		conn, err := dialer.DialContext(ctx, "unix", socket)
		if err == nil {
			return conn, nil
		}
		if !f.present(t) {
			return nil, errors.New("the tenant was deleted")
		}
		if gone(client) {
			return nil, errGone
		}
		select {
		case <-ctx.Done():
			return nil, err
		case <-time.After(pause):
		}
	}
}

// halfCloser is a connection one of whose directions can be ended.
type halfCloser interface{ CloseWrite() error }

// oneWay copies until src ends and tells dst so. When the copy fails, nothing
// more can come of the connection, and both ends are closed.
func oneWay(dst, src net.Conn) {
	_, err := io.Copy(dst, src)
	if err == nil {
		if half, ok := dst.(halfCloser); ok {
			err = half.CloseWrite()
		}
	}
	if err != nil {
		_ = dst.Close() // ends the other direction, which closes them again
		_ = src.Close()
	}
}
