package syncer

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/utils/clock"

	"sublet.dev/isolation/tenant"
	"sublet.dev/syncer/engine"
	"sublet.dev/syncer/translate"
)

// Config is what a Syncer needs. All but Clock and TenantObjects is required.
type Config struct {
	Tenant tenant.Tenant
	// TenantAPI reaches the tenant's API with all rights.
	TenantAPI *rest.Config
	// TenantObjects are informers of the tenant's objects that nobody has started, if
	// there is a cheaper way to them than TenantAPI; nil: there is none. The syncer
	// starts them and shuts them down.
	TenantObjects informers.SharedInformerFactory
	// HostRead reads the tenant's host namespace (pods, services, endpointslices,
	// configmaps, secrets, networkpolicies, events: get, list, watch) and nodes.
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
	case c.HostRead == nil:
		return errors.New("syncer: Config.HostRead is missing")
	case c.HostWrite == nil:
		return errors.New("syncer: Config.HostWrite is missing")
	case c.Logger == nil:
		return errors.New("syncer: Config.Logger is missing")
	}
	return c.Tenant.Sandbox.Validate()
}

// Syncer keeps one tenant and its host namespace in step. Make it with New.
type Syncer struct {
	config    Config
	logger    *slog.Logger
	tenantAPI kubernetes.Interface
	hostRead  kubernetes.Interface
	hostWrite kubernetes.Interface
	streams   *streams
	caches    *caches
	t         translate.Translation
	engine    *engine.Engine
	held      *held
	seen      marks
}

// New returns a Syncer that does nothing yet. The configurations are copied.
func New(c Config) (*Syncer, error) {
	if err := c.validate(); err != nil {
		return nil, err
	}
	if c.Clock == nil {
		c.Clock = clock.RealClock{}
	}
	s := &Syncer{config: c, logger: c.Logger.With("tenant", c.Tenant.Name)}
	var err error
	if s.tenantAPI, err = client(c.TenantAPI); err != nil {
		return nil, fmt.Errorf("syncer: client of the tenant's API: %w", err)
	}
	if s.hostRead, err = client(c.HostRead); err != nil {
		return nil, fmt.Errorf("syncer: reading client of the host: %w", err)
	}
	if s.hostWrite, err = client(c.HostWrite); err != nil {
		return nil, fmt.Errorf("syncer: writing client of the host: %w", err)
	}
	if s.streams, err = newStreams(c.HostWrite); err != nil {
		return nil, fmt.Errorf("syncer: transport of streams: %w", err)
	}
	if s.caches, err = newCaches(c, s.tenantAPI, s.hostRead); err != nil {
		return nil, fmt.Errorf("syncer: caches: %w", err)
	}
	s.t = translate.Translation{Tenant: c.Tenant, Lookup: s.caches, Data: s.caches}
	s.held = newHeld()
	s.engine = engine.New(engine.Config{Passes: s.kinds(), Clock: c.Clock, Logger: s.logger})
	return s, s.watch()
}

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
	stopEvents := s.held.record(ctx, s.tenantAPI)
	defer stopEvents()
	stopCaches := s.caches.start(ctx)
	defer stopCaches()
	return s.engine.Run(ctx)
}
