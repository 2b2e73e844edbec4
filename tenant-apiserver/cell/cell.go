package cell

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"k8s.io/utils/clock"

	"sublet.dev/isolation/tenant"
)

// ErrStopping is returned by Put once the cell is ending.
var ErrStopping = errors.New("the cell is stopping")

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
