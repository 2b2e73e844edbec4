package frontdoor_test

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sublet.dev/tenant-apiserver/frontdoor"
)

// world is a running front door.
type world struct {
	door *frontdoor.FrontDoor
	addr string
	stop func() error
}

func start(t *testing.T, change func(*frontdoor.Config)) world {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := frontdoor.Config{Listener: l, Logger: slog.New(slog.DiscardHandler), Drain: time.Millisecond}
	if change != nil {
		change(&c)
	}
	door, err := frontdoor.New(c)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- door.Run(ctx) }()
	stopped := false
	w := world{door: door, addr: l.Addr().String()}
	w.stop = func() error {
		if stopped {
			return nil
		}
		stopped = true
		cancel()
		return <-done
	}
	t.Cleanup(func() { _ = w.stop() })
	return w
}

// backend is a tenant's API: a TLS server on a unix socket that says its name and
// then echoes until its client half-closes.
func backend(t *testing.T, socket, name string) {
	t.Helper()
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	cert := certificate(t, name)
	tl := tls.NewListener(l, &tls.Config{Certificates: []tls.Certificate{cert}})
	t.Cleanup(func() { _ = tl.Close() })
	go func() {
		for {
			c, err := tl.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				_, _ = io.WriteString(c, name+"\n")
				_, _ = io.Copy(c, c)
				_, _ = io.WriteString(c, "bye\n")
			}()
		}
	}()
}

func certificate(t *testing.T, name string) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{name}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// dir is short: a unix socket's path has 107 bytes at most.
func dir(t *testing.T) string {
	t.Helper()
	d, err := os.MkdirTemp("", "fd")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(d) })
	return d
}

func dial(addr, name string) (*tls.Conn, error) {
	return tls.Dial("tcp", addr, &tls.Config{ServerName: name, InsecureSkipVerify: true})
}

func greeting(t *testing.T, addr, name string) string {
	t.Helper()
	c, err := dial(addr, name)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	line, err := bufio.NewReader(c).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(line)
}

func TestRoutesByServerName(t *testing.T) {
	w, d := start(t, nil), dir(t)
	for _, n := range []string{"a", "b"} {
		backend(t, filepath.Join(d, n), n+".test")
		if err := w.door.Set(frontdoor.Route{Tenant: n, ServerName: n + ".test", Socket: filepath.Join(d, n)}); err != nil {
			t.Fatal(err)
		}
	}
	for name, want := range map[string]string{"a.test": "a.test", "b.test": "b.test", "A.TEST": "a.test"} {
		if got := greeting(t, w.addr, name); got != want {
			t.Errorf("%s reached %s", name, got)
		}
	}
	for _, name := range []string{"c.test", ""} {
		_, err := dial(w.addr, name)
		if err == nil || !strings.Contains(err.Error(), "unrecognized name") {
			t.Errorf("dial %q: %v, want the alert unrecognized_name", name, err)
		}
	}
	if err := w.door.Set(frontdoor.Route{Tenant: "c", ServerName: "a.test", Socket: "x"}); !errors.Is(err, frontdoor.ErrNameTaken) {
		t.Errorf("a second tenant got the name: %v", err)
	}
}

func TestHalfCloseIsPassedOn(t *testing.T) {
	w, d := start(t, nil), dir(t)
	backend(t, filepath.Join(d, "a"), "a.test")
	if err := w.door.Set(frontdoor.Route{Tenant: "a", ServerName: "a.test", Socket: filepath.Join(d, "a")}); err != nil {
		t.Fatal(err)
	}
	c, err := dial(w.addr, "a.test")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := io.WriteString(c, "ping\n"); err != nil {
		t.Fatal(err)
	}
	if err := c.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	all, err := io.ReadAll(c)
	if err != nil || string(all) != "a.test\nping\nbye\n" {
		t.Fatalf("read %q, %v", all, err)
	}
}

func TestTenantsOwnPort(t *testing.T) {
	w, d := start(t, nil), dir(t)
	backend(t, filepath.Join(d, "a"), "a.test")
	free, err := net.Listen("tcp", "127.0.0.2:0") // nobody connects from there, so the port stays free
	if err != nil {
		t.Fatal(err)
	}
	own := netip.MustParseAddrPort(free.Addr().String())
	route := frontdoor.Route{Tenant: "a", ServerName: "a.test", Socket: filepath.Join(d, "a"), InCluster: own}
	if err := w.door.Set(route); err == nil {
		t.Fatal("no error for a port that is taken")
	}
	if err := free.Close(); err != nil {
		t.Fatal(err)
	}
	for range 2 { // idempotent
		if err := w.door.Set(route); err != nil {
			t.Fatal(err)
		}
	}
	if got := greeting(t, own.String(), ""); got != "a.test" {
		t.Fatalf("reached %s", got)
	}
	w.door.Remove("a")
	w.door.Remove("a")
	if c, err := net.Dial("tcp", own.String()); err == nil {
		_ = c.Close()
		t.Fatal("the port is still open after Remove")
	}
}

func TestRemoveClosesConnections(t *testing.T) {
	w, d := start(t, nil), dir(t)
	backend(t, filepath.Join(d, "a"), "a.test")
	if err := w.door.Set(frontdoor.Route{Tenant: "a", ServerName: "a.test", Socket: filepath.Join(d, "a")}); err != nil {
		t.Fatal(err)
	}
	c, err := dial(w.addr, "a.test")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	w.door.Remove("a")
	_, _ = io.ReadAll(c) // returns, with an error or without one: the connection is closed
}

// A tenant whose cell is being restarted is waited for.
func TestWaitsForTheSocket(t *testing.T) {
	w, d := start(t, nil), dir(t)
	socket := filepath.Join(d, "a")
	if err := w.door.Set(frontdoor.Route{Tenant: "a", ServerName: "a.test", Socket: socket}); err != nil {
		t.Fatal(err)
	}
	raw, err := net.Dial("tcp", w.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	c := tls.Client(raw, &tls.Config{ServerName: "a.test", InsecureSkipVerify: true})
	done := make(chan error, 1)
	go func() { done <- c.HandshakeContext(t.Context()) }()
	backend(t, socket, "a.test")
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

// Who waits for a tenant whose cell is being restarted and gives up makes room for others,
// long before the wait would end.
func TestGivesUpWaiting(t *testing.T) {
	w, d := start(t, func(c *frontdoor.Config) { c.PerTenant, c.DialTimeout = 1, time.Hour }), dir(t)
	socket := filepath.Join(d, "a")
	if err := w.door.Set(frontdoor.Route{Tenant: "a", ServerName: "a.test", Socket: socket}); err != nil {
		t.Fatal(err)
	}
	tries := func() (net.Conn, chan error) {
		raw, err := net.Dial("tcp", w.addr)
		if err != nil {
			t.Fatal(err)
		}
		c := tls.Client(raw, &tls.Config{ServerName: "a.test", InsecureSkipVerify: true})
		done := make(chan error, 1)
		go func() { done <- c.HandshakeContext(t.Context()) }()
		return raw, done
	}
	waits, waited := tries()
	for { // until the first is the one that waits
		other, refused := tries()
		select {
		case <-refused:
			_ = other.Close()
		case err := <-waited: // the other was faster
			if err == nil {
				t.Fatal("it reached somebody")
			}
			waits, waited = other, refused
			continue
		}
		break
	}
	if err := waits.Close(); err != nil {
		t.Fatal(err)
	}
	<-waited
	backend(t, filepath.Join(d, "later"), "a.test")
	for { // until there is room again
		c, done := tries()
		if err := os.Rename(filepath.Join(d, "later"), socket); err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
		err := <-done
		_ = c.Close()
		if err == nil {
			break
		}
	}
}

// Slow clients neither delay others nor get more connections than their share.
func TestSlowClients(t *testing.T) {
	w, d := start(t, func(c *frontdoor.Config) { c.Pending = 3; c.HelloTimeout = time.Hour }), dir(t)
	backend(t, filepath.Join(d, "a"), "a.test")
	if err := w.door.Set(frontdoor.Route{Tenant: "a", ServerName: "a.test", Socket: filepath.Join(d, "a")}); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		slow, err := net.Dial("tcp", w.addr)
		if err != nil {
			t.Fatal(err)
		}
		defer slow.Close()
		if _, err := slow.Write([]byte{22, 3, 1}); err != nil {
			t.Fatal(err)
		}
	}
	if got := greeting(t, w.addr, "a.test"); got != "a.test" {
		t.Fatalf("reached %s", got)
	}
	closed := make(chan struct{}, 2)
	for range 2 { // one more than may wait: which of the two is refused is open
		more, err := net.Dial("tcp", w.addr)
		if err != nil {
			t.Fatal(err)
		}
		defer more.Close()
		go func() {
			_, _ = more.Read(make([]byte, 1))
			closed <- struct{}{}
		}()
	}
	<-closed
	if err := w.stop(); err != nil { // must not wait for the slow ones' hour
		t.Fatal(err)
	}
}

func TestHelloTimeout(t *testing.T) {
	w := start(t, func(c *frontdoor.Config) { c.HelloTimeout = time.Millisecond })
	c, err := net.Dial("tcp", w.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Read(make([]byte, 1)); err == nil {
		t.Fatal("read something")
	}
}

func TestPerTenantLimit(t *testing.T) {
	w, d := start(t, func(c *frontdoor.Config) { c.PerTenant = 1 }), dir(t)
	for _, n := range []string{"a", "b"} {
		backend(t, filepath.Join(d, n), n+".test")
		if err := w.door.Set(frontdoor.Route{Tenant: n, ServerName: n + ".test", Socket: filepath.Join(d, n)}); err != nil {
			t.Fatal(err)
		}
	}
	c, err := dial(w.addr, "a.test")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := dial(w.addr, "a.test"); err == nil {
		t.Fatal("the second connection was passed on")
	}
	if got := greeting(t, w.addr, "b.test"); got != "b.test" {
		t.Fatalf("reached %s", got)
	}
}

func TestPlainHTTP(t *testing.T) {
	w := start(t, nil)
	c, err := net.Dial("tcp", w.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := io.WriteString(c, "GET / HTTP/1.1\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(c).ReadString('\n')
	if err != nil || !strings.HasPrefix(line, "HTTP/1.0 400") {
		t.Fatalf("read %q, %v", line, err)
	}
}
