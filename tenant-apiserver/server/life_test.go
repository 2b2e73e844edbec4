package server

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/remotecommand"

	"sublet.dev/tenant-apiserver/pki"
	"sublet.dev/tenant-apiserver/store"
)

// scratch is the configuration of a tenant that belongs to one test.
func scratch(t *testing.T, name string, i int) Config {
	t.Helper()
	c := tenantConfig(t.TempDir(), name, i)
	c.GoldenDir = w.golden
	var err error
	if c.PKI, err = pki.LoadOrCreate(filepath.Join(filepath.Dir(c.StorePath), "pki"), name); err != nil {
		t.Fatal(err)
	}
	return c
}

func start(t *testing.T, c Config) *Server {
	t.Helper()
	s, err := Start(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func stop(t *testing.T, s *Server) {
	t.Helper()
	if err := s.Stop(context.Background()); err != nil {
		t.Error(err)
	}
}

func TestRestartKeepsObjects(t *testing.T) {
	c := scratch(t, "restart", 10)
	s := start(t, c)
	k := client(t, s.Loopback())
	cm := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "kept"}, Data: map[string]string{"a": "b"}}
	await(t, "default namespace", func(ctx context.Context) (bool, error) {
		_, err := k.CoreV1().ConfigMaps("default").Create(ctx, cm, metav1.CreateOptions{})
		return found(err)
	})
	before, err := k.CoreV1().Namespaces().Get(t.Context(), "kube-system", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	stop(t, s)
	s = start(t, c)
	defer stop(t, s)
	k = client(t, s.Loopback())
	got, err := k.CoreV1().ConfigMaps("default").Get(t.Context(), "kept", metav1.GetOptions{})
	if err != nil || got.Data["a"] != "b" {
		t.Errorf("object after restart: %v, error %v", got, err)
	}
	after, err := k.CoreV1().Namespaces().Get(t.Context(), "kube-system", metav1.GetOptions{})
	if err != nil || before.UID != after.UID {
		t.Errorf("kube-system has UID %s, had %s, error %v", after.UID, before.UID, err)
	}
}

func TestTenantsHaveAnIdentityOfTheirOwn(t *testing.T) {
	var uids []string
	for _, m := range []*member{w.a, w.b} {
		ns, err := client(t, m.server.Loopback()).CoreV1().Namespaces().Get(t.Context(), "kube-system", metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		uids = append(uids, string(ns.UID))
	}
	if uids[0] == uids[1] {
		t.Error("two tenants have the same kube-system")
	}
}

func TestConcurrentStarts(t *testing.T) {
	const n = 10
	servers := make([]*Server, n)
	errs := make([]error, n)
	var wg sync.WaitGroup
	for i := range n {
		c := scratch(t, fmt.Sprintf("many-%d", i), 20+i)
		wg.Go(func() { servers[i], errs[i] = Start(t.Context(), c) })
	}
	wg.Wait()
	for i, s := range servers {
		if errs[i] != nil {
			t.Error(errs[i])
			continue
		}
		if err := s.Ready(); err != nil {
			t.Error(err)
		}
	}
	for _, s := range servers {
		if s != nil {
			wg.Go(func() { stop(t, s) })
		}
	}
	wg.Wait()
}

func TestGoldenObjectsHoldNothingOfATenant(t *testing.T) {
	paths, err := filepath.Glob(filepath.Join(w.golden, "*.golden"))
	if err != nil || len(paths) != 1 {
		t.Fatalf("golden objects %v, error %v", paths, err)
	}
	golden, err := readGolden(paths[0])
	if err != nil || len(golden) < 150 {
		t.Fatalf("%d golden objects, error %v", len(golden), err)
	}
	for _, kv := range golden {
		for _, secret := range []string{"BEGIN ", "eyJ", "192.0.2."} {
			if bytes.Contains(kv.Value, []byte(secret)) {
				t.Errorf("%s holds %q", kv.Key, secret)
			}
		}
	}
}

func TestDamagedGoldenObjectsAreMadeAgain(t *testing.T) {
	dir := t.TempDir()
	golden, err := ensureGolden(t.Context(), w.golden)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, goldenName)
	if err := writeGolden(path, golden[:3]); err != nil {
		t.Fatal(err)
	}
	if few, err := ensureGolden(t.Context(), dir); err != nil || len(few) != 3 {
		t.Fatalf("%d objects, error %v", len(few), err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	data[len(data)/2] ^= 1
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	if again, err := ensureGolden(t.Context(), dir); err != nil || len(again) != len(golden) {
		t.Errorf("%d objects instead of %d, error %v", len(again), len(golden), err)
	}
}

// What stays behind: a handful of goroutines that upstream starts once per
// process, or that end some time after the server they belong to.
const leakTolerance = 12

func TestStopLeaksNothing(t *testing.T) {
	cycle := func(i int) {
		c := scratch(t, "cycle", 40+i)
		s := start(t, c)
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		served := make(chan error, 1)
		go func() { served <- s.Serve(t.Context(), l) }()
		m := &member{server: s, ca: c.PKI, addr: l.Addr().String()}
		watcher, err := client(t, m.admin(t)).CoreV1().ConfigMaps("").Watch(t.Context(), metav1.ListOptions{})
		if err != nil {
			t.Fatal(err)
		}
		stop(t, s)
		if err := <-served; err != nil {
			t.Error(err)
		}
		watcher.Stop()
		select {
		case <-s.Done():
		default:
			t.Error("stopped, but not done")
		}
		if err := s.Ready(); err == nil {
			t.Error("ready after stop")
		}
	}
	cycle(0) // what happens once per process
	before := runtime.NumGoroutine()
	const cycles = 3
	for i := range cycles {
		cycle(1 + i)
	}
	after := 0
	await(t, "goroutines to end", func(context.Context) (bool, error) {
		runtime.GC()
		after = runtime.NumGoroutine()
		return after <= before+leakTolerance, nil
	})
	t.Logf("goroutines before %d, after %d cycles %d", before, cycles, after)
}

// writerFunc is an io.Writer.
type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

func TestStopEndsAnExecUnderWay(t *testing.T) {
	c := scratch(t, "exec", 55)
	m, err := startMember(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	config := m.admin(t)
	await(t, "service account", func(ctx context.Context) (bool, error) {
		_, err := client(t, config).CoreV1().ServiceAccounts("default").Get(ctx, "default", metav1.GetOptions{})
		return found(err)
	})
	boundPod(t, m, "default")
	e, err := remotecommand.NewWebSocketExecutor(config, "GET", execURL(t, config, "default").String())
	if err != nil {
		t.Fatal(err)
	}
	began := make(chan struct{})
	ended := make(chan error, 1)
	stdin, keep := io.Pipe() // never written to
	defer keep.Close()
	out := writerFunc(func(p []byte) (int, error) { close(began); return len(p), nil })
	go func() {
		ended <- e.StreamWithContext(t.Context(), remotecommand.StreamOptions{Stdin: stdin, Stdout: out})
	}()
	<-began
	if err := m.stop(); err != nil {
		t.Error(err)
	}
	if err := <-ended; err == nil {
		t.Error("the exec ended as if nothing had happened")
	}
}

func TestStartRefusesWhatItCannotUse(t *testing.T) {
	foreign := scratch(t, "foreign", 50)
	if err := os.WriteFile(foreign.StorePath, bytes.Repeat([]byte("not a store "), 4096), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Start(t.Context(), foreign); !errors.Is(err, store.ErrForeign) && !errors.Is(err, store.ErrCorrupt) {
		t.Errorf("a foreign file: %v", err)
	} else if !strings.Contains(err.Error(), foreign.StorePath) {
		t.Errorf("the error does not name the file: %v", err)
	}
	inUse := scratch(t, "in-use", 51)
	s := start(t, inUse)
	defer stop(t, s)
	if _, err := Start(t.Context(), inUse); !errors.Is(err, store.ErrInUse) {
		t.Errorf("a store in use: %v", err)
	}
	for field, spoil := range map[string]func(*Config){
		"Name": func(c *Config) { c.Name = "" }, "StorePath": func(c *Config) { c.StorePath = "" },
		"PKI": func(c *Config) { c.PKI = nil }, "ServiceCIDR": func(c *Config) { c.ServiceCIDR = netip.Prefix{} },
	} {
		c := inUse
		spoil(&c)
		if _, err := Start(t.Context(), c); err == nil || !strings.Contains(err.Error(), field) {
			t.Errorf("without %s: %v", field, err)
		}
	}
}

func TestStartGivesUpWithItsContext(t *testing.T) {
	c := scratch(t, "late", 60)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Start(ctx, c); !errors.Is(err, context.Canceled) {
		t.Fatalf("error %v", err)
	}
	s := start(t, c) // nothing was left running on the store
	stop(t, s)
}
