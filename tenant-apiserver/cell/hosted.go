package cell

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"sublet.dev/tenant-apiserver/dialer"
	"sublet.dev/tenant-apiserver/plan"
	"sublet.dev/tenant-apiserver/server"
)

const (
	// firstRetry and lastRetry: how soon something that failed is tried again.
	firstRetry = 200 * time.Millisecond
	lastRetry  = 30 * time.Second
	// longestHold: who waits for a tenant that is to be tried again later than that is
	// turned away.
	longestHold = time.Second
)

// hosted is one tenant of a cell.
type hosted struct {
	cell   *Cell
	tenant Tenant
	log    *slog.Logger
	ctx    context.Context // ends this tenant
	cancel context.CancelFunc
	done   chan struct{} // closed when run has returned

	api    atomic.Pointer[server.Server] // the control plane while it runs
	terms  atomic.Pointer[plan.Terms]    // what the tenant may have now; tenant.Terms is what it began with
	status Status                        // guarded by cell.mu

	// The tenant's own goroutine makes gate when the tenant runs or sleeps.
	gate    *gate
	current atomic.Pointer[Companion] // the companion that runs; nil: none
	debut   atomic.Pointer[debut]     // of the control plane that runs; nil: none serves

	outgoing *dialer.Dialer // of the control plane that runs; run's alone
	carried  server.Carried // what the last one left, until the next serves; run's alone
	wake     chan string    // why the tenant is to wake; only the first of several counts
	asked    chan ask       // somebody wants the tenant to sleep

	changing sync.Mutex          // one change of what the control plane is told at a time
	revoked  map[string]struct{} // serial numbers; guarded by changing

	authentication []byte   // guarded by changing
	cas            [2]int64 // Tenant.CAs as they are now; guarded by changing

	certifying sync.Mutex // one change of the control plane's CAs at a time
	told       [2]int64   // cas when its authority was read last; guarded by certifying

	tasks chan *task // work for while the store is closed: see offline
	task  *task      // the one to do next; run's own
}

// newHosted returns a tenant that does not run yet.
func (c *Cell) newHosted(t Tenant) *hosted {
	ctx, cancel := context.WithCancel(c.ctx)
	h := &hosted{
		cell: c, tenant: t, ctx: ctx, cancel: cancel, done: make(chan struct{}), tasks: make(chan *task),
		wake: make(chan string, 1), asked: make(chan ask),
		log:     c.config.Logger.With("tenant", t.Name, "tenantID", t.ID),
		status:  Status{ID: t.ID, Name: t.Name, Phase: Starting, Since: time.Now()},
		revoked: map[string]struct{}{},
	}
	h.update(t)
	return h
}

// setTerms changes what the tenant may have, from now on.
func (h *hosted) setTerms(t plan.Terms) { h.terms.Store(&t) }

// stop ends the tenant and waits for that.
func (h *hosted) stop(ctx context.Context) error {
	h.cancel()
	select {
	case <-h.done:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (h *hosted) set(p Phase, reason, message string) {
	h.cell.mu.Lock()
	defer h.cell.mu.Unlock()
	s := &h.status
	if h.cell.renewal.left { // it goes on in another process, and this one has nothing to tell
		return
	}
	if s.Phase == p && s.Reason == reason && s.Message == message {
		return
	}
	s.Phase, s.Reason, s.Message, s.Since = p, reason, message, h.now()
	s.Due, s.Seen = time.Time{}, Seen{}
	h.cell.touch()
}

func (h *hosted) now() time.Time { return h.cell.config.Clock.Now() }

// run keeps the tenant's control plane running, or asleep, until the tenant is
// stopped.
func (h *hosted) run() {
	defer h.shut()
	retry := firstRetry
	for {
		began := time.Now()
		err := h.turn()
		if h.perform() {
			retry = firstRetry
			continue
		}
		if h.ctx.Err() != nil {
			h.set(Stopped, "", "")
			return
		}
		if err == nil { // it slept, or it slept enough
			retry = firstRetry
			continue
		}
		if time.Since(began) > lastRetry {
			retry = firstRetry
		}
		if retry > longestHold {
			h.shut()
		}
		reason := reasonOf(err)
		h.set(Failed, reason, err.Error())
		h.log.Error("the tenant's control plane failed", "reason", reason, "error", err, "retry", retry)
		select {
		case <-h.ctx.Done():
			h.set(Stopped, "", "")
			return
		case h.task = <-h.tasks:
			h.perform()
			retry = firstRetry
			continue
		case <-time.After(retry):
		}
		retry = min(2*retry, lastRetry)
	}
}

// turn sleeps when there is a record that says so, and otherwise runs until the tenant
// may sleep. It returns nil after either, and when the tenant was stopped.
func (h *hosted) turn() error {
	dir := h.cell.config.Dir(h.tenant.ID)
	t := h.tenantNow()
	r, err := recorded(dir, t)
	if err != nil {
		return err
	}
	if r == nil {
		if err := h.getUp(); err != nil { // the record does not hold any more
			return err
		}
		if r, err = h.apart(); r == nil || err != nil || r.Tenant.CAs != h.tenantNow().CAs {
			return err
		}
		if err := r.save(dir); err != nil {
			h.log.Warn("the tenant sleeps, but will not when its cell starts again", "error", err)
		}
	} else if err := h.openGate(); err != nil {
		return err
	} else {
		h.slept(t.CAs)
	}
	return h.sleep(r)
}

// openGate makes the tenant's socket, unless it is there.
func (h *hosted) openGate() (err error) {
	if h.gate == nil {
		h.gate, err = openGate(h.cell.config.Socket(h.tenant.ID), h.now)
	}
	return err
}

// shut closes the tenant's socket: nobody is to wait for a tenant that does not come.
func (h *hosted) shut() {
	if h.gate != nil {
		h.gate.close()
		h.gate = nil
	}
}
