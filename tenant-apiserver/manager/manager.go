package manager

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/events"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/config"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/source"

	"sublet.dev/api/v1alpha1"
	"sublet.dev/isolation/tenant"
	"sublet.dev/tenant-apiserver/cell"
	"sublet.dev/tenant-apiserver/frontdoor"
)

// fieldOwner marks what the manager applied on the host (server-side apply).
const fieldOwner = "sublet-manager"

// workers reconcile at a time: a start is mostly waiting for the cell.
const workers = 8

// Door is the front door.
type Door interface {
	Set(frontdoor.Route) error
	Remove(tenant string)
}

// Cells starts and stops the processes that host tenants.
type Cells interface {
	// Start makes the cell of that name run from now on and returns it; it may
	// not answer yet. It is idempotent.
	Start(ctx context.Context, name string) (Cell, error)
	// Stop ends the cell. One that does not run is no error.
	Stop(ctx context.Context, name string) error
}

// Cell is a process that hosts tenants.
type Cell interface {
	Put(ctx context.Context, t cell.Tenant) (cell.Status, error)
	Delete(ctx context.Context, id tenant.ID) error
	Revoke(ctx context.Context, id tenant.ID, serials []string) error
	Snapshot(ctx context.Context, after uint64) (cell.Snapshot, error)
	Sleeper
	Resumer
}

// Resumer is what a process gets back that has died.
type Resumer interface {
	Resume(ctx context.Context, tenants []cell.Tenant) error
}

// Sleeper is what wakes tenants that sleep.
type Sleeper interface {
	Wake(ctx context.Context, id tenant.ID, why string) (cell.Status, error)
}

// Config says what a manager manages.
type Config struct {
	Host   *rest.Config   // the host API, with all rights
	Plan   Plan           // what tenants' addresses are taken from
	Domain string         // a tenant's server name is <name>.<Domain>
	Door   Door           // routes are set and removed here
	Public netip.AddrPort // where tenants' users reach the front door
	// Cells are told which cells to run: the first one always, the others while
	// they have tenants.
	Cells   Cells
	PerCell int // how many tenants share a cell at most; 0: 100
	// Socket is the path of the unix socket on which a tenant's API speaks TLS,
	// whether it runs already or not.
	Socket func(tenant.ID) string
	// Keys is the directory with a tenant's authority.
	Keys func(tenant.ID) string
	// Files are the paths that belong to a tenant alone, removed with it.
	Files  func(tenant.ID) []string
	Logger *slog.Logger
}

func (c Config) validate() error {
	switch {
	case c.Host == nil || c.Door == nil || c.Cells == nil || c.Files == nil || c.Keys == nil || c.Socket == nil || c.Logger == nil:
		return errors.New("manager: Config.Host, Door, Cells, Files, Keys, Socket and Logger must be set")
	case c.Domain == "" || !c.Public.IsValid():
		return errors.New("manager: Config.Domain and Public must be set")
	}
	return c.Plan.validate()
}

// Manager reconciles VirtualClusters.
type Manager struct {
	config Config
	inner  manager.Manager
	api    client.Client // reads from the API server, not from a cache
	events events.EventRecorder

	placing sync.Mutex // one tenant is given its place, or a cell taken away, at a time
	seats   seats      // guarded by placing
	changed chan event.TypedGenericEvent[string]

	waker     *waker
	hostnames *hostnames
	recounts  *recounts

	mu    sync.Mutex
	cells map[string]*openCell // guarded by mu: those that run
}

// Scheme knows the types of the host API that Sublet uses.
func Scheme() (*runtime.Scheme, error) {
	s := runtime.NewScheme()
	if err := clientgoscheme.AddToScheme(s); err != nil {
		return nil, fmt.Errorf("make the scheme: %w", err)
	}
	if err := v1alpha1.AddToScheme(s); err != nil {
		return nil, fmt.Errorf("make the scheme: %w", err)
	}
	return s, nil
}

// New returns a manager that does nothing until Run. The host API must serve the
// CustomResourceDefinition of VirtualCluster.
func New(c Config) (*Manager, error) {
	if err := c.validate(); err != nil {
		return nil, err
	}
	if c.PerCell <= 0 {
		c.PerCell = DefaultPerCell
	}
	scheme, err := Scheme()
	if err != nil {
		return nil, err
	}
	grace, anyName := 5*time.Second, true
	inner, err := ctrl.NewManager(c.Host, manager.Options{
		Scheme:                  scheme,
		Logger:                  logr.FromSlogHandler(c.Logger.Handler()),
		Metrics:                 metricsserver.Options{BindAddress: "0"},
		GracefulShutdownTimeout: &grace,
		Controller:              config.Controller{SkipNameValidation: &anyName}, // tests make several in a process
	})
	if err != nil {
		return nil, fmt.Errorf("make the manager: %w", err)
	}
	direct, err := client.New(c.Host, client.Options{Scheme: scheme})
	if err != nil {
		return nil, fmt.Errorf("make the manager's client: %w", err)
	}
	m := &Manager{
		config: c, inner: inner, api: direct, events: inner.GetEventRecorder("sublet-manager"),
		changed: make(chan event.TypedGenericEvent[string], 64), cells: map[string]*openCell{},
		seats: seats{map[types.UID]seat{}, map[types.UID]bool{}},
	}
	if m.waker, err = newWaker(m, c.Host); err != nil {
		return nil, err
	}
	if m.hostnames, err = newHostnames(m); err != nil {
		return nil, err
	}
	m.recounts = newRecounts(m)
	return m, m.build()
}

// build joins the watches, the queue and the reconciler.
func (m *Manager) build() error {
	err := ctrl.NewControllerManagedBy(m.inner).
		Named("virtualcluster").
		For(&v1alpha1.VirtualCluster{}, builder.WithPredicates(asked)).
		Watches(&v1alpha1.Plan{}, handler.EnqueueRequestsFromMapFunc(m.ofPlan)).
		WatchesMetadata(&corev1.Namespace{}, handler.EnqueueRequestsFromMapFunc(m.ofNamespace), builder.WithPredicates(gone)).
		WatchesRawSource(source.TypedChannel(m.changed, handler.TypedFuncs[string, ctrl.Request]{GenericFunc: enqueueName})).
		WithOptions(controller.Options{MaxConcurrentReconciles: workers, RateLimiter: limiter()}).
		Complete(m)
	if err != nil {
		return fmt.Errorf("make the controller: %w", err)
	}
	if err := m.inner.Add(m.waker); err != nil {
		return fmt.Errorf("watch host objects: %w", err)
	}
	if err := m.inner.Add(m.hostnames); err != nil {
		return fmt.Errorf("decide about hostnames: %w", err)
	}
	if err := m.recounts.build(); err != nil {
		return err
	}
	return m.buildCredentials()
}

// asked lets pass what somebody asks of a tenant, its deletion included. What only
// its status says, the manager wrote itself.
var asked = predicate.GenerationChangedPredicate{}

// ofNamespace returns the tenant whose host namespace has just gone: its removal
// waits for that.
func (m *Manager) ofNamespace(ctx context.Context, ns client.Object) []ctrl.Request {
	tenants, err := m.tenants(ctx)
	if err != nil {
		return nil // it is ending, and a removal looks again by itself
	}
	for i := range tenants {
		if tenants[i].Status.Namespace == ns.GetName() {
			return []ctrl.Request{{NamespacedName: types.NamespacedName{Name: tenants[i].Name}}}
		}
	}
	return nil
}

// Restore starts the first cell and those that have tenants, and routes the tenants
// that ran before this process started, so that their clients wait for their cells
// instead of being refused. It is to be called before the front door accepts.
// Tenants that cannot be routed are left to Run.
func (m *Manager) Restore(ctx context.Context) error {
	if err := m.learnSecond(ctx); err != nil {
		return err
	}
	var list v1alpha1.VirtualClusterList
	if err := m.api.List(ctx, &list); err != nil {
		return fmt.Errorf("list the tenants: %w", err)
	}
	if _, err := m.cell(ctx, firstCell); err != nil {
		return err
	}
	for i := range list.Items {
		vc := &list.Items[i]
		if vc.Status.Cell != "" {
			if _, err := m.cell(ctx, vc.Status.Cell); err != nil {
				return err
			}
		}
		if vc.DeletionTimestamp != nil || vc.Status.ServerName == "" {
			continue
		}
		t, err := m.placed(vc)
		if err == nil {
			err = m.config.Door.Set(m.route(t))
		}
		if err != nil {
			m.config.Logger.Warn("a tenant is not routed yet", "tenant", vc.Name, "error", err)
		}
	}
	return nil
}

// route is the front door's way to a tenant.
func (m *Manager) route(t cell.Tenant) frontdoor.Route {
	return frontdoor.Route{Tenant: string(t.ID), ServerName: t.ServerName, Socket: m.config.Socket(t.ID), InCluster: t.InCluster}
}

// Run reconciles until ctx ends, and returns when everything that it started has
// ended.
func (m *Manager) Run(ctx context.Context) error {
	if err := m.learnSecond(ctx); err != nil {
		return err
	}
	if err := m.index(ctx); err != nil {
		return err
	}
	if err := m.inner.Start(ctx); err != nil {
		return fmt.Errorf("run the manager: %w", err)
	}
	return nil
}
