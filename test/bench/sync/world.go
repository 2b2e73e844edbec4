package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"sublet.dev/isolation/baseline"
	"sublet.dev/isolation/tenant"
	"sublet.dev/syncer"
	"sublet.dev/tenant-apiserver/pki"
	"sublet.dev/tenant-apiserver/server"
)

// world is everything that runs.
type world struct {
	options
	dir      string
	requests requests
	server   *server.Server
	host     kubernetes.Interface
	config   *rest.Config // of the host
	shared   *syncer.Host
	sharing  context.CancelFunc // ends shared
	kubelets *kubelets
	clusters []*cluster
	group    sync.WaitGroup // shared and what stops with it
}

// cluster is a tenant with its control plane and its syncer.
type cluster struct {
	tenant tenant.Tenant
	server *server.Server
	api    kubernetes.Interface
	syncer *syncer.Syncer // while it runs
	end    func()         // stops the syncer and waits for that
}

// namespace is where the tenants' pods are.
const namespace = "default"

func (w *world) start(ctx context.Context) error {
	var err error
	if w.server, err = w.serve(ctx, "host", server.Config{
		ServiceCIDR: netip.MustParsePrefix("10.96.0.0/12"), Host: &server.HostConfig{PodCIDR: netip.MustParsePrefix("10.244.0.0/16")},
	}); err != nil {
		return err
	}
	w.config = unlimited(w.server.Loopback())
	if w.host, err = kubernetes.NewForConfig(w.config); err != nil {
		return err
	}
	if _, err := w.host.NodeV1().RuntimeClasses().Create(ctx, baseline.RuntimeClass(tenant.GVisor), metav1.CreateOptions{}); err != nil {
		return err
	}
	if w.kubelets, err = startKubelets(ctx, w.host, w.nodes); err != nil {
		return err
	}
	if w.shared, err = syncer.NewHost(syncer.HostConfig{Read: w.config}); err != nil {
		return err
	}
	sharing, cancel := context.WithCancel(context.WithoutCancel(ctx))
	w.sharing = cancel
	w.group.Go(func() { _ = w.shared.Run(sharing) }) // it ends with its context, without an error
	for i := range w.tenants {
		if err := w.addCluster(ctx, i); err != nil {
			return fmt.Errorf("tenant %d: %w", i, err)
		}
	}
	return nil
}

func (w *world) serve(ctx context.Context, name string, c server.Config) (*server.Server, error) {
	dir := filepath.Join(w.dir, name)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	authority, err := pki.LoadOrCreate(filepath.Join(dir, "pki"), name)
	if err != nil {
		return nil, err
	}
	c.Name, c.PKI, c.StorePath, c.GoldenDir = name, authority, filepath.Join(dir, "store.db"), filepath.Join(w.dir, "golden")
	c.Logger = slog.New(slog.DiscardHandler)
	return server.Start(ctx, c)
}

func unlimited(c *rest.Config) *rest.Config {
	c = rest.CopyConfig(c)
	c.QPS = -1
	return c
}

func (w *world) addCluster(ctx context.Context, i int) error {
	id := tenant.ID(fmt.Sprintf("7c0e8f0a-3f55-4a0e-9d0c-%012d", i))
	name := fmt.Sprintf("t%d", i)
	c := &cluster{tenant: tenant.Tenant{
		ID: id, Name: name, Sandbox: tenant.GVisor, HostNamespace: tenant.HostNamespace(name, id),
		ServiceCIDR: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(96 + i/64), byte(4 * (i % 64)), 0}), 22),
	}}
	var err error
	if c.server, err = w.serve(ctx, name, server.Config{ServiceCIDR: c.tenant.ServiceCIDR, Advertise: netip.MustParseAddrPort("203.0.113.7:7001")}); err != nil {
		return err
	}
	w.clusters = append(w.clusters, c)
	if c.api, err = kubernetes.NewForConfig(unlimited(c.server.Loopback())); err != nil {
		return err
	}
	if _, err := w.host.CoreV1().Namespaces().Create(ctx, baseline.Namespace(c.tenant), metav1.CreateOptions{}); err != nil {
		return err
	}
	account := baseline.ServiceAccount(c.tenant)
	if _, err := w.host.CoreV1().ServiceAccounts(c.tenant.HostNamespace).Create(ctx, account, metav1.CreateOptions{}); err != nil && !apierrors.IsAlreadyExists(err) {
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

// runSyncer starts the tenant's syncer.
func (w *world) runSyncer(ctx context.Context, c *cluster) error {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	objects, err := c.server.NewInformers(ctx)
	if err != nil {
		cancel()
		return err
	}
	own, write := c.server.Loopback(), rest.CopyConfig(w.config)
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
	go func() { ended <- s.Run(ctx) }()
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
	}
	w.group.Wait()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	err := w.eachCluster(func(_ int, c *cluster) error { return c.server.Stop(ctx) })
	if w.kubelets != nil {
		w.kubelets.stop()
	}
	if w.server != nil {
		err = errors.Join(err, w.server.Stop(ctx))
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
	ticker := time.NewTicker(5 * time.Millisecond)
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
