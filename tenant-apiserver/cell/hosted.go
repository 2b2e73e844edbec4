package cell

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"

	"sublet.dev/tenant-apiserver/dialer"
	"sublet.dev/tenant-apiserver/etcdclient"
	"sublet.dev/tenant-apiserver/keyring"
	"sublet.dev/tenant-apiserver/pki"
	"sublet.dev/tenant-apiserver/plan"
	"sublet.dev/tenant-apiserver/server"
	"sublet.dev/tenant-apiserver/store"
)

const (
	// startTimeout bounds one start of a control plane: it takes 0.2 s when warm;
	// the first of a version bootstraps the golden store.
	startTimeout = 2 * time.Minute
	// stopTimeout bounds a stop.
	stopTimeout = 20 * time.Second
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

	outgoing *dialer.Dialer // of the control plane that runs; run's alone
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
		if err := forgetRecord(dir); err != nil { // one that does not hold any more
			return err
		}
		if r, err = h.once(); r == nil || err != nil || r.Tenant.CAs != h.tenantNow().CAs {
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

var errEnded = errors.New("the tenant's control plane ended by itself")

// reasons names causes of failures for a condition, the one that says most first.
var reasons = []struct {
	cause  error
	reason string
}{
	{errStoreMissing, ReasonStoreMissing}, {server.ErrStoreMissing, ReasonStoreMissing},
	{server.ErrKeyMissing, ReasonKeyMissing}, {keyring.ErrCorrupt, ReasonKeysCorrupt}, {keyring.ErrKMS, ReasonKMS},
	{etcdclient.ErrDenied, ReasonEtcdDenied}, {etcdclient.ErrUnavailable, ReasonEtcd},
	{store.ErrCorrupt, ReasonStoreCorrupt}, {store.ErrForeign, ReasonStoreForeign},
	{store.ErrNewerFormat, ReasonStoreNewer}, {store.ErrInUse, ReasonStoreInUse},
	{store.ErrNoSpace, ReasonDiskFull}, {syscall.ENOSPC, ReasonDiskFull}, {syscall.EDQUOT, ReasonDiskFull},
	{store.ErrFailed, ReasonStoreFailed},
	{pki.ErrCorrupt, ReasonKeysCorrupt}, {pki.ErrMissing, ReasonCAMissing}, {errEnded, ReasonEnded},
}

// reasonOf names the cause of a failure for a condition.
func reasonOf(err error) string {
	for _, r := range reasons {
		if errors.Is(err, r.cause) {
			return r.reason
		}
	}
	return ReasonStartFailed
}

// once starts the control plane and its companion, and returns when they have
// ended: with a record when the tenant may sleep, with an error unless it was stopped.
func (h *hosted) once() (r *record, err error) {
	var kubelet lateHandler
	h.awake()
	// Before anything else, so that it is seen that somebody waits.
	if err := h.openGate(); err != nil {
		return nil, err
	}
	api, err := h.start(&kubelet)
	if err != nil {
		return nil, err
	}
	defer h.outgoing.Close()
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(h.ctx), stopTimeout)
		defer cancel()
		if stopErr := api.Stop(ctx); stopErr != nil {
			err = fmt.Errorf("%w: %w", cmp.Or(err, errEnded), stopErr)
		}
	}()
	h.cell.ran.Store(true)
	defer h.api.Store(nil)
	h.begin(api)
	if err := h.certify(); err != nil { // they may have changed while it started
		return nil, err
	}
	if err := markStarted(h.cell.config.Dir(h.tenant.ID)); err != nil {
		return nil, err
	}
	h.gate.resume()
	ctx, cancel := context.WithCancel(h.ctx)
	var group sync.WaitGroup
	defer group.Wait()
	defer cancel()
	served, rested := make(chan error, 1), make(chan *record, 1)
	group.Go(func() { served <- api.Serve(ctx, h.gate.session()) })
	group.Go(func() { h.accompany(ctx, api, &kubelet) })
	group.Go(func() { rested <- h.rest(ctx, api) })
	select {
	case <-h.ctx.Done():
		return nil, nil
	case h.task = <-h.tasks:
		return nil, nil
	case <-api.Done():
		return nil, errEnded
	case r := <-rested:
		return r, nil
	case err := <-served:
		if err == nil { // it is ending; Stop tells why
			return nil, errEnded
		}
		return nil, fmt.Errorf("%w: %w", errEnded, err)
	}
}

// awake notes that the tenant is to run: whoever wanted to wake it has his will.
func (h *hosted) awake() {
	select {
	case <-h.wake:
	default:
	}
	h.set(Starting, "", "")
}

// start starts the control plane from the tenant's directory.
func (h *hosted) start(kubelet http.Handler) (*server.Server, error) {
	t := h.tenant
	dir := h.cell.config.Dir(t.ID)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the tenant's directory: %w", err)
	}
	existing, err := hasStarted(dir)
	if err != nil {
		return nil, err
	}
	etcd, err := t.Etcd.Config()
	if err != nil {
		return nil, err
	}
	file := ""
	if etcd == nil {
		file = storePath(dir)
		if err := checkStore(dir); err != nil {
			return nil, err
		}
	}
	authority, err := h.load(existing)
	if err != nil {
		return nil, err
	}
	if h.outgoing, err = h.dialer(); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(h.ctx, startTimeout)
	defer cancel()
	leave, err := h.cell.starting.enter(ctx, h.gate.wanted)
	if err != nil {
		return nil, err
	}
	defer leave()
	return server.Start(ctx, server.Config{
		Name:              t.Name,
		ID:                string(t.ID),
		StorePath:         file,
		Etcd:              etcd,
		Existing:          existing,
		KeyFile:           h.cell.config.keyFile(t.ID),
		KMS:               h.cell.config.KMS,
		GoldenDir:         h.cell.config.GoldenDir,
		PKI:               authority,
		ServiceCIDR:       t.ServiceCIDR,
		SecondServiceCIDR: t.SecondServiceCIDR,
		Advertise:         t.InCluster,
		ServingNames:      []string{t.ServerName},
		Kubelet:           kubelet,
		Metrics:           currentMetrics{h},
		Dial:              h.outgoing.DialContext,
		DialIssuer:        h.outgoing.DialPublic,
		ValidatePod:       func(p *corev1.Pod) error { return h.cell.config.ValidatePod(t.Tenant, p, *h.terms.Load()) },
		Judge:             h.judge,
		Terms:             *h.terms.Load(),
		AuditLog:          AuditLog(dir),
		AuditWebhook:      h.cell.config.AuditWebhook,
		Logger:            h.log,
	})
}

// PKIDir returns where the keys are in a tenant's directory.
func PKIDir(dir string) string { return filepath.Join(dir, "pki") }

// accompany keeps a companion running until ctx ends.
func (h *hosted) accompany(ctx context.Context, api *server.Server, kubelet *lateHandler) {
	for retry := firstRetry; ; retry = min(2*retry, lastRetry) {
		err := h.companion(ctx, api, kubelet)
		if ctx.Err() != nil {
			return
		}
		h.set(Degraded, ReasonCompanion, "The API answers, but pods and services are not being carried out: "+err.Error())
		h.log.Error("the tenant's companion failed", "error", err, "retry", retry)
		select {
		case <-ctx.Done():
			return
		case <-time.After(retry):
		}
	}
}

// companion makes a companion and runs it. It returns an error unless ctx ended.
func (h *hosted) companion(ctx context.Context, api *server.Server, kubelet *lateHandler) error {
	objects, err := api.NewInformers(ctx)
	if err != nil {
		return err
	}
	// Its own, or those of one that could not be made, end here.
	defer objects.Shutdown()
	c, err := h.cell.config.Companion(h.tenant.Tenant, api.Loopback(), objects)
	if err != nil {
		return fmt.Errorf("make it: %w", err)
	}
	kubelet.set(c.Kubelet())
	h.present(&c)
	defer h.current.Store(nil)
	h.set(Ready, "", "")
	if err := c.Run(ctx); err != nil {
		return err
	}
	return errors.New("it ended by itself")
}

// listen makes the unix socket, in place of one that a killed process left.
func listen(path string) (*net.UnixListener, error) {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("remove the old socket: %w", err)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("listen for the front door: %w", err)
	}
	return l, nil
}

// lateHandler is a handler that is known later than those who call it.
type lateHandler struct{ handler atomic.Pointer[http.Handler] }

func (l *lateHandler) set(h http.Handler) { l.handler.Store(&h) }

// ServeHTTP answers 503 until the handler is known.
func (l *lateHandler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := l.handler.Load()
	if h == nil {
		http.Error(w, "the tenant is starting: try again", http.StatusServiceUnavailable)
		return
	}
	(*h).ServeHTTP(w, r)
}
