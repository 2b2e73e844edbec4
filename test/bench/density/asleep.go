package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	metricsapi "sigs.k8s.io/metrics-server/pkg/api"
	metricsstorage "sigs.k8s.io/metrics-server/pkg/storage"

	"sublet.dev/isolation/tenant"
	"sublet.dev/tenant-apiserver/cell"
	"sublet.dev/tenant-apiserver/dialer"
	"sublet.dev/tenant-apiserver/pki"
	"sublet.dev/tenant-apiserver/plan"
)

const (
	// wakes is how often tenants are woken.
	wakes = 60
	// patience is how long a tenant may take to fall asleep when asked to.
	patience = time.Minute
)

// cellMain is the child that measures a cell whose tenants sleep: what one more of them
// costs that has run there, and how soon it answers. Their companions have nothing to do;
// a syncer's start is not in the times.
func cellMain(ctx context.Context, o options) error {
	asCell()
	return inCell(ctx, o.dir, func(ctx context.Context, c *cell.Cell) error {
		for i := range o.sleepers {
			if err := sleepOnce(ctx, c, o.dir, tenantOf(i)); err != nil {
				return err
			}
			if i+1 == ranBefore {
				if err := pause(ctx, o.window/2); err != nil {
					return err
				}
				if err := resting("ran", ranBefore); err != nil {
					return err
				}
			}
		}
		if err := pause(ctx, o.window/2); err != nil {
			return err
		}
		if err := resting("ran", o.sleepers); err != nil {
			return err
		}
		return wake(ctx, c, o.dir, o.sleepers)
	})
}

// ranBefore is how many tenants of a cell run and sleep before memory is looked at the
// first time: the heap is as large by then as it has to be for one that runs.
const ranBefore = 4

// adoptMain is the child that measures what tenants cost in the process that takes the
// place of one in which all sleep: see cell.Config.Renew. It has what cellMain left.
func adoptMain(ctx context.Context, o options) error {
	asCell()
	return inCell(ctx, o.dir, func(ctx context.Context, c *cell.Cell) error {
		if err := pause(ctx, o.window/2); err != nil { // it warms up
			return err
		}
		if err := resting("adopted", 0); err != nil {
			return err
		}
		var all []cell.Tenant
		for i := range o.sleepers {
			all = append(all, tenantOf(i))
		}
		if err := c.Resume(all); err != nil {
			return err
		}
		for _, t := range all {
			if err := settled(ctx, c, t, cell.Asleep); err != nil {
				return err
			}
		}
		return resting("adopted", o.sleepers)
	})
}

// inCell runs do with a cell on the directory.
func inCell(ctx context.Context, dir string, do func(context.Context, *cell.Cell) error) (err error) {
	c, err := cell.New(cell.Config{
		Name: "bench", Dir: func(id tenant.ID) string { return filepath.Join(dir, string(id)) }, GoldenDir: filepath.Join(dir, "golden"),
		Socket: func(id tenant.ID) string { return socket(dir, id) },
		Companion: func(tenant.Tenant, *rest.Config, informers.SharedInformerFactory) (cell.Companion, error) {
			return idle{}, nil
		},
		ValidatePod: func(tenant.Tenant, *corev1.Pod, plan.Terms) error { return nil },
		Logger:      slog.New(slog.DiscardHandler),
	})
	if err != nil {
		return err
	}
	running, stop := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- c.Run(running) }()
	defer func() {
		stop()
		err = errors.Join(err, <-done)
	}()
	return do(ctx, c)
}

func socket(dir string, id tenant.ID) string { return filepath.Join(dir, string(id)+".sock") }

func tenantOf(i int) cell.Tenant {
	name := fmt.Sprintf("s%d", i)
	return cell.Tenant{
		Tenant: tenant.Tenant{
			ID: tenant.ID("uid-" + name), Name: name, HostNamespace: "sublet-" + name, Sandbox: tenant.GVisor,
			ServiceCIDR: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 96, byte(4 * i), 0}), 22),
		},
		ServerName: name + ".bench", InCluster: netip.MustParseAddrPort("192.0.2.1:20001"),
		Terms: plan.Terms{IdleAfter: time.Hour}, // nobody waits that long: they are told to sleep
	}
}

// sleepOnce has a tenant run, answer, and fall asleep.
func sleepOnce(ctx context.Context, c *cell.Cell, dir string, t cell.Tenant) error {
	if err := settled(ctx, c, t, cell.Ready); err != nil {
		return err
	}
	if err := visit(ctx, dir, t); err != nil {
		return err
	}
	return c.Sleep(ctx, t.ID, patience)
}

// settled has the cell host the tenant, which then has to be in a phase.
func settled(ctx context.Context, c *cell.Cell, t cell.Tenant, want cell.Phase) error {
	s, err := c.Put(ctx, t)
	if err == nil && s.Phase != want {
		err = fmt.Errorf("tenant %s is %s: %s", t.Name, s.Phase, s.Message)
	}
	return err
}

// wake wakes tenants by connecting to them, in turn, and puts them to sleep again.
func wake(ctx context.Context, c *cell.Cell, dir string, tenants int) error {
	var times []time.Duration
	for n := range wakes {
		t := tenantOf(n % tenants)
		start := time.Now()
		if err := visit(ctx, dir, t); err != nil {
			return err
		}
		times = append(times, time.Since(start))
		if err := c.Sleep(ctx, t.ID, patience); err != nil {
			return err
		}
	}
	percentiles("wake/first-answer", times)
	return nil
}

// visit connects to the tenant's socket, as the front door does, for one answer.
func visit(ctx context.Context, dir string, t cell.Tenant) error {
	authority, err := pki.LoadOrCreate(cell.PKIDir(filepath.Join(dir, string(t.ID))), t.Name)
	if err != nil {
		return err
	}
	kubeconfig, err := authority.Kubeconfig(pki.KubeconfigOptions{
		Server: "https://" + t.ServerName, User: "admin", Groups: []string{"system:masters"}, TTL: time.Hour,
	})
	if err != nil {
		return err
	}
	config, err := clientcmd.RESTConfigFromKubeConfig(kubeconfig)
	if err != nil {
		return err
	}
	config.Dial = func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", socket(dir, t.ID))
	}
	client, leave, err := clientFor(config)
	if err != nil {
		return err
	}
	defer leave()
	return answer(ctx, client)
}

// resting reports what this process uses with n tenants that sleep.
func resting(kind string, n int) error {
	for range 2 { // what is kept in pools goes with the second collection
		debug.FreeOSMemory()
	}
	u, err := usageOf(os.Getpid())
	if err != nil {
		return err
	}
	var memory runtime.MemStats
	runtime.ReadMemStats(&memory)
	figure(fmt.Sprintf("total/%s/anon/%d", kind, n), u.Anon, "MiB")
	figure(fmt.Sprintf("total/%s/heap/%d", kind, n), float64(memory.HeapAlloc)/(1<<20), "MiB")
	figure(fmt.Sprintf("total/%s/spans/%d", kind, n), float64(memory.HeapInuse)/(1<<20), "MiB")
	figure(fmt.Sprintf("total/%s/stacks/%d", kind, n), float64(memory.StackInuse)/(1<<20), "MiB")
	return nil
}

// idle is a companion with nothing to do.
type idle struct{}

func (idle) Run(ctx context.Context) error { <-ctx.Done(); return nil }
func (idle) Kubelet() http.Handler         { return http.NotFoundHandler() }
func (idle) Rest() (cell.Rest, bool)       { return cell.Rest{}, true }
func (idle) Metrics(context.Context) metricsapi.MetricsGetter {
	return metricsstorage.NewStorage(0) // has none
}

func (idle) At(context.Context, netip.Addr) (dialer.Place, error) { return dialer.Place{}, nil }
