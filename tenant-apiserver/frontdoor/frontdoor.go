package frontdoor

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync"
	"time"
)

// Defaults of Config.
const (
	// defaultPerTenant: client-go holds one HTTP/2 connection per kubeconfig, and
	// exec, logs -f and port-forward one more each.
	defaultPerTenant = 1000
	// defaultHelloTimeout: a client sends its ClientHello at once; the time is
	// for lossy networks.
	defaultHelloTimeout = 10 * time.Second
	// defaultDialTimeout: how long a connection waits for a tenant whose cell is
	// being restarted, rather than fail. On a loaded machine that takes a while;
	// clients give up when they like, and are not counted any more then.
	defaultDialTimeout = time.Minute
	// defaultDrain: what connections get to end by themselves at shutdown.
	// Watches never do.
	defaultDrain = time.Second
	// defaultPending: connections of one client address that have not been
	// routed yet; it keeps one slow client from using up file descriptors.
	defaultPending = 256
)

// Config says where a front door listens and what it bears.
type Config struct {
	// Listener is the shared port. The front door closes it.
	Listener     net.Listener
	PerTenant    int           // connections of one tenant; 0: 1000
	Pending      int           // connections of one client address that are not routed yet; 0: 256
	HelloTimeout time.Duration // for the whole ClientHello; 0: 10 s
	DialTimeout  time.Duration // for the tenant's socket to accept; 0: 1 min
	Drain        time.Duration // at shutdown; 0: 1 s
	Logger       *slog.Logger
}

// Route says where a tenant is.
type Route struct {
	Tenant     string // its ID: the key for Set and Remove
	ServerName string // the SNI that is the tenant's
	Socket     string // the unix socket of the tenant's API
	// InCluster is the address for the tenant's own pods; the zero value: none.
	InCluster netip.AddrPort
}

// FrontDoor routes connections. Its methods may be called concurrently.
type FrontDoor struct {
	config Config
	ctx    context.Context // ends everything that the front door has started
	cancel context.CancelFunc
	wg     sync.WaitGroup // every goroutine of the front door

	mu      sync.Mutex
	closed  bool
	tenants map[string]*tenantDoor // by tenant
	names   map[string]*tenantDoor // by server name
	pending map[netip.Addr]int     // unrouted connections by client address
}

// New returns a front door that accepts nothing until Run.
func New(c Config) (*FrontDoor, error) {
	if c.Listener == nil || c.Logger == nil {
		return nil, errors.New("front door: Config.Listener and Config.Logger must be set")
	}
	setDefault(&c.PerTenant, defaultPerTenant)
	setDefault(&c.Pending, defaultPending)
	setDefault(&c.HelloTimeout, defaultHelloTimeout)
	setDefault(&c.DialTimeout, defaultDialTimeout)
	setDefault(&c.Drain, defaultDrain)
	ctx, cancel := context.WithCancel(context.Background())
	return &FrontDoor{
		config: c, ctx: ctx, cancel: cancel,
		tenants: map[string]*tenantDoor{}, names: map[string]*tenantDoor{}, pending: map[netip.Addr]int{},
	}, nil
}

func setDefault[T int | time.Duration](v *T, d T) {
	if *v <= 0 {
		*v = d
	}
}

// Run accepts connections until ctx ends. It then stops listening, gives open
// connections Config.Drain to end, closes the rest, and returns when all
// goroutines of the front door have ended. It is to be called once.
func (f *FrontDoor) Run(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { _ = f.config.Listener.Close() }) // unblocks accept; nothing else can be done about an error
	defer stop()
	err := f.accept(f.config.Listener, f.serveByName)
	f.shut()
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// accept hands connections to serve, a goroutine each, until the listener is
// closed. Errors of single connections and a shortage of file descriptors do not
// end it.
func (f *FrontDoor) accept(l net.Listener, serve func(net.Conn)) error {
	for {
		conn, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			var temporary interface{ Temporary() bool }
			if !errors.As(err, &temporary) || !temporary.Temporary() {
				return fmt.Errorf("front door: accept: %w", err)
			}
			f.config.Logger.Warn("front door: accept", "error", err)
			select {
			case <-f.ctx.Done():
				return nil
			case <-time.After(50 * time.Millisecond):
			}
			continue
		}
		if !f.enter() {
			_ = conn.Close() // shutting down
			return nil
		}
		go func() {
			defer f.wg.Done()
			defer conn.Close()
			serve(conn)
		}()
	}
}

// enter counts a goroutine unless the front door is shutting down.
func (f *FrontDoor) enter() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return false
	}
	f.wg.Add(1)
	return true
}

// shut closes every listener and, after the drain, every connection, and waits.
func (f *FrontDoor) shut() {
	f.mu.Lock()
	f.closed = true
	for _, t := range f.tenants {
		t.closeListener()
	}
	f.mu.Unlock()
	done := make(chan struct{})
	go func() { f.wg.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(f.config.Drain):
	}
	f.cancel()
	f.mu.Lock()
	for _, t := range f.tenants {
		t.closeConns()
	}
	f.mu.Unlock()
	<-done
}

// serveByName routes a connection of the shared port.
func (f *FrontDoor) serveByName(conn net.Conn) {
	client := addrOf(conn)
	if !f.beginPending(client) {
		return
	}
	ctx, cancel := context.WithTimeout(f.ctx, f.config.HelloTimeout)
	name, taken, err := readHello(ctx, conn)
	cancel()
	f.endPending(client)
	if err != nil {
		if errors.Is(err, errPlain) {
			refuse(conn, []byte(notTLS))
		}
		f.config.Logger.Debug("front door: refused a connection", "client", client, "error", err)
		return
	}
	t := f.byName(name)
	if t == nil {
		refuse(conn, alertUnrecognizedName)
		f.config.Logger.Debug("front door: no such tenant", "client", client, "serverName", name)
		return
	}
	f.pass(t, conn, taken)
}

// refuse sends the last bytes of a connection that is closed next.
func refuse(conn net.Conn, last []byte) {
	_ = conn.SetWriteDeadline(time.Now().Add(time.Second)) // best effort: the client learns why
	_, _ = conn.Write(last)
}

func (f *FrontDoor) byName(name string) *tenantDoor {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.names[strings.ToLower(name)]
}

func (f *FrontDoor) beginPending(client netip.Addr) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.pending[client] >= f.config.Pending {
		return false
	}
	f.pending[client]++
	return true
}

func (f *FrontDoor) endPending(client netip.Addr) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.pending[client]--; f.pending[client] == 0 {
		delete(f.pending, client)
	}
}

func addrOf(conn net.Conn) netip.Addr {
	a, err := netip.ParseAddrPort(conn.RemoteAddr().String())
	if err != nil {
		return netip.Addr{}
	}
	return a.Addr().Unmap()
}
