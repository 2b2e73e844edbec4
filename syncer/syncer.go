package syncer

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	metricsclient "k8s.io/metrics/pkg/client/clientset/versioned/typed/metrics/v1beta1"
	"k8s.io/utils/clock"

	"sublet.dev/isolation/tenant"
	"sublet.dev/syncer/engine"
	"sublet.dev/syncer/patrol"
	"sublet.dev/syncer/translate"
)

// Config is what a Syncer needs. All but Clock, TenantObjects, Host and PatrolEvery is required.
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
	// PatrolEvery is how long the patrol rests between two rounds; 0: a quarter of an
	// hour.
	PatrolEvery time.Duration
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
	hostMarks   metadata.Interface // writes too
	patrol      *patrol.Patrol
	streams     *streams
	caches      *caches
	t           translate.Translation
	engine      *engine.Engine
	held        *held
	crowd       *crowd
	seen        marks
	classes     atomic.Pointer[[]string] // see SetStorageClasses
	customs     *customs

	loadBalancers atomic.Pointer[translate.LoadBalancers] // see SetLoadBalancers
	podTerms      atomic.Pointer[translate.PodTerms]      // see SetPodTerms
	ingress       atomic.Pointer[translate.Ingresses]     // see SetIngress
	replanned     moment                                  // when the plan was said last
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
	own := rest.CopyConfig(c.TenantAPI)
	own.Wrap(engine.Counted())
	if s.tenantAPI, err = client(own); err != nil {
		return nil, fmt.Errorf("syncer: client of the tenant's API: %w", err)
	}
	write := rest.CopyConfig(c.HostWrite)
	write.Timeout = hostTimeout
	write.Wrap(c.Host.budget.Wrap(c.Tenant.ID))
	if s.hostWrite, err = client(write); err != nil {
		return nil, fmt.Errorf("syncer: writing client of the host: %w", err)
	}
	if s.hostMarks, err = metadata.NewForConfig(unlimited(write)); err != nil {
		return nil, fmt.Errorf("syncer: metadata client of the host: %w", err)
	}
	if s.streams, err = newStreams(c.HostWrite); err != nil {
		return nil, fmt.Errorf("syncer: transport of streams: %w", err)
	}
	if s.hostMetrics, err = metricsclient.NewForConfig(unlimited(c.HostWrite)); err != nil {
		return nil, fmt.Errorf("syncer: client of the host's metrics: %w", err)
	}
	if s.caches, err = newCaches(c, s.tenantAPI); err != nil {
		return nil, fmt.Errorf("syncer: caches: %w", err)
	}
	s.t = translate.Translation{Tenant: c.Tenant, Lookup: s.caches, Data: s.caches, Plan: s.plan}
	s.held, s.crowd = newHeld(), newCrowd()
	s.patrol = patrol.New(patrol.Config{
		Keys: s.everything, Inspect: func(k engine.Key) { s.engine.Inspect(k) },
		Every: c.PatrolEvery, Clock: c.Clock, Logger: s.logger,
	})
	s.engine = engine.New(engine.Config{Passes: s.kinds(), Budget: c.Host.budget, Tenant: c.Tenant.ID, Prompt: []string{kindPodStatus}, Patient: []string{kindPodEvents}, Clock: c.Clock, Logger: s.logger, OnInspected: s.patrol.Inspected, OnError: func(_ engine.Key, err error) {
		if errors.Is(err, engine.ErrForeign) {
			s.patrol.Soon()
		}
	}})
	if s.customs, err = s.newCustoms(own, write); err != nil {
		return nil, err
	}
	s.engine.Put(s.customs)
	return s, errors.Join(s.watch(), s.watchStorage(), s.engine.Watch(s.caches.runtimeClasses, nil, keysOf(s.ofRuntimeClass)),
		s.engine.Watch(s.caches.priorityClasses, nil, keysOf(s.ofPriorityClass)))
}

// hostTimeout bounds a write to the host and its wait for its turn: one that hangs
// must not keep its place from others for long.
const hostTimeout = time.Minute

// client returns a typed client without a rate limit of its own: the APIs have
// priority and fairness, and the queue backs off.
func client(c *rest.Config) (kubernetes.Interface, error) {
	c = unlimited(c)
	c.ContentType = "application/vnd.kubernetes.protobuf"
	c.AcceptContentTypes = "application/vnd.kubernetes.protobuf,application/json"
	return kubernetes.NewForConfig(c)
}

func unlimited(c *rest.Config) *rest.Config {
	c = rest.CopyConfig(c)
	c.QPS = -1
	return c
}

// Run syncs until ctx ends, and returns when everything it started has ended. It
// can be called once.
func (s *Syncer) Run(ctx context.Context) error {
	if s.ownHost {
		stopHost := run(ctx, func(ctx context.Context) { _ = s.config.Host.Run(ctx) }) // it ends with ctx, without an error
		defer stopHost()
	}
	leave, err := s.follow()
	defer leave()
	if err != nil {
		return err
	}
	stopEvents := s.held.record(ctx, s.tenantAPI)
	defer stopEvents()
	stopCaches, err := s.caches.start(ctx)
	if err != nil {
		return err
	}
	defer stopCaches()
	stopCustoms := run(ctx, s.customs.run)
	defer stopCustoms()
	stopPatrol := run(ctx, s.patrol.Run)
	defer stopPatrol()
	return s.engine.Run(ctx)
}

// follow follows what all tenants see of the host; leave ends that, also after an error.
func (s *Syncer) follow() (leave func(), err error) {
	var leaves []func()
	leave = func() {
		for _, l := range slices.Backward(leaves) {
			l()
		}
	}
	for _, f := range []struct {
		what string
		of   cache.SharedInformer
		keys func(any) []engine.Key
	}{
		{"nodes", s.caches.hostNodes, keysOf(s.ofHostNode)},
		{"storage classes", s.config.Host.classes, keysOf(s.ofClass)},
		{"priority classes", s.config.Host.ranks, keysOf(s.ofPriorityClass)},
		{"definitions", s.config.Host.definitions, keysOf(s.customs.ofDefinition)},
		{"ingress classes", s.config.Host.ingress, keysOf(s.ofIngressClass)},
	} {
		end, err := s.engine.Follow(f.of, f.keys)
		if err != nil {
			return leave, fmt.Errorf("%s of the host: %w", f.what, err)
		}
		leaves = append(leaves, end)
	}
	return leave, nil
}

// run runs work until ctx ends; stop ends it and waits for that.
func run(ctx context.Context, work func(context.Context)) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	var group sync.WaitGroup
	group.Go(func() { work(ctx) })
	return func() { cancel(); group.Wait() }
}
