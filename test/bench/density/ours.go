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
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/klog/v2"

	"sublet.dev/tenant-apiserver/pki"
	"sublet.dev/tenant-apiserver/server"
)

// cellGC is how a cell of Sublet runs.
const cellGC = 50

// ours are control planes in this process.
type ours struct {
	dir   string
	all   []*plane
	times []time.Duration // from nothing to the first answer, but for the first
}

// plane is a control plane that clients reach over TLS.
type plane struct {
	config server.Config
	server *server.Server
	served chan error
	addr   string
}

// oursMain is the child that measures ours.
func oursMain(ctx context.Context, o options) (err error) {
	debug.SetGCPercent(cellGC)
	quiet := slog.New(slog.DiscardHandler)
	slog.SetDefault(quiet)
	klog.SetSlogLogger(quiet)
	w := &ours{dir: o.dir}
	defer func() { err = errors.Join(err, w.stop()) }()
	for _, n := range o.sizes {
		for len(w.all) < n {
			if err := w.add(ctx); err != nil {
				return err
			}
		}
		if err := w.measure(ctx, n, o.window); err != nil {
			return err
		}
	}
	figure("create/first-answer/p50", milliseconds(quantile(w.times, 0.5)), "ms")
	figure("create/first-answer/p99", milliseconds(quantile(w.times, 0.99)), "ms")
	if o.heap != "" {
		if err := writeHeap(o.heap); err != nil {
			return err
		}
	}
	if err := profiled(o.cpu, func() error { return w.wake(ctx) }); err != nil {
		return err
	}
	return w.neighbours(ctx)
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

// add makes a control plane from nothing and waits for its first answer.
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
	if err := p.answer(ctx); err != nil {
		return err
	}
	if i > 1 { // the first one makes what all share
		w.times = append(w.times, time.Since(start))
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

// client is an administrator's, with a certificate and a connection of its own.
func (p *plane) client() (kubernetes.Interface, error) {
	kubeconfig, err := p.kubeconfig()
	if err != nil {
		return nil, err
	}
	config, err := clientcmd.RESTConfigFromKubeConfig(kubeconfig)
	if err != nil {
		return nil, err
	}
	config.QPS, config.Burst = -1, -1
	return kubernetes.NewForConfig(config)
}

// answer asks for what every cluster has.
func (p *plane) answer(ctx context.Context) error {
	c, err := p.client()
	if err != nil {
		return err
	}
	_, err = c.CoreV1().Namespaces().Get(ctx, metav1.NamespaceDefault, metav1.GetOptions{})
	return err
}

// measure reports what n idle control planes use.
func (w *ours) measure(ctx context.Context, n int, window time.Duration) error {
	if err := pause(ctx, window); err != nil { // what starting up has left to do
		return err
	}
	before, err := usageOf(os.Getpid())
	if err != nil {
		return err
	}
	if err := pause(ctx, window); err != nil {
		return err
	}
	after, err := usageOf(os.Getpid())
	if err != nil {
		return err
	}
	runtime.GC()
	debug.FreeOSMemory()
	collected, err := usageOf(os.Getpid())
	if err != nil {
		return err
	}
	name := fmt.Sprintf("/%d", n)
	figure("total/natural"+name, after.Natural, "MiB")
	figure("total/pss"+name, after.PSS, "MiB")
	figure("total/anon"+name, collected.Anon, "MiB")
	figure("total/goroutines"+name, float64(runtime.NumGoroutine()), "goroutines")
	figure("total/idle-cpu"+name, milliseconds(after.CPU-before.CPU)/window.Seconds(), "mCPU")
	return nil
}

// wake stops and starts control planes that exist, as a sleeping tenant's is.
func (w *ours) wake(ctx context.Context) error {
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
		if err := p.answer(ctx); err != nil {
			return err
		}
		times = append(times, time.Since(start))
	}
	figure("restart/first-answer/p50", milliseconds(quantile(times, 0.5)), "ms")
	figure("restart/first-answer/p99", milliseconds(quantile(times, 0.99)), "ms")
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
