package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"path/filepath"
	"runtime/pprof"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"sublet.dev/api/v1alpha1"
	"sublet.dev/isolation/baseline"
	"sublet.dev/isolation/tenant"
	"sublet.dev/syncer"
	"sublet.dev/tenant-apiserver/manager"
	"sublet.dev/tenant-apiserver/pki"
	"sublet.dev/tenant-apiserver/server"
)

// world is everything that runs.
type world struct {
	options
	dir      string
	requests requests
	hosting  hosting
	stopHost func() error
	tellHost io.Writer            // see profileAsTold
	host     kubernetes.Interface // the provider's
	admin    *rest.Config         // of host
	config   *rest.Config         // the cell's
	shared   *syncer.Host
	sharing  context.CancelFunc // ends shared
	endGC    func()             // ends that garbage is collected as in a cell
	clusters []*cluster
	group    sync.WaitGroup // shared and what stops with it
}

// cluster is a tenant with its control plane and its syncer.
type cluster struct {
	tenant tenant.Tenant
	server *server.Server
	served <-chan error
	api    kubernetes.Interface // the tenant's
	syncer *syncer.Syncer       // while it runs
	end    func()               // stops the syncer and waits for that
}

// namespace is where the tenants' pods are.
const namespace = "default"

func (w *world) start(ctx context.Context) error {
	if err := w.startHost(ctx); err != nil {
		return err
	}
	var err error
	if w.admin, err = hostClient(w.hosting.Admin); err != nil {
		return err
	}
	if w.config, err = hostClient(w.hosting.Cell); err != nil {
		return err
	}
	if w.host, err = kubernetes.NewForConfig(w.admin); err != nil {
		return err
	}
	if err := w.apply(ctx, append(baseline.Host(), baseline.Cell(cellName)...)); err != nil {
		return err
	}
	if w.shared, err = syncer.NewHost(syncer.HostConfig{Read: w.config}); err != nil {
		return err
	}
	sharing, cancel := context.WithCancel(context.WithoutCancel(ctx))
	w.sharing = cancel
	w.endGC = server.AdaptGC()
	w.group.Go(func() {
		pprof.SetGoroutineLabels(labels[partSyncers])
		_ = w.shared.Run(sharing) // it ends with its context, without an error
	})
	for i := range w.tenants {
		if err := w.addCluster(ctx, i); err != nil {
			return fmt.Errorf("tenant %d: %w", i, err)
		}
	}
	return nil
}

// apply puts objects on the host, as the manager does.
func (w *world) apply(ctx context.Context, objects []baseline.Object) error {
	api, err := client.New(w.admin, client.Options{})
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

// serve starts a tenant's control plane, and a client of the tenant's.
func (c *cluster) serve(ctx context.Context, w *world) error {
	dir := filepath.Join(w.dir, c.tenant.Name)
	ca, err := pki.LoadOrCreate(filepath.Join(dir, "pki"), c.tenant.Name)
	if err != nil {
		return err
	}
	if c.server, err = server.Start(ctx, server.Config{
		Name: c.tenant.Name, PKI: ca, StorePath: filepath.Join(dir, "store.db"), GoldenDir: filepath.Join(w.dir, "golden"),
		ServiceCIDR: c.tenant.ServiceCIDR, Advertise: netip.MustParseAddrPort("203.0.113.7:7001"), Logger: slog.New(slog.DiscardHandler),
	}); err != nil {
		return err
	}
	address, served, err := serve(ctx, c.server)
	if err != nil {
		return err
	}
	c.served = served
	kubeconfig, err := ca.Kubeconfig(pki.KubeconfigOptions{Server: "https://" + address, User: "admin", Groups: []string{"system:masters"}})
	if err != nil {
		return err
	}
	config, err := hostClient(kubeconfig)
	if err != nil {
		return err
	}
	c.api, err = kubernetes.NewForConfig(config)
	return err
}

func (w *world) addCluster(ctx context.Context, i int) error {
	id := tenant.ID(fmt.Sprintf("7c0e8f0a-3f55-4a0e-9d0c-%012d", i))
	name := fmt.Sprintf("t%d", i)
	c := &cluster{tenant: tenant.Tenant{
		ID: id, Name: name, Sandbox: tenant.GVisor, HostNamespace: tenant.HostNamespace(name, id),
		ServiceCIDR: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(96 + i/64), byte(4 * (i % 64)), 0}), 22),
	}}
	w.clusters = append(w.clusters, c)
	var err error
	as(partTenants, partClients, func() { err = c.serve(ctx, w) })
	if err != nil {
		return err
	}
	if err := w.apply(ctx, baseline.Tenant(c.tenant, cellName, plan)); err != nil {
		return err
	}
	if err := until(ctx, func() (bool, error) {
		_, err := c.api.CoreV1().ServiceAccounts(namespace).Get(ctx, "default", metav1.GetOptions{})
		return err == nil, ignoreNotFound(err)
	}); err != nil {
		return err
	}
	return w.runSyncer(ctx, c)
}

// plan is that of all tenants: the quotas of the host count, and refuse nothing.
var plan = v1alpha1.PlanSpec{HostResources: corev1.ResourceList{
	corev1.ResourcePods: resource.MustParse("1M"), corev1.ResourceSecrets: resource.MustParse("1M"), corev1.ResourceConfigMaps: resource.MustParse("1M"),
}}

// runSyncer starts the tenant's syncer.
func (w *world) runSyncer(ctx context.Context, c *cluster) error {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	objects, err := c.server.NewInformers(ctx)
	if err != nil {
		cancel()
		return err
	}
	own, write := c.server.Loopback(), rest.CopyConfig(w.config)
	write.Impersonate.UserName = tenant.WriteUser(c.tenant.HostNamespace)
	own.Wrap(w.requests.wrap("tenant"))
	write.Wrap(w.requests.wrap("host"))
	config := syncer.Config{
		Tenant: c.tenant, TenantAPI: own, TenantObjects: objects,
		HostRead: w.config, HostWrite: write, Logger: slog.New(slog.DiscardHandler),
	}
	if !w.alone {
		config.Host = w.shared
	}
	if c.syncer, err = syncer.New(config); err != nil {
		cancel()
		return err
	}
	ended := make(chan error, 1)
	s := c.syncer
	as(partSyncers, partClients, func() { go func() { ended <- s.Run(ctx) }() })
	c.end = func() {
		cancel()
		<-ended // it fails only before it has begun, and then the phases time out
		objects.Shutdown()
		c.syncer, c.end = nil, nil
	}
	return nil
}

// eachCluster does something for all tenants at the same time.
func (w *world) eachCluster(do func(i int, c *cluster) error) error {
	errs := make([]error, len(w.clusters))
	var group sync.WaitGroup
	for i, c := range w.clusters {
		group.Go(func() { errs[i] = do(i, c) })
	}
	group.Wait()
	return errors.Join(errs...)
}

func (w *world) stopSyncers() {
	_ = w.eachCluster(func(_ int, c *cluster) error {
		if c.end != nil {
			c.end()
		}
		return nil
	})
}

// stop ends everything, in the opposite order.
func (w *world) stop() error {
	w.stopSyncers()
	if w.sharing != nil {
		w.sharing()
		w.endGC()
	}
	w.group.Wait()
	err := w.eachCluster(func(_ int, c *cluster) error {
		if c.served == nil {
			return nil
		}
		return errors.Join(stopServer(c.server), <-c.served)
	})
	if w.stopHost != nil {
		err = errors.Join(err, w.stopHost())
	}
	return err
}

func ignoreNotFound(err error) error {
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

// until waits until is says yes, fails, or ctx ends.
func until(ctx context.Context, is func() (bool, error)) error {
	return every(ctx, 5*time.Millisecond, is)
}

// every is until that asks as often as is said: of many tenants at once, asking takes time
// from what is measured.
func every(ctx context.Context, pause time.Duration, is func() (bool, error)) error {
	ticker := time.NewTicker(pause)
	defer ticker.Stop()
	for {
		if ok, err := is(); ok || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-ticker.C:
		}
	}
}

// simple is a pod as tenants write them.
func simple(name string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"app": "web"}},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "app", Image: "app:1"}}},
	}
}
