package syncer

import (
	"context"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"sublet.dev/api/v1alpha1"
	"sublet.dev/isolation/baseline"
	"sublet.dev/isolation/tenant"
	"sublet.dev/syncer"
	"sublet.dev/tenant-apiserver/manager"
	"sublet.dev/tenant-apiserver/pki"
	"sublet.dev/tenant-apiserver/server"
	"sublet.dev/test/tail"
)

const (
	cell     = "cell-0"
	hostNode = "worker-1.example.org"
	// hostNodeIP is where the fake kubelet listens.
	hostNodeIP = "127.0.0.1"
	// patience only ends a test that would wait for ever for a state that must come.
	patience = 5 * time.Minute
)

// acme is the tenant of the tests, and of the archives in syncer/translate/testdata.
var acme = tenant.Tenant{
	ID: "0d9f2c1e-7b6a-4c58-9a3e-2f1d5c4b3a29", Name: "acme", Sandbox: tenant.GVisor,
	HostNamespace: tenant.HostNamespace("acme", "0d9f2c1e-7b6a-4c58-9a3e-2f1d5c4b3a29"),
	ServiceCIDR:   netip.MustParsePrefix("10.96.4.0/22"), SecondServiceCIDR: netip.MustParsePrefix("fd00:96::400/118"),
}

// world is what the tests share: both control planes and a running syncer.
type world struct {
	host, tenant *kubernetes.Clientset // administrators
	tenantConfig *rest.Config
	cellConfig   *rest.Config // the cell's identity on the host
	shared       *syncer.Host
	clock        *shiftedClock
	faults       *faults // between the syncer and the host's API
	restart      func()  // stops the syncer and runs another
	running      atomic.Pointer[syncer.Syncer]
	stops        []func()
}

var w world

func TestMain(m *testing.M) {
	flag.Parse()
	os.Exit(tail.Main(tests{m}))
}

// tests is the package's, with the world they run in.
type tests struct{ m *testing.M }

func (t tests) Run() int {
	code, err := w.run(t.m)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return code
}

func (w *world) run(m *testing.M) (int, error) {
	dir, err := os.MkdirTemp("", "sublet-syncer-")
	if err != nil {
		return 1, err
	}
	defer os.RemoveAll(dir)
	defer func() {
		for i := len(w.stops) - 1; i >= 0; i-- {
			w.stops[i]()
		}
	}()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	if err := w.start(ctx, dir); err != nil {
		return 1, fmt.Errorf("start: %w", err)
	}
	return m.Run(), nil
}

func (w *world) start(ctx context.Context, dir string) error {
	log := slog.New(slog.NewTextHandler(io.Discard, nil))
	if testing.Verbose() {
		log = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelInfo}))
	}
	kubelet := &late{}
	host, err := w.startHost(ctx, dir, log)
	if err != nil {
		return fmt.Errorf("host: %w", err)
	}
	own, tenantAddr, tenantCA, err := w.serve(ctx, server.Config{
		Name: "acme", StorePath: filepath.Join(dir, "acme", "store.db"), GoldenDir: filepath.Join(dir, "golden"),
		ServiceCIDR: acme.ServiceCIDR, SecondServiceCIDR: acme.SecondServiceCIDR, Advertise: netip.MustParseAddrPort("203.0.113.7:7001"), Kubelet: kubelet, Logger: log,
	})
	if err != nil {
		return fmt.Errorf("tenant: %w", err)
	}
	hostConfig = host.admin
	if w.host, err = kubernetes.NewForConfig(quick(host.admin)); err != nil {
		return err
	}
	if w.tenantConfig, err = as(tenantCA, tenantAddr, "admin", "system:masters"); err != nil {
		return err
	}
	if w.tenant, err = kubernetes.NewForConfig(quick(w.tenantConfig)); err != nil {
		return err
	}
	if err := apply(ctx, host.admin, append(append(baseline.Host(), baseline.Cell(cell)...), baseline.Tenant(acme, cell, v1alpha1.PlanSpec{})...)); err != nil {
		return err
	}
	if err := define(ctx, host.admin); err != nil {
		return fmt.Errorf("definitions: %w", err)
	}
	port, err := w.serveKubelet(host.ca)
	if err != nil {
		return fmt.Errorf("kubelet: %w", err)
	}
	if err := w.addNode(ctx, port); err != nil {
		return fmt.Errorf("node: %w", err)
	}
	read, err := host.as(tenant.CellUser(cell))
	if err != nil {
		return err
	}
	w.cellConfig = quick(read)
	w.faults = newFaults()
	read.Wrap(w.faults.wrap)
	write := rest.CopyConfig(read)
	write.Impersonate.UserName = tenant.WriteUser(acme.HostNamespace)
	w.clock = &shiftedClock{}
	if err := w.share(read); err != nil {
		return err
	}
	return w.runSyncer(syncer.Config{Tenant: acme, TenantAPI: own.Loopback(), Host: w.shared, HostWrite: write, Logger: log, Clock: w.clock}, kubelet)
}

// serve starts a control plane with a listener.
func (w *world) serve(ctx context.Context, c server.Config) (*server.Server, string, *pki.Authority, error) {
	dir := filepath.Dir(c.StorePath)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, "", nil, err
	}
	ca, err := pki.LoadOrCreate(filepath.Join(dir, "pki"), c.Name)
	if err != nil {
		return nil, "", nil, err
	}
	c.PKI = ca
	s, err := server.Start(ctx, c)
	if err != nil {
		return nil, "", nil, err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, "", nil, err
	}
	served := make(chan error, 1)
	go func() { served <- s.Serve(context.Background(), l) }()
	w.stops = append(w.stops, func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
		defer cancel()
		if err := s.Stop(ctx); err != nil {
			fmt.Fprintln(os.Stderr, "stop", c.Name, err)
		}
		<-served
	})
	return s, l.Addr().String(), ca, nil
}

// as is a client configuration with a certificate of an authority.
func as(ca *pki.Authority, addr, user string, groups ...string) (*rest.Config, error) {
	cert, key, err := ca.IssueClient(user, groups, time.Hour)
	if err != nil {
		return nil, err
	}
	return &rest.Config{Host: "https://" + addr, TLSClientConfig: rest.TLSClientConfig{CAData: ca.CAPEM(), CertData: cert, KeyData: key}}, nil
}

func quick(c *rest.Config) *rest.Config {
	c = rest.CopyConfig(c)
	c.QPS = -1
	return c
}

// apply makes the host's objects so as the manager does: some of them others have made
// before.
func apply(ctx context.Context, c *rest.Config, objects []baseline.Object) error {
	api, err := client.New(quick(c), client.Options{})
	if err != nil {
		return err
	}
	for _, o := range objects {
		if err := manager.Apply(ctx, api, o); err != nil {
			return err
		}
	}
	return nil
}

// share runs what the syncers of a cell share.
func (w *world) share(read *rest.Config) (err error) {
	if w.shared, err = syncer.NewHost(syncer.HostConfig{Read: read}); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- w.shared.Run(ctx) }()
	w.stops = append(w.stops, func() {
		cancel()
		if err := <-ended; err != nil {
			fmt.Fprintln(os.Stderr, "host of syncers:", err)
		}
	})
	return nil
}

// syncer is the one that runs.
func (w *world) syncer() *syncer.Syncer { return w.running.Load() }

// runSyncer runs the syncer, and lets tests replace it.
func (w *world) runSyncer(c syncer.Config, kubelet *late) error {
	var stop func()
	begin := func() error {
		s, err := syncer.New(c)
		if err != nil {
			return err
		}
		w.running.Store(s)
		handler := s.Kubelet()
		kubelet.handler.Store(&handler)
		ctx, cancel := context.WithCancel(context.Background())
		ended := make(chan error, 1)
		go func() { ended <- s.Run(ctx) }()
		stop = func() {
			cancel()
			if err := <-ended; err != nil {
				fmt.Fprintln(os.Stderr, "syncer:", err)
			}
		}
		return nil
	}
	w.restart = func() {
		stop()
		if err := begin(); err != nil {
			panic(err)
		}
	}
	w.stops = append(w.stops, func() { stop() })
	return begin()
}

// late is a handler that is put in place after its server was started.
type late struct{ handler atomic.Pointer[http.Handler] }

func (l *late) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	if h := l.handler.Load(); h != nil {
		(*h).ServeHTTP(rw, r)
		return
	}
	http.Error(rw, "not yet", http.StatusServiceUnavailable)
}

// shiftedClock is the real clock, put forward by a test.
type shiftedClock struct {
	clock.RealClock
	mu    sync.Mutex
	shift time.Duration
}

func (c *shiftedClock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return time.Now().Add(c.shift)
}

func (c *shiftedClock) forward(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.shift += d
}

// namespace makes a namespace of the tenant, ready for pods, that is removed after
// the test, host pods first.
func namespace(t *testing.T) string {
	t.Helper()
	ns, err := w.tenant.CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "test-"}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	wait(t, "default service account", func() (bool, any) {
		_, err := w.tenant.CoreV1().ServiceAccounts(ns.Name).Get(t.Context(), "default", metav1.GetOptions{})
		return err == nil, err
	})
	return ns.Name
}

// wait waits until is says yes; otherwise it fails with what is said last.
func wait(t *testing.T, what string, is func() (bool, any)) {
	t.Helper()
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	deadline := time.After(patience)
	for {
		ok, last := is()
		if ok {
			return
		}
		select {
		case <-ticker.C:
		case <-deadline:
			t.Fatalf("%s did not come: %+v", what, last)
		case <-t.Context().Done():
			t.Fatal(t.Context().Err())
		}
	}
}
