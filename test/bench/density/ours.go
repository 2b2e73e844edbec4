package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"runtime/pprof"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	utilnet "k8s.io/apimachinery/pkg/util/net"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/klog/v2"

	"sublet.dev/tenant-apiserver/pki"
	"sublet.dev/tenant-apiserver/server"
)

// ours are control planes in this process.
type ours struct {
	dir            string
	all            []*plane
	answers, ready []time.Duration // from nothing, but for the first
}

// plane is a control plane that clients reach over TLS.
type plane struct {
	config server.Config
	server *server.Server
	served chan error
	addr   string
}

// asCell has this process run as a cell does to its end, and say nothing.
func asCell() {
	_ = server.AdaptGC()
	quiet := slog.New(slog.DiscardHandler)
	slog.SetDefault(quiet)
	klog.SetSlogLogger(quiet)
}

// oursMain is the child that measures ours.
func oursMain(ctx context.Context, o options) (err error) {
	asCell()
	w := &ours{dir: o.dir}
	defer func() { err = errors.Join(err, w.stop()) }()
	if o.starts > 0 {
		return w.startAll(ctx, o)
	}
	if o.neighbours {
		for range o.sizes[len(o.sizes)-1] {
			if err := w.add(ctx); err != nil {
				return err
			}
		}
		return w.neighbours(ctx, o.beside)
	}
	for i, n := range o.sizes {
		before, err := cpu(os.Getpid())
		if err != nil {
			return err
		}
		for len(w.all) < n {
			if err := w.add(ctx); err != nil {
				return err
			}
		}
		if i > 0 {
			after, err := cpu(os.Getpid())
			if err != nil {
				return err
			}
			figure(fmt.Sprintf("create/cpu/%d", n), milliseconds(after-before)/float64(n-o.sizes[i-1]), "ms")
		}
		profile := ""
		if i == len(o.sizes)-1 {
			profile = o.idle
		}
		if err := measure(ctx, n, o, profile); err != nil {
			return err
		}
	}
	percentiles("create/first-answer", w.answers)
	percentiles("create/ready", w.ready)
	if o.heap != "" {
		if err := writeHeap(o.heap); err != nil {
			return err
		}
	}
	if err := profiled(o.cpu, func() error { return w.restart(ctx) }); err != nil {
		return err
	}
	return w.neighbours(ctx, o.beside)
}

// profiled runs do, and writes a profile of the processor time of that to a file if
// there is to be one.
func profiled(path string, do func() error) error {
	if path == "" {
		return do()
	}
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	if err := pprof.StartCPUProfile(f); err != nil {
		return errors.Join(err, f.Close())
	}
	err = do()
	pprof.StopCPUProfile()
	return errors.Join(err, f.Close())
}

// add makes a control plane from nothing, and waits for its first answer and until it
// is ready.
func (w *ours) add(ctx context.Context) error {
	i := len(w.all) + 1
	start := time.Now()
	dir := filepath.Join(w.dir, fmt.Sprintf("t%d", i))
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	authority, err := pki.LoadOrCreate(filepath.Join(dir, "pki"), fmt.Sprintf("t%d", i))
	if err != nil {
		return err
	}
	p := &plane{config: server.Config{
		Name: fmt.Sprintf("t%d", i), ID: fmt.Sprintf("t%d", i), PKI: authority,
		StorePath: filepath.Join(dir, "store.db"), GoldenDir: filepath.Join(w.dir, "golden"), KeyFile: filepath.Join(dir, "keys"),
		ServiceCIDR: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(96 + i/64), byte(4 * (i % 64)), 0}), 22),
		ServingIPs:  []netip.Addr{netip.MustParseAddr("127.0.0.1")},
	}}
	if err := p.start(ctx); err != nil {
		return err
	}
	w.all = append(w.all, p)
	c, leave, err := p.client()
	if err != nil {
		return err
	}
	defer leave()
	if err := answer(ctx, c); err != nil {
		return err
	}
	answered := time.Since(start)
	if err := ready(ctx, c); err != nil {
		return fmt.Errorf("control plane %d: %w", i, err)
	}
	if i > 1 { // the first one makes what all share
		w.answers, w.ready = append(w.answers, answered), append(w.ready, time.Since(start))
	}
	return nil
}

func (p *plane) start(ctx context.Context) (err error) {
	if p.server, err = server.Start(ctx, p.config); err != nil {
		return err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	p.addr, p.served = l.Addr().String(), make(chan error, 1)
	go func() { p.served <- p.server.Serve(ctx, l) }()
	return nil
}

func (p *plane) stop(ctx context.Context) error {
	err := p.server.Stop(ctx)
	return errors.Join(err, <-p.served)
}

// kubeconfig is an administrator's.
func (p *plane) kubeconfig() ([]byte, error) {
	return p.config.PKI.Kubeconfig(pki.KubeconfigOptions{
		Server: "https://" + p.addr, User: "admin", Groups: []string{"system:masters"}, TTL: time.Hour,
	})
}

// client is an administrator's, with a certificate and a connection of its own, which
// leave ends.
func (p *plane) client() (c kubernetes.Interface, leave func(), err error) {
	kubeconfig, err := p.kubeconfig()
	if err != nil {
		return nil, nil, err
	}
	config, err := clientcmd.RESTConfigFromKubeConfig(kubeconfig)
	if err != nil {
		return nil, nil, err
	}
	return clientFor(config)
}

// clientFor makes a client with a connection of its own, which leave ends.
func clientFor(config *rest.Config) (c kubernetes.Interface, leave func(), err error) {
	config.QPS, config.Burst = -1, -1
	if config.Dial == nil { // client-go shares the connections of equal configurations
		config.Dial = (&net.Dialer{}).DialContext
	}
	h, err := rest.HTTPClientFor(config)
	if err != nil {
		return nil, nil, err
	}
	c, err = kubernetes.NewForConfigAndClient(config, h)
	return c, func() { utilnet.CloseIdleConnectionsFor(h.Transport) }, err
}

// answer asks for what every cluster has.
func answer(ctx context.Context, c kubernetes.Interface) error {
	_, err := c.CoreV1().Namespaces().Get(ctx, metav1.NamespaceDefault, metav1.GetOptions{})
	return err
}

// ready waits until the API server says that it is ready, and its controllers have made
// what a pod needs: the service account of a namespace.
func ready(ctx context.Context, c kubernetes.Interface) error {
	var last error
	err := wait.PollUntilContextTimeout(ctx, 5*time.Millisecond, time.Minute, true, func(ctx context.Context) (bool, error) {
		_, last = c.CoreV1().ServiceAccounts(metav1.NamespaceDefault).Get(ctx, "default", metav1.GetOptions{})
		if last == nil {
			last = c.Discovery().RESTClient().Get().AbsPath("/readyz").Do(ctx).Error()
		}
		return last == nil, nil
	})
	if err != nil {
		return fmt.Errorf("not ready: %w (%w)", err, last)
	}
	return nil
}

// measure reports what this process uses with n idle control planes in it. profile is
// where a profile of the processor time of that goes, if it is to be made.
func measure(ctx context.Context, n int, o options, profile string) error {
	if err := pause(ctx, o.window); err != nil { // what starting up has left to do
		return err
	}
	before, err := usageOf(os.Getpid())
	if err != nil {
		return err
	}
	if err := profiled(profile, func() error { return pause(ctx, o.period) }); err != nil {
		return err
	}
	after, err := usageOf(os.Getpid())
	if err != nil {
		return err
	}
	debug.FreeOSMemory()
	collected, err := usageOf(os.Getpid())
	if err != nil {
		return err
	}
	var memory runtime.MemStats
	runtime.ReadMemStats(&memory)
	for kind, v := range map[string]float64{
		"natural": after.Natural, "pss": after.PSS, "anon": collected.Anon,
		"heap": float64(memory.HeapAlloc) / (1 << 20), "stacks": float64(memory.StackInuse) / (1 << 20),
		"goroutines": float64(runtime.NumGoroutine()),
		"idle-cpu":   milliseconds(after.CPU-before.CPU) / o.period.Seconds(),
	} {
		figure(fmt.Sprintf("total/%s/%d", kind, n), v, units[kind])
	}
	return nil
}

// restart stops and starts control planes that exist.
func (w *ours) restart(ctx context.Context) error {
	var times []time.Duration
	for n := range 20 {
		p := w.all[n%len(w.all)]
		if err := p.stop(ctx); err != nil {
			return err
		}
		start := time.Now()
		if err := p.start(ctx); err != nil {
			return err
		}
		c, leave, err := p.client()
		if err != nil {
			return err
		}
		if err := answer(ctx, c); err != nil {
			return err
		}
		times = append(times, time.Since(start))
		leave()
	}
	percentiles("restart/first-answer", times)
	return nil
}

func (w *ours) stop() error {
	var errs []error
	for _, p := range w.all {
		errs = append(errs, p.stop(context.Background()))
	}
	return errors.Join(errs...)
}

// writeHeap writes a heap profile for `go tool pprof`.
func writeHeap(path string) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	runtime.GC()
	return errors.Join(pprof.WriteHeapProfile(f), f.Close())
}
