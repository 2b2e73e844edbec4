package kube

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	utilnet "k8s.io/apimachinery/pkg/util/net"
	"k8s.io/apiserver/pkg/server/egressselector"
)

// dialers are the only ways in which a control plane makes connections.
type dialers struct {
	// outside is for webhooks, aggregated APIs and the proxy subresources.
	outside utilnet.DialFunc
	// kubelet is nil where kubelets are dialled directly.
	kubelet utilnet.DialFunc
	// listener is the other end of kubelet, if that is in this process.
	listener *pipeListener
}

func newDialers(o Options) (dialers, error) {
	if o.Host != nil {
		return dialers{outside: (&net.Dialer{}).DialContext}, nil
	}
	outside := utilnet.DialFunc(refuseDial)
	if o.Dial != nil {
		outside = o.Dial
	}
	if o.Kubelet == nil {
		return dialers{outside: outside, kubelet: refuseDial}, nil
	}
	// Nobody verifies this certificate: both ends are in this process.
	cert, err := o.PKI.IssueServing([]string{"kubelet"}, nil, kubeletCertTTL)
	if err != nil {
		return dialers{}, fmt.Errorf("kubelet: %w", err)
	}
	l := newPipeListener(&tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS13})
	return dialers{outside: outside, kubelet: l.Dial, listener: l}, nil
}

const kubeletCertTTL = 10 * 365 * 24 * time.Hour

// refuseDial is the dialer of a tenant that was given none. Whatever address a
// tenant writes into a webhook, a Service or a Node, its API server would dial it
// from the provider's network; so it dials nothing.
func refuseDial(_ context.Context, _, address string) (net.Conn, error) {
	return nil, fmt.Errorf("connecting to %s is refused: this API server makes no connections", address)
}

func (d dialers) egress() map[egressselector.EgressType]utilnet.DialFunc {
	return map[egressselector.EgressType]utilnet.DialFunc{
		egressselector.ControlPlane: d.outside,
		egressselector.Cluster:      d.outside,
	}
}

// pipeListener accepts in-process connections with a TLS certificate, for the
// kubelet handler: upstream's client always speaks TLS to kubelets.
type pipeListener struct {
	config *tls.Config
	conns  chan net.Conn
	done   chan struct{}
	once   sync.Once
}

func newPipeListener(config *tls.Config) *pipeListener {
	return &pipeListener{config: config, conns: make(chan net.Conn), done: make(chan struct{})}
}

// Dial connects to the listener whatever the address is: a tenant can write
// node addresses, and they must not matter.
func (l *pipeListener) Dial(ctx context.Context, _, _ string) (net.Conn, error) {
	client, server := net.Pipe()
	select {
	case l.conns <- pipeConn{server}:
		return pipeConn{client}, nil
	case <-l.done:
		return nil, net.ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// pipeConn is an end of a pipe that is closed with the error of connections, by which
// upstream's proxies know that nothing has gone wrong.
type pipeConn struct{ net.Conn }

func (c pipeConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	return n, closedConn(err)
}

func (c pipeConn) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	return n, closedConn(err)
}

func closedConn(err error) error {
	if errors.Is(err, io.ErrClosedPipe) {
		return net.ErrClosed
	}
	return err
}

// Accept implements net.Listener.
func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return tls.Server(c, l.config), nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener. It is idempotent.
func (l *pipeListener) Close() error {
	l.once.Do(func() { close(l.done) })
	return nil
}

// Addr implements net.Listener.
func (l *pipeListener) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 10250} }

// idleListener never accepts. The API server insists on a listener, to know
// its port and to have something to stop; connections come from our caller.
type idleListener struct {
	addr net.Addr
	done chan struct{}
	once sync.Once
}

func newIdleListener(addr net.Addr) *idleListener {
	return &idleListener{addr: addr, done: make(chan struct{})}
}

// Accept implements net.Listener.
func (l *idleListener) Accept() (net.Conn, error) {
	<-l.done
	return nil, net.ErrClosed
}

// Close implements net.Listener. It is idempotent.
func (l *idleListener) Close() error {
	l.once.Do(func() { close(l.done) })
	return nil
}

// Addr implements net.Listener.
func (l *idleListener) Addr() net.Addr { return l.addr }
