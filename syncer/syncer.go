package syncer

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	metricsclient "k8s.io/metrics/pkg/client/clientset/versioned/typed/metrics/v1beta1"
	"k8s.io/utils/clock"

	"sublet.dev/isolation/tenant"
	"sublet.dev/syncer/engine"
	"sublet.dev/syncer/translate"
)

// Config is what a Syncer needs. All but Clock, TenantObjects and Host is required.
type Config struct {
	Tenant tenant.Tenant
	// TenantAPI reaches the tenant's API with all rights.
	TenantAPI *rest.Config
	// TenantObjects are informers of the tenant's objects that nobody has started, if
	// there is a cheaper way to them than TenantAPI; nil: there is none. The syncer
	// starts them and shuts them down.
	TenantObjects informers.SharedInformerFactory
	// Host is what the syncers of one process share; somebody else runs it. Nil: the
	// syncer has one of its own, of HostRead.
	Host *Host
	// HostRead reads the host as HostConfig.Read does. It is needed without Host.
	HostRead *rest.Config
	// HostWrite writes the tenant's host namespace (all of the above but events, and
	// pods/ephemeralcontainers, pods/resize, pods/log, pods/exec, pods/attach,
	// pods/portforward). It is the tenant's own identity on the host.
	HostWrite *rest.Config
	Logger    *slog.Logger
	// Clock tells when tokens are to be replaced; nil is the real one.
	Clock clock.WithTicker
}

func (c *Config) validate() error {
	switch {
	case c.Tenant.ID == "" || c.Tenant.HostNamespace == "" || !c.Tenant.ServiceCIDR.IsValid():
		return errors.New("syncer: Config.Tenant is incomplete")
	case c.TenantAPI == nil:
		return errors.New("syncer: Config.TenantAPI is missing")
	case c.HostRead == nil && c.Host == nil:
		return errors.New("syncer: Config.HostRead and Config.Host are missing")
	case c.HostWrite == nil:
		return errors.New("syncer: Config.HostWrite is missing")
	case c.Logger == nil:
		return errors.New("syncer: Config.Logger is missing")
	}
	return c.Tenant.Sandbox.Validate()
}

// Syncer keeps one tenant and its host namespace in step. Make it with New.
type Syncer struct {
	config      Config
	logger      *slog.Logger
	tenantAPI   kubernetes.Interface
	hostRead    kubernetes.Interface
	ownHost     bool // nobody else runs config.Host
	hostWrite   kubernetes.Interface
	hostMetrics metricsclient.PodMetricsesGetter
	streams     *streams
	caches      *caches
	t           translate.Translation
	engine      *engine.Engine
	held        *held
	seen        marks
}

// New returns a Syncer that does nothing yet. The configurations are copied.
func New(c Config) (*Syncer, error) {
	if err := c.validate(); err != nil {
		return nil, err
	}
	if c.Clock == nil {
		c.Clock = clock.RealClock{}
	}
	ownHost, err := c.Host == nil, error(nil)
	if ownHost {
		if c.Host, err = NewHost(HostConfig{Read: c.HostRead}); err != nil {
			return nil, err
		}
	}
	s := &Syncer{config: c, logger: c.Logger.With("tenant", c.Tenant.Name), hostRead: c.Host.client, ownHost: ownHost}
	if s.tenantAPI, err = client(c.TenantAPI); err != nil {
		return nil, fmt.Errorf("syncer: client of the tenant's API: %w", err)
	}
	write := rest.CopyConfig(c.HostWrite)
	write.Timeout = hostTimeout
	write.Wrap(c.Host.budget.Wrap(c.Tenant.ID))
	if s.hostWrite, err = client(write); err != nil {
		return nil, fmt.Errorf("syncer: writing client of the host: %w", err)
	}
	if s.streams, err = newStreams(c.HostWrite); err != nil {
		return nil, fmt.Errorf("syncer: transport of streams: %w", err)
	}
	if s.hostMetrics, err = metricsclient.NewForConfig(c.HostWrite); err != nil {
		return nil, fmt.Errorf("syncer: client of the host's metrics: %w", err)
	}
	if s.caches, err = newCaches(c, s.tenantAPI); err != nil {
		return nil, fmt.Errorf("syncer: caches: %w", err)
	}
	s.t = translate.Translation{Tenant: c.Tenant, Lookup: s.caches, Data: s.caches}
	s.held = newHeld()
	s.engine = engine.New(engine.Config{Passes: s.kinds(), Clock: c.Clock, Logger: s.logger})
	return s, s.watch()
}

// hostTimeout bounds a write to the host and its wait for its turn: one that hangs
// must not keep its place from others for long.
const hostTimeout = time.Minute

// client returns a typed client without a rate limit of its own: the APIs have
// priority and fairness, and the queue backs off.
func client(c *rest.Config) (kubernetes.Interface, error) {
	c = rest.CopyConfig(c)
	c.QPS = -1
	c.ContentType = "application/vnd.kubernetes.protobuf"
	c.AcceptContentTypes = "application/vnd.kubernetes.protobuf,application/json"
	return kubernetes.NewForConfig(c)
}

// Run syncs until ctx ends, and returns when everything it started has ended. It
// can be called once.
func (s *Syncer) Run(ctx context.Context) error {
	if s.ownHost {
		stopHost := s.runHost(ctx)
		defer stopHost()
	}
	leave, err := s.engine.Follow(s.caches.hostNodes, keysOf(s.ofHostNode))
	if err != nil {
		return fmt.Errorf("nodes of the host: %w", err)
	}
	defer leave()
	stopEvents := s.held.record(ctx, s.tenantAPI)
	defer stopEvents()
	stopCaches := s.caches.start(ctx)
	defer stopCaches()
	return s.engine.Run(ctx)
}

// runHost runs the syncer's own Host until ctx ends; stop waits for it.
func (s *Syncer) runHost(ctx context.Context) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	var group sync.WaitGroup
	group.Go(func() { _ = s.config.Host.Run(ctx) }) // it only ends with ctx, without an error
	return func() { cancel(); group.Wait() }
}
