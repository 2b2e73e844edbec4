package cell

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/rest"
	"k8s.io/utils/clock"
	metricsapi "sigs.k8s.io/metrics-server/pkg/api"

	"sublet.dev/isolation/tenant"
	"sublet.dev/tenant-apiserver/dialer"
	"sublet.dev/tenant-apiserver/keyring"
	"sublet.dev/tenant-apiserver/plan"
	"sublet.dev/tenant-apiserver/server"
)

// ErrStopping is returned by Put once the cell is ending.
var ErrStopping = errors.New("the cell is stopping")

// Companion is the work that goes with a tenant's control plane.
type Companion interface {
	// Run works until ctx ends and then returns nil. It is called once.
	Run(ctx context.Context) error
	// Kubelet answers the tenant API's requests to kubelets (logs, exec, attach,
	// port-forward).
	Kubelet() http.Handler
	// Metrics says what the tenant's pods and nodes use; ctx ends its questions, since
	// upstream's interface has no contexts.
	Metrics(ctx context.Context) metricsapi.MetricsGetter
	// Rest says whether there is nothing to do now, so that it can be ended and
	// another one made later.
	Rest() (r Rest, ok bool)
	// At says what the host knows of an address; the connections of the tenant's
	// control plane depend on it.
	At(ctx context.Context, addr netip.Addr) (dialer.Place, error)
}

// Config says where a cell keeps what and what its tenants get.
type Config struct {
	Name      string
	Dir       func(tenant.ID) string // the tenant's directory: store.db, started and pki/
	GoldenDir string                 // shared with the other cells of this version
	// KeyFile is where the keys are that a tenant's store is encrypted with; its
	// directory exists. Nil: in the tenant's directory.
	KeyFile func(tenant.ID) string
	// KMS, if set, encrypts those keys.
	KMS keyring.KMS
	// Socket is the path of the unix socket on which a tenant's API speaks TLS; it
	// has 107 bytes at most (unix(7)), and its directory exists.
	Socket func(tenant.ID) string
	// Companion makes a tenant's companion. tenantAPI is cluster-admin inside the
	// tenant; objects are informers of the tenant's objects that read its storage.
	// The companion starts them; they are shut down once it has ended.
	Companion func(t tenant.Tenant, tenantAPI *rest.Config, objects informers.SharedInformerFactory) (Companion, error)
	// ValidatePod refuses pods that a tenant must not have; the error's text goes
	// to the tenant's user. In the place of its RuntimeClass it has the class's handler.
	ValidatePod func(t tenant.Tenant, tenantPod *corev1.Pod, terms plan.Terms) error
	// AuditWebhook is a kubeconfig that says where the audit events of all tenants are
	// sent, beside their files. Empty: nowhere.
	AuditWebhook string
	// CheckEvery is how long the cell rests between two looks through the open
	// stores for damage. 0: six hours.
	CheckEvery time.Duration
	// Renew is how long the cell runs at least before it ends by itself with
	// [ErrRenewed]: when all its tenants have been asleep for a while, none is due
	// soon, nobody connects, and it has clearly more memory than before any ran. Who
	// runs it is to start another, and to follow its changes: without that it goes on,
	// as with 0.
	Renew  time.Duration
	Clock  clock.WithTicker // nil: the real one
	Logger *slog.Logger
}

func (c Config) validate() error {
	if c.Name == "" || c.GoldenDir == "" || c.Dir == nil || c.Socket == nil || c.Companion == nil || c.ValidatePod == nil || c.Logger == nil {
		return errors.New("cell: Config.Name, GoldenDir, Dir, Socket, Companion, ValidatePod and Logger must be set")
	}
	return nil
}

// Cell hosts tenants. Its methods may be called concurrently.
type Cell struct {
	config   Config
	instance string
	ctx      context.Context // ends every tenant
	cancel   context.CancelFunc
	wg       sync.WaitGroup // the tenants' goroutines
	starting *starts        // who starts a control plane
	ran      atomic.Bool    // a control plane has been started
	shrunk   chan struct{}  // gets a value when a tenant has begun to sleep
	warmed   atomic.Bool    // what tenants share has been made before any tenant ran
	renewal  renewal

	mu       sync.Mutex
	closed   bool
	hosted   map[tenant.ID]*hosted
	revision uint64
	changed  chan struct{} // closed and replaced with every change
}

// New returns a cell without tenants.
func New(c Config) (*Cell, error) {
	if err := c.validate(); err != nil {
		return nil, err
	}
	if c.Clock == nil {
		c.Clock = clock.RealClock{}
	}
	ctx, cancel := context.WithCancel(context.Background())
	return &Cell{
		starting: newStarts(2 * runtime.GOMAXPROCS(0)), shrunk: make(chan struct{}, 1),
		config: c, instance: rand.Text(), ctx: ctx, cancel: cancel,
		hosted: map[tenant.ID]*hosted{}, revision: 1, changed: make(chan struct{}),
	}, nil
}

// Run warms the process up, waits for ctx to end, stops all tenants, and returns
// once they have stopped. It is to be called once. The error is ErrRenewed when it has
// ended by itself.
func (c *Cell) Run(ctx context.Context) error {
	ctx, end := context.WithCancelCause(ctx)
	defer end(nil)
	c.wg.Go(c.warm)
	c.wg.Go(c.patrol)
	c.wg.Go(func() {
		if c.awaitRenewal(ctx) {
			end(ErrRenewed)
		}
	})
	c.tidy(ctx)
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.cancel()
	c.wg.Wait()
	if cause := context.Cause(ctx); errors.Is(cause, ErrRenewed) {
		return cause
	}
	return nil
}

// warmAfter is how long a cell waits for tenants before it warms up: one that was
// started again gets those it had within that, and they warm it up, but for documents
// that nobody has asked for yet.
const warmAfter = 300 * time.Millisecond

// warm makes what the first tenant would otherwise wait for, unless there has been
// one.
func (c *Cell) warm() {
	select {
	case <-c.ctx.Done():
		return
	case <-time.After(warmAfter):
	}
	if err := c.starting.settle(c.ctx); err != nil {
		return // it is stopping
	}
	leave, err := c.starting.enter(c.ctx, func() bool { return false })
	if err != nil {
		return
	}
	defer leave()
	begun := time.Now()
	if c.ran.Load() {
		err = server.RenderDocuments()
	} else {
		err = server.Warm(c.ctx, c.config.GoldenDir, c.config.Logger)
	}
	if err != nil && c.ctx.Err() == nil {
		c.config.Logger.Warn("the first tenant will start slowly", "error", err)
		return
	}
	// Rendering OpenAPI documents takes several times the memory of what stays.
	c.warmed.Store(true)
	c.freed()
	c.config.Logger.Debug("warm", "after", time.Since(begun))
}

// Put makes the cell host the tenant so and waits until it runs or has failed;
// when ctx ends before that, the start goes on. It is idempotent: a tenant that is
// hosted with the same values is left alone. One with other terms, CAs or revocations
// gets them while it runs, and is woken for other CAs, since its pods have to know them;
// one with other values is restarted.
func (c *Cell) Put(ctx context.Context, t Tenant) (Status, error) {
	if err := t.validate(); err != nil {
		return Status{}, err
	}
	for {
		h, old, err := c.place(t)
		if err != nil {
			return Status{}, err
		}
		if old == nil {
			return c.certified(ctx, h)
		}
		if err := old.stop(ctx); err != nil {
			return Status{}, fmt.Errorf("stop tenant %s to change it: %w", t.Name, err)
		}
		c.forget(t.ID, old)
	}
}

// place returns the tenant's place, made when there is none, or the one that
// hosts it with other values and must be stopped first.
func (c *Cell) place(t Tenant) (h, old *hosted, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, nil, ErrStopping
	}
	if h := c.hosted[t.ID]; h != nil {
		if !h.tenant.sameBut(t) || h.ctx.Err() != nil {
			return nil, h, nil
		}
		h.update(t)
		if t.Terms.IdleAfter <= 0 && h.status.Phase == Asleep {
			h.rouse("its plan keeps it awake")
		}
		return h, nil, nil
	}
	return c.add(t), nil, nil
}

// add makes the tenant's place. The caller must hold mu.
func (c *Cell) add(t Tenant) *hosted {
	h := c.newHosted(t)
	c.hosted[t.ID] = h
	c.touch()
	c.wg.Add(1)
	go func() {
		defer c.wg.Done()
		defer close(h.done)
		h.run()
	}()
	return h
}

// Resume makes the cell host tenants that another process of it hosted before, and
// does not wait until they run. Who is hosted already is left alone: what a manager
// has put since is newer. The first are started first.
func (c *Cell) Resume(tenants []Tenant) error {
	for _, t := range tenants {
		if err := t.validate(); err != nil {
			return err
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return ErrStopping
	}
	for _, t := range tenants {
		if c.hosted[t.ID] == nil {
			c.add(t)
		}
	}
	return nil
}

// Delete stops hosting the tenant and waits for that. A tenant that is not hosted
// is no error. Its directory stays.
func (c *Cell) Delete(ctx context.Context, id tenant.ID) error {
	c.mu.Lock()
	h := c.hosted[id]
	c.mu.Unlock()
	if h == nil {
		return nil
	}
	if err := h.stop(ctx); err != nil {
		return fmt.Errorf("stop tenant %s: %w", h.tenant.Name, err)
	}
	c.forget(id, h)
	return nil
}

func (c *Cell) forget(id tenant.ID, h *hosted) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.hosted[id] == h {
		delete(c.hosted, id)
		c.touch()
		c.freed()
	}
}

// Get returns the status of a tenant; ok is false when it is not hosted.
func (c *Cell) Get(id tenant.ID) (s Status, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	h := c.hosted[id]
	if h == nil {
		return Status{}, false
	}
	return h.status, true
}

// Wake starts the tenant's control plane if it sleeps, and waits until it runs or has
// failed. why is for the log. It is idempotent.
func (c *Cell) Wake(ctx context.Context, id tenant.ID, why string) (Status, error) {
	h, err := c.find(id)
	if err != nil {
		return Status{}, err
	}
	if s, ok := c.Get(id); ok && s.Phase == Asleep {
		h.rouse(why)
	}
	for {
		c.mu.Lock()
		s, changed := h.status, c.changed
		c.mu.Unlock()
		if s.Phase != Asleep {
			return c.settled(ctx, h)
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return s, context.Cause(ctx)
		}
	}
}

// Sleep stops the tenant's control plane once nothing is going on, however short it
// has been idle, and waits for that. What still goes on after patience is in the
// error. It is idempotent.
func (c *Cell) Sleep(ctx context.Context, id tenant.ID, patience time.Duration) error {
	h, err := c.find(id)
	if err != nil {
		return err
	}
	asking, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	a := ask{asking, make(chan error, 1)}
	select {
	case h.asked <- a:
	case <-h.done:
		return ErrNotHosted
	case <-asking.Done():
		return busy("it is starting, or has failed")
	}
	if err := <-a.answer; err != nil {
		return err
	}
	for {
		c.mu.Lock()
		phase, changed := h.status.Phase, c.changed
		c.mu.Unlock()
		if phase != Ready && phase != Degraded {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// Snapshot returns the cell's state as soon as its revision is above after, or
// the current one when ctx ends.
func (c *Cell) Snapshot(ctx context.Context, after uint64) Snapshot {
	for {
		c.mu.Lock()
		s, changed := c.snapshot(), c.changed
		c.mu.Unlock()
		if s.Revision > after {
			return s
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return s
		case <-c.ctx.Done():
			return s
		}
	}
}

// snapshot returns the current state. The caller must hold mu.
func (c *Cell) snapshot() Snapshot {
	s := Snapshot{Instance: c.instance, Revision: c.revision, Ending: c.renewal.left, Tenants: []Status{}}
	for _, h := range c.hosted {
		s.Tenants = append(s.Tenants, h.status)
	}
	slices.SortFunc(s.Tenants, func(a, b Status) int { return strings.Compare(string(a.ID), string(b.ID)) })
	return s
}

// touch wakes everybody who waits for a change. The caller must hold mu.
func (c *Cell) touch() {
	c.revision++
	c.renewal.changed = c.config.Clock.Now()
	close(c.changed)
	c.changed = make(chan struct{})
}

// settled waits until the tenant's phase is settled.
func (c *Cell) settled(ctx context.Context, h *hosted) (Status, error) {
	for {
		c.mu.Lock()
		s, changed := h.status, c.changed
		c.mu.Unlock()
		if s.Settled() {
			return s, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return s, nil
		case <-c.ctx.Done():
			return s, ErrStopping
		}
	}
}
