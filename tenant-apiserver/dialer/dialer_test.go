package dialer

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
)

// places is a Network that answers from a map; then, if set, is called once a
// place was told.
type places struct {
	at   map[string]Place
	then func()
	err  error
}

func (p *places) At(_ context.Context, addr netip.Addr) (Place, error) {
	at := p.at[addr.String()]
	if p.then != nil {
		p.then()
	}
	return at, p.err
}

// withoutLoopback are the rules of tests whose pods are on this machine: of what is
// never dialled, all but 127.0.0.0/8.
func withoutLoopback() []netip.Prefix {
	var never []netip.Prefix
	for _, p := range Never() {
		if p.String() != "127.0.0.0/8" {
			never = append(never, p)
		}
	}
	return never
}

// names resolves from a map, and differently each time if there are several.
type names struct {
	answers [][]netip.Addr
	asked   atomic.Int32
}

func (n *names) LookupNetIP(context.Context, string, string) ([]netip.Addr, error) {
	i := int(n.asked.Add(1)) - 1
	if len(n.answers) == 0 {
		return nil, &net.DNSError{Err: "no such host", Server: "10.0.0.53:53"}
	}
	return n.answers[i%len(n.answers)], nil
}

func addrs(texts ...string) []netip.Addr {
	var out []netip.Addr
	for _, t := range texts {
		out = append(out, netip.MustParseAddr(t))
	}
	return out
}

func newDialer(t *testing.T, c Config) *Dialer {
	t.Helper()
	d, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// backend counts its connections at an address of this machine.
func backend(t *testing.T, host string) (port string, accepted *atomic.Int32) {
	t.Helper()
	l, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	accepted = &atomic.Int32{}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			accepted.Add(1)
			t.Cleanup(func() { c.Close() })
		}
	}()
	_, port, _ = net.SplitHostPort(l.Addr().String())
	return port, accepted
}

func refused(t *testing.T, d *Dialer, address string, says Verdict) {
	t.Helper()
	conn, err := d.DialContext(t.Context(), "tcp", address)
	if err == nil {
		conn.Close()
		t.Fatalf("%s was connected to", address)
	}
	if !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), string(says)) || !strings.Contains(err.Error(), address) {
		t.Errorf("%s: %v, want it to say %q", address, err, says)
	}
}

func TestPodsOnly(t *testing.T) {
	port, _ := backend(t, "127.0.0.2")
	other, accepted := backend(t, "127.0.0.3")
	network := &places{at: map[string]Place{"127.0.0.2": {Pod: "uid"}}}
	d := newDialer(t, Config{Network: network, Never: withoutLoopback()})
	conn, err := d.DialContext(t.Context(), "tcp", "127.0.0.2:"+port)
	if err != nil {
		t.Fatal(err)
	}
	if err := conn.Close(); err != nil {
		t.Error(err)
	}
	refused(t, d, "127.0.0.3:"+other, PublicOff)
	refused(t, d, "[::ffff:127.0.0.3]:"+other, PublicOff)
	network.at["127.0.0.3"] = Place{Pod: "uid", Host: true}
	refused(t, d, "127.0.0.3:"+other, OfHost)
	network.err = errors.New("the host does not say")
	refused(t, d, "127.0.0.2:"+port, "the host does not say")
	network.err = nil
	strict := newDialer(t, Config{Network: network})
	refused(t, strict, "127.0.0.2:"+port, NeverDialled)
	if accepted.Load() != 0 {
		t.Error("an address was connected to before it was refused")
	}
	for _, address := range []string{"127.0.0.2", "", ":"} {
		if _, err := d.DialContext(t.Context(), "tcp", address); err == nil {
			t.Errorf("%q was connected to", address)
		}
	}
	if _, err := d.DialContext(t.Context(), "unix", "/run/x.sock"); !errors.Is(err, ErrRefused) {
		t.Errorf("a unix socket: %v", err)
	}
}

// An address that becomes another pod's while the connection is made.
func TestAddressThatChangesHands(t *testing.T) {
	port, _ := backend(t, "127.0.0.2")
	for what, next := range map[string]Place{"another pod": {Pod: "other"}, "nobody": {}, "the host": {Host: true}} {
		network := &places{at: map[string]Place{"127.0.0.2": {Pod: "uid"}}}
		network.then = func() { network.at["127.0.0.2"] = next }
		d := newDialer(t, Config{Network: network, Never: withoutLoopback()})
		if conn, err := d.DialContext(t.Context(), "tcp", "127.0.0.2:"+port); err == nil || !errors.Is(err, ErrRefused) {
			t.Errorf("now of %s: connection %v, error %v", what, conn, err)
		}
		if n := len(d.open); n != 0 {
			t.Errorf("%d connections are counted as open", n)
		}
	}
}

// A name is looked up once, and what counts is the address that is connected to.
func TestNames(t *testing.T) {
	port, accepted := backend(t, "127.0.0.3")
	network := &places{at: map[string]Place{"127.0.0.2": {Pod: "uid"}}}
	for what, answers := range map[string][][]netip.Addr{
		"private":            {addrs("10.0.0.1")},
		"this machine":       {addrs("127.0.0.3")},
		"a pod":              {addrs("127.0.0.2")},
		"metadata, mapped":   {addrs("::ffff:169.254.169.254")},
		"rebinding":          {addrs("127.0.0.3"), addrs("127.0.0.3")},
		"several, all wrong": {addrs("10.0.0.1", "fe80::1", "64:ff9b::a00:1")},
		"nothing":            nil,
	} {
		resolver := &names{answers: answers}
		d := newDialer(t, Config{Network: network, Never: withoutLoopback(), Public: func() bool { return true }, Resolver: resolver})
		_, err := d.DialContext(t.Context(), "tcp", "backend.example:"+port)
		if !errors.Is(err, errName) || strings.Contains(err.Error(), "10.0.0") {
			t.Errorf("%s: %v; all of them must read alike, and tell no address", what, err)
		}
		if n := resolver.asked.Load(); n != 1 {
			t.Errorf("%s: looked up %d times", what, n)
		}
	}
	resolver := &names{answers: [][]netip.Addr{addrs("198.41.0.4")}}
	d := newDialer(t, Config{Network: network, Resolver: resolver})
	if _, err := d.DialContext(t.Context(), "tcp", "backend.example:443"); !errors.Is(err, ErrRefused) || resolver.asked.Load() != 0 {
		t.Errorf("without public addresses: %v, looked up %d times", err, resolver.asked.Load())
	}
	if accepted.Load() != 0 {
		t.Error("a refused address was connected to")
	}
}

// Public addresses are reached: the connection itself is cut short, since tests
// send nothing to the internet.
func TestPublicNameIsTried(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	over := errors.New("as far as a test goes")
	network := &places{then: func() { cancel(over) }}
	resolver := &names{answers: [][]netip.Addr{addrs("10.0.0.1", "198.41.0.4")}}
	d := newDialer(t, Config{Network: network, Public: func() bool { return true }, Resolver: resolver})
	if _, err := d.DialContext(ctx, "tcp", "backend.example:443"); err == nil || errors.Is(err, ErrRefused) {
		t.Errorf("a public address: %v, want no refusal", err)
	}
}

// An HTTP client that follows a redirect makes a new connection.
func TestRedirect(t *testing.T) {
	inside := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("the redirect was followed") }))
	defer inside.Close()
	l, err := net.Listen("tcp", "127.0.0.2:0")
	if err != nil {
		t.Fatal(err)
	}
	pod := httptest.NewUnstartedServer(http.RedirectHandler(inside.URL, http.StatusTemporaryRedirect))
	pod.Listener = l
	pod.Start()
	defer pod.Close()
	d := newDialer(t, Config{Network: &places{at: map[string]Place{"127.0.0.2": {Pod: "uid"}}}, Never: withoutLoopback()})
	client := &http.Client{Transport: &http.Transport{DialContext: d.DialContext}}
	defer client.CloseIdleConnections()
	if _, err := client.Get(pod.URL); !errors.Is(err, ErrRefused) {
		t.Errorf("the redirect: %v", err)
	}
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	resp, err := client.Get(pod.URL)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, resp.Body); err != nil || resp.StatusCode != http.StatusTemporaryRedirect {
		t.Errorf("the pod itself answers %d, %v", resp.StatusCode, err)
	}
	resp.Body.Close()
}

func TestConnectionsAreBounded(t *testing.T) {
	port, _ := backend(t, "127.0.0.2")
	d := newDialer(t, Config{Network: &places{at: map[string]Place{"127.0.0.2": {Pod: "uid"}}}, Never: withoutLoopback(), Connections: 1})
	first, err := d.DialContext(t.Context(), "tcp", "127.0.0.2:"+port)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.DialContext(t.Context(), "tcp", "127.0.0.2:"+port); !errors.Is(err, ErrTooMany) {
		t.Errorf("the second: %v", err)
	}
	first.Close()
	first.Close() // twice, as net/http does
	second, err := d.DialContext(t.Context(), "tcp", "127.0.0.2:"+port)
	if err != nil {
		t.Fatalf("after the first ended: %v", err)
	}
	second.Close()
	if n := len(d.open); n != 0 {
		t.Errorf("%d connections are counted as open", n)
	}
}

// A backend that never answers costs the timeout and no more.
func TestTimeout(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	d := newDialer(t, Config{
		Network: &places{then: cancel, at: map[string]Place{"127.0.0.2": {Pod: "uid"}}}, Never: withoutLoopback(), Timeout: 1,
	})
	if _, err := d.DialContext(ctx, "tcp", "127.0.0.2:9"); err == nil {
		t.Error("connected after the time was over")
	}
}

// A control plane that has stopped has no connections, whoever forgot them.
func TestClose(t *testing.T) {
	port, _ := backend(t, "127.0.0.2")
	d := newDialer(t, Config{Network: &places{at: map[string]Place{"127.0.0.2": {Pod: "uid"}}}, Never: withoutLoopback()})
	conn, err := d.DialContext(t.Context(), "tcp", "127.0.0.2:"+port)
	if err != nil {
		t.Fatal(err)
	}
	d.Close()
	d.Close()
	if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
		t.Errorf("reading of a closed connection: %v", err)
	}
	if _, err := d.DialContext(t.Context(), "tcp", "127.0.0.2:"+port); !errors.Is(err, net.ErrClosed) {
		t.Errorf("a connection after Close: %v", err)
	}
	if n := len(d.open); n != 0 {
		t.Errorf("%d connections are counted as open", n)
	}
}
