package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"time"
	_ "time/tzdata" // for the time zones of CronJobs

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	metricsapi "sigs.k8s.io/metrics-server/pkg/api"

	"sublet.dev/cmd/sublet/internal/supervise"
	"sublet.dev/isolation/policy"
	"sublet.dev/isolation/tenant"
	"sublet.dev/syncer"
	"sublet.dev/syncer/translate"
	"sublet.dev/tenant-apiserver/cell"
	"sublet.dev/tenant-apiserver/dialer"
	"sublet.dev/tenant-apiserver/plan"
	"sublet.dev/tenant-apiserver/server"
)

// cellDrain is what requests to a cell get to end at shutdown.
const cellDrain = 2 * time.Second

// cellFlags are what a cell is told by the server that starts it.
type cellFlags struct {
	name, kmsSocket, auditWebhook string
	renew                         time.Duration
}

func newCell(a *app) *cobra.Command {
	var f cellFlags
	var logs logFlags
	cmd := &cobra.Command{
		Use: "cell", Short: "Host tenants' control planes (started by the server)", Hidden: true,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := needRoot(cmd); err != nil {
				return err
			}
			log, err := logs.logger(a.err)
			if err != nil {
				return err
			}
			a.log = log.With("process", f.name)
			return a.runProcess(cmd.Context(), f.name, func(ctx context.Context) error { return a.cell(ctx, f) })
		},
	}
	cmd.Flags().StringVar(&f.name, "name", "cell-0", "the cell's name")
	addRenew(cmd, "renew", &f.renew)
	addKMS(cmd, &f.kmsSocket)
	addAuditWebhook(cmd, &f.auditWebhook)
	logs.add(cmd)
	return cmd
}

// runProcess claims the process's slot for as long as work runs. The data
// directory must exist.
func (a *app) runProcess(ctx context.Context, name string, work func(context.Context) error) error {
	build, err := supervise.Build()
	if err != nil {
		return err
	}
	claim, err := supervise.Take(a.dir.slot(name), build)
	var held *supervise.HeldError
	if errors.As(err, &held) {
		return &exitError{exitConflict, fmt.Errorf("another sublet %s uses this data directory: %w", name, held)}
	}
	if err != nil {
		return err
	}
	err = work(ctx)
	return errors.Join(err, claim.Release())
}

// cell hosts tenants until ctx ends, or until the cell has ended so that another takes
// its place, which the server starts.
func (a *app) cell(ctx context.Context, f cellFlags) error {
	if os.Getenv("GOGC") == "" { // the environment's wins
		defer server.AdaptGC()()
	}
	host, err := clientcmd.BuildConfigFromFlags("", a.dir.cellConfig(f.name))
	if err != nil {
		return fmt.Errorf("read the cell's kubeconfig, which `sublet server` writes: %w", err)
	}
	kms, err := connectKMS(ctx, f.kmsSocket)
	if err != nil {
		return err
	}
	shared, err := syncer.NewHost(syncer.HostConfig{Read: host})
	if err != nil {
		return err
	}
	running := newSyncers()
	c, err := cell.New(cell.Config{
		Name: f.name, Dir: a.dir.tenant, GoldenDir: a.dir.golden(), Socket: a.dir.tenantSocket,
		Companion: func(t tenant.Tenant, api *rest.Config, objects informers.SharedInformerFactory) (cell.Companion, error) {
			return newSyncer(running, shared, host, t, api, objects, a.log)
		},
		ValidatePod: validatePod,
		KeyFile:     a.dir.storeKeys,
		KMS:         kms,
		Logger:      a.log,

		AuditWebhook: f.auditWebhook,
		Renew:        f.renew,
	})
	if err != nil {
		return err
	}
	l, err := listenUnix(a.dir.cellSocket(f.name))
	if err != nil {
		return err
	}
	control := &http.Server{Handler: withProfiles(running.with(c.Handler())), ErrorLog: slog.NewLogLogger(a.log.Handler(), slog.LevelWarn), ReadHeaderTimeout: time.Minute}
	served := make(chan error, 1)
	go func() { served <- control.Serve(l) }()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	failed := make(chan error, 1)
	go func() {
		err := <-served
		if !errors.Is(err, http.ErrServerClosed) {
			cancel() // nobody could speak to this cell any more
		}
		failed <- err
	}()
	a.log.Info("cell is ready", "socket", a.dir.cellSocket(f.name))
	watching, unwatch := context.WithCancel(context.WithoutCancel(ctx)) // it outlasts the tenants
	watched := make(chan error, 1)
	go func() { watched <- shared.Run(watching) }()
	err = c.Run(ctx)
	if errors.Is(err, cell.ErrRenewed) {
		a.log.Info("the cell ends, and another takes its place", "because", err)
		err = nil
	}
	unwatch()
	err = errors.Join(err, <-watched)
	drain, stop := context.WithTimeout(context.WithoutCancel(ctx), cellDrain)
	defer stop()
	_ = control.Shutdown(drain) // long polls may outlast it; they end with the process
	if serveErr := <-failed; !errors.Is(serveErr, http.ErrServerClosed) {
		err = errors.Join(err, fmt.Errorf("serve the cell's API: %w", serveErr))
	}
	return err
}

// newSyncer makes a tenant's syncer: it reads the host as the cell, and writes as
// the tenant.
func newSyncer(running *syncers, shared *syncer.Host, host *rest.Config, t tenant.Tenant, api *rest.Config, objects informers.SharedInformerFactory, log *slog.Logger) (companion, error) {
	write := rest.CopyConfig(host)
	write.Impersonate = rest.ImpersonationConfig{UserName: tenant.WriteUser(t.HostNamespace)}
	s, err := syncer.New(syncer.Config{Tenant: t, TenantAPI: api, TenantObjects: objects, Host: shared, HostWrite: write, Logger: log})
	return companion{s, t.ID, t.Sandbox, running}, err
}

// companion is a syncer as a cell knows it.
type companion struct {
	*syncer.Syncer
	id      tenant.ID
	sandbox tenant.Sandbox
	running *syncers
}

// Run implements cell.Companion.
func (c companion) Run(ctx context.Context) error {
	c.running.put(c.id, c.Syncer)
	defer c.running.remove(c.id, c.Syncer)
	return c.Syncer.Run(ctx)
}

// Rest implements cell.Companion.
func (c companion) Rest() (cell.Rest, bool) {
	due, seen, ok := c.Syncer.Rest()
	return cell.Rest{Due: due, Seen: cell.Seen{
		Pods: cell.Mark(seen.Pods), Services: cell.Mark(seen.Services), EndpointSlices: cell.Mark(seen.EndpointSlices),
		ConfigMaps: cell.Mark(seen.ConfigMaps), Secrets: cell.Mark(seen.Secrets), NetworkPolicies: cell.Mark(seen.NetworkPolicies),
		Claims: cell.Mark(seen.Claims), Ingresses: cell.Mark(seen.Ingresses),
	}}, ok
}

// Metrics implements cell.Companion.
func (c companion) Metrics(ctx context.Context) metricsapi.MetricsGetter {
	return c.Syncer.Metrics(ctx)
}

// SetTerms implements cell.Planned.
func (c companion) SetTerms(t plan.Terms) {
	c.SetStorageClasses(t.StorageClasses)
	c.SetLoadBalancers(translate.LoadBalancers(t.LoadBalancers))
	c.SetPodTerms(translate.PodTerms{Tolerations: t.Tolerations, Room: t.Room, Offer: t.Offer(c.sandbox)})
	c.SetCustomResources(t.CustomResources)
	c.SetIngress(translate.Ingresses(t.Ingress))
}

// At implements cell.Companion.
func (c companion) At(ctx context.Context, addr netip.Addr) (dialer.Place, error) {
	hostPod, ofHost, err := c.Syncer.At(ctx, addr)
	return dialer.Place{Pod: hostPod, Host: ofHost}, err
}

// validatePod is the admission of a tenant's pods beside upstream's.
func validatePod(t tenant.Tenant, tenantPod *corev1.Pod, terms plan.Terms) error {
	refusals := terms.Offer(t.Sandbox).CheckPod(tenantPod, policy.LevelFor(t.Sandbox))
	if len(refusals) == 0 {
		refusals = translate.CheckFields(tenantPod)
	}
	return policy.Err(refusals)
}

// listenUnix makes a unix socket that only root can open, in place of one that a
// killed process left.
func listenUnix(path string) (net.Listener, error) {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("remove the old socket: %w", err)
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	return l, nil
}
