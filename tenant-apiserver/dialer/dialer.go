package dialer

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"
)

const (
	// DefaultTimeout is what a connection gets to stand, its name's lookup included.
	// The API server gives a webhook ten seconds by default.
	DefaultTimeout = 5 * time.Second
	// DefaultConnections is how many connections a tenant's control plane may have
	// at a time.
	DefaultConnections = 256
)

// ErrRefused is in the chain of every error of an address that may not be
// connected to.
var ErrRefused = errors.New("refused")

// ErrTooMany is in the chain of the error of a connection too many.
var ErrTooMany = errors.New("too many connections of this cluster's API server are open: try again")

// errName says the same of names that do not exist and of those that lead to where
// a tenant must not know of.
var errName = fmt.Errorf("%w: the name has no public address", ErrRefused)

// Network is what the host knows of addresses. It is asked twice for each
// connection. It may wait, as long as ctx lasts, until it knows; an error refuses
// the connection.
type Network interface {
	At(ctx context.Context, addr netip.Addr) (Place, error)
}

// Resolver looks names up; net.Resolver is one.
type Resolver interface {
	LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error)
}

// Config describes a tenant's dialer. Network must be set.
type Config struct {
	Network Network
	// Never is connected to in no case. Nil: [Never].
	Never []netip.Prefix
	// Public says whether public addresses are allowed. It is asked for each
	// connection; nil forbids them.
	Public func() bool
	// Resolver looks names up. Nil: the machine's.
	Resolver Resolver
	// Timeout bounds a connection's setting up; 0 means DefaultTimeout.
	Timeout time.Duration
	// Connections bounds how many are open at a time; 0 means DefaultConnections.
	Connections int
}

// Dialer makes connections. Its methods may be called concurrently.
type Dialer struct {
	config Config

	mu     sync.Mutex
	closed bool
	open   map[*counted]struct{} // those that stand, and those that are being set up
}

// New returns a tenant's dialer.
func New(c Config) (*Dialer, error) {
	if c.Network == nil {
		return nil, errors.New("dialer: Config.Network must be set")
	}
	if c.Never == nil {
		c.Never = Never()
	}
	if c.Resolver == nil {
		c.Resolver = net.DefaultResolver
	}
	c.Timeout = cmp.Or(c.Timeout, DefaultTimeout)
	c.Connections = cmp.Or(c.Connections, DefaultConnections)
	return &Dialer{config: c, open: map[*counted]struct{}{}}, nil
}

// Close closes all connections and refuses others from now on. It is idempotent.
func (d *Dialer) Close() {
	d.mu.Lock()
	d.closed = true
	var standing []*counted
	for c := range d.open {
		if c.TCPConn != nil {
			standing = append(standing, c)
		}
	}
	d.mu.Unlock()
	for _, c := range standing {
		_ = c.Close() // nobody is left to tell
	}
}

// DialContext connects to a host and port by TCP (network "tcp", "tcp4" or
// "tcp6"), if it may. It has the form of net.Dialer's. Closing the connection is
// the caller's business.
func (d *Dialer) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	conn, err := d.dial(ctx, network, address)
	if err != nil {
		return nil, fmt.Errorf("connecting to %s: %w", address, err)
	}
	return conn, nil
}

// DialPublic is DialContext for what the provider has named: public addresses are
// allowed whatever Config.Public says.
func (d *Dialer) DialPublic(ctx context.Context, network, address string) (net.Conn, error) {
	return d.DialContext(context.WithValue(ctx, publicKey{}, true), network, address)
}

// publicKey marks the context of DialPublic.
type publicKey struct{}

func (d *Dialer) dial(ctx context.Context, network, address string) (net.Conn, error) {
	if network != "tcp" && network != "tcp4" && network != "tcp6" {
		return nil, fmt.Errorf("%w: only TCP is spoken", ErrRefused)
	}
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, d.config.Timeout)
	defer cancel()
	c, err := d.acquire()
	if err != nil {
		return nil, err
	}
	conn, err := d.connect(ctx, network, host, port)
	if err == nil && !d.stand(c, conn) {
		err = errors.Join(net.ErrClosed, conn.Close())
	}
	if err != nil {
		d.release(c)
		return nil, err
	}
	return c, nil
}

// acquire counts a connection in.
func (d *Dialer) acquire() (*counted, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return nil, net.ErrClosed
	}
	if len(d.open) >= d.config.Connections {
		return nil, ErrTooMany
	}
	c := &counted{dialer: d}
	d.open[c] = struct{}{}
	return c, nil
}

// stand gives a counted connection what it stands for; false after Close.
func (d *Dialer) stand(c *counted, conn *net.TCPConn) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	c.TCPConn = conn
	return !d.closed
}

func (d *Dialer) release(c *counted) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.open, c)
}

// connect connects to the first address of host that allows it and answers.
func (d *Dialer) connect(ctx context.Context, network, host, port string) (*net.TCPConn, error) {
	if addr, err := netip.ParseAddr(host); err == nil {
		return d.reach(ctx, network, addr, port)
	}
	rules := d.rules(ctx)
	if !rules.Public {
		return nil, fmt.Errorf("%w: names lead to public addresses, which are not allowed", ErrRefused)
	}
	addrs, err := d.config.Resolver.LookupNetIP(ctx, "ip"+network[len("tcp"):], host)
	if err != nil {
		return nil, errName // what the resolver says is the provider's
	}
	failure := errName
	for _, addr := range addrs {
		at, err := d.config.Network.At(ctx, addr.Unmap())
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrRefused, err)
		}
		if rules.Decide(addr, at) != ToPublic {
			continue // a name must not say which addresses are pods'
		}
		conn, err := d.reach(ctx, network, addr, port)
		if err == nil {
			return conn, nil
		}
		failure = err
	}
	return nil, failure
}

// reach connects to an address if it may, before and after.
func (d *Dialer) reach(ctx context.Context, network string, addr netip.Addr, port string) (*net.TCPConn, error) {
	var before Place
	dialer := net.Dialer{
		// Whatever is between here and the kernel, this is the address it gets.
		ControlContext: func(ctx context.Context, _, peer string, _ syscall.RawConn) (err error) {
			before, err = d.check(ctx, peer)
			return err
		},
		FallbackDelay: -1,
	}
	conn, err := dialer.DialContext(ctx, network, net.JoinHostPort(addr.String(), port))
	if err != nil {
		return nil, plain(err)
	}
	after, err := d.check(ctx, conn.RemoteAddr().String())
	if err == nil && after != before {
		err = fmt.Errorf("%w: the address changed hands: try again", ErrRefused)
	}
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	tcp, ok := conn.(*net.TCPConn)
	if !ok {
		return nil, errors.Join(fmt.Errorf("%w: only TCP is spoken", ErrRefused), conn.Close())
	}
	return tcp, nil
}

// check decides about an address and port as the kernel has them.
func (d *Dialer) check(ctx context.Context, peer string) (Place, error) {
	ap, err := netip.ParseAddrPort(peer)
	if err != nil {
		return Place{}, fmt.Errorf("%w: %s", ErrRefused, NotAnAddress)
	}
	at, err := d.config.Network.At(ctx, ap.Addr().Unmap())
	if err != nil {
		return Place{}, fmt.Errorf("%w: %w", ErrRefused, err)
	}
	if v := d.rules(ctx).Decide(ap.Addr(), at); !v.Allowed() {
		return Place{}, fmt.Errorf("%w: %s", ErrRefused, v)
	}
	return at, nil
}

func (d *Dialer) rules(ctx context.Context) Rules {
	return Rules{Never: d.config.Never, Public: ctx.Value(publicKey{}) != nil || d.config.Public != nil && d.config.Public()}
}

// plain takes the address and port off an error of package net: the caller has
// what the tenant wrote, and a name's address is not to be told.
func plain(err error) error {
	var op *net.OpError
	if errors.As(err, &op) {
		return op.Err
	}
	return err
}

// counted is a connection that is counted out when it is closed.
type counted struct {
	*net.TCPConn
	dialer *Dialer
}

// Close implements net.Conn.
func (c *counted) Close() error {
	c.dialer.release(c)
	return c.TCPConn.Close()
}
