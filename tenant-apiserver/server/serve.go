package server

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"
)

const (
	// handshakeTimeout bounds TLS handshake and request header of a client.
	handshakeTimeout = 32 * time.Second
	// idleTimeout closes connections without requests.
	idleTimeout = 90 * time.Second
	// drainTimeout is what requests get to finish when the server stops.
	// Watches never finish by themselves; clients repeat them.
	drainTimeout = time.Second
	// streams is the number of concurrent HTTP/2 requests of a connection.
	streams = 250
)

// Serve accepts TLS connections on l and serves this control plane on them,
// whatever host name the requests carry. It takes ownership of l, blocks until
// ctx ends or the server stops, and closes every connection it accepted. It
// returns nil unless accepting failed.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	if s.life.Err() != nil {
		return errors.Join(ErrStopped, l.Close())
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(s.life, cancel)()
	tracked := &trackingListener{Listener: l, guard: s.guard, conns: map[net.Conn]struct{}{}}
	server := &http.Server{
		Handler:           s.handler(),
		ConnContext:       connContext,
		TLSConfig:         s.tls.Clone(),
		ReadHeaderTimeout: handshakeTimeout,
		IdleTimeout:       idleTimeout,
		HTTP2:             &http.HTTP2Config{MaxConcurrentStreams: streams},
		// Failed handshakes and the like are the clients' affair.
		ErrorLog: slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
	}
	served := make(chan error, 1)
	go func() { served <- server.ServeTLS(tracked, "", "") }()
	var err error
	select {
	case err = <-served:
		err = fmt.Errorf("serve %s: %w", s.config.Name, err)
	case <-ctx.Done():
		drain, stop := context.WithTimeout(context.WithoutCancel(ctx), drainTimeout)
		// What is not done by then is ended below.
		_ = server.Shutdown(drain)
		stop()
		<-served
	}
	_ = server.Close() // its listener is closed, and its connections are next
	tracked.closeAll()
	return err
}

// trackingListener remembers connections, because http.Server forgets those
// that were upgraded (exec, port-forward) and would leave them open.
type trackingListener struct {
	net.Listener
	guard  *guard
	mu     sync.Mutex
	conns  map[net.Conn]struct{}
	closed bool
}

func (t *trackingListener) Accept() (net.Conn, error) {
	c, err := t.Listener.Accept()
	if err != nil {
		return nil, err
	}
	tc := &trackedConn{Conn: c, owner: t}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return nil, errors.Join(net.ErrClosed, c.Close())
	}
	t.conns[tc] = struct{}{}
	return tc, nil
}

func (t *trackingListener) closeAll() {
	t.mu.Lock()
	t.closed = true
	conns := t.conns
	t.conns = map[net.Conn]struct{}{}
	t.mu.Unlock()
	for c := range conns {
		_ = c.Close() // the peer may be gone already
	}
}

type trackedConn struct {
	net.Conn
	owner  *trackingListener
	leaf   *x509.Certificate // the client's; nil: none yet. Guarded by guard.mu
	serial string            // of leaf; guarded by guard.mu
	closed bool              // guarded by guard.mu
}

// connContext gives requests the connection that they came on.
func connContext(ctx context.Context, c net.Conn) context.Context {
	if t, ok := c.(*tls.Conn); ok {
		c = t.NetConn()
	}
	if tracked, ok := c.(*trackedConn); ok {
		return context.WithValue(ctx, connKey{}, tracked)
	}
	return ctx
}

func (c *trackedConn) Close() error {
	c.owner.mu.Lock()
	delete(c.owner.conns, c)
	c.owner.mu.Unlock()
	c.owner.guard.forget(c)
	return c.Conn.Close()
}

// failing lists the checks that /readyz?verbose reports as failing.
func failing(body string) string {
	var names []string
	for line := range strings.Lines(body) {
		if name, ok := strings.CutPrefix(line, "[-]"); ok {
			names = append(names, strings.Fields(name)[0])
		}
	}
	return strings.Join(names, ", ")
}
