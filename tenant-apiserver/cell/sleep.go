package cell

import (
	"context"
	"time"

	"k8s.io/client-go/kubernetes"

	"sublet.dev/tenant-apiserver/idle"
	"sublet.dev/tenant-apiserver/server"
)

const (
	// quietTime is how long nothing must have been written before a tenant may
	// sleep, whoever asks: controllers follow a change within milliseconds.
	quietTime = 3 * time.Second
	// shortestSleep: a tenant that would be woken before that is left awake.
	shortestSleep = 10 * time.Second
	// wakeAhead is how long before its time a tenant is woken, so that its
	// controllers are there when it comes.
	wakeAhead = 2 * time.Second
	// shortestLook and longestLook bound how often it is looked whether a tenant
	// may sleep; longestRelook how often its objects are looked at meanwhile.
	shortestLook  = 500 * time.Millisecond
	longestLook   = 30 * time.Second
	longestRelook = 5 * time.Minute
	// tryAgain is how soon it is looked again whether a tenant that is told to sleep
	// has come to rest.
	tryAgain = 100 * time.Millisecond
)

// busy says why a tenant cannot sleep now. It is an error.
type busy string

func (b busy) Error() string { return string(b) }

// ask is somebody's wish that a tenant sleep now.
type ask struct {
	ctx    context.Context // ends when he does not want to wait any longer
	answer chan error      // gets one value: nil when the tenant is going to sleep
}

// watcher decides when a tenant that runs may sleep.
type watcher struct {
	*hosted
	api      *server.Server
	revision int64     // the last one that was looked at
	wrote    time.Time // when it was seen that something had been written
	looked   time.Time // when the tenant's objects were looked at
}

// rest waits until the tenant may sleep and returns the record of it; nil when ctx
// ended before. The gate is then paused.
func (h *hosted) rest(ctx context.Context, api *server.Server) *record {
	w := &watcher{hosted: h, api: api, wrote: h.now()}
	for {
		timer := h.cell.config.Clock.NewTimer(w.pause())
		var r *record
		var err error
		select {
		case <-ctx.Done():
		case <-timer.C():
			r, err = w.look(ctx)
		case a := <-h.asked:
			r, err = w.obey(ctx, a)
		}
		timer.Stop()
		if r != nil || ctx.Err() != nil {
			return r
		}
		if err != nil {
			h.log.Debug("the tenant stays awake", "reason", err)
		}
	}
}

// pause returns how long to wait before looking again.
func (w *watcher) pause() time.Duration {
	after := w.terms.Load().IdleAfter
	if after <= 0 {
		return longestLook // the terms may change
	}
	return min(max(after/10, shortestLook), longestLook)
}

// look returns a record when the tenant has been idle for as long as its plan says.
func (w *watcher) look(ctx context.Context) (*record, error) {
	after := w.terms.Load().IdleAfter
	if after <= 0 {
		return nil, nil
	}
	if err := w.follow(ctx); err != nil {
		return nil, err
	}
	since, free := w.gate.idleSince()
	now := w.now()
	if !free || now.Sub(since) < after || now.Sub(w.wrote) < after || now.Sub(w.looked) < min(after/2, longestRelook) {
		return nil, nil
	}
	w.looked = now
	return w.mayRest(ctx)
}

// obey returns a record as soon as the tenant can sleep, however short it has been
// idle. It gives up when the asker does.
func (w *watcher) obey(ctx context.Context, a ask) (*record, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(a.ctx, cancel)()
	if w.terms.Load().IdleAfter <= 0 {
		err := busy("its plan keeps it awake")
		a.answer <- err
		return nil, err
	}
	why := error(busy("it is starting"))
	for {
		err := w.follow(ctx)
		var r *record
		if err == nil {
			r, err = w.mayRest(ctx)
		}
		if r != nil {
			a.answer <- nil
			return r, nil
		}
		if ctx.Err() == nil { // otherwise it is the asker's end that the error tells of
			why = err
		}
		select {
		case <-ctx.Done():
			a.answer <- why
			return nil, why
		case <-time.After(tryAgain):
		}
	}
}

// follow notes whether something has been written since it was called last.
func (w *watcher) follow(ctx context.Context) error {
	last, written, err := w.api.Activity(ctx, w.revision)
	if written || err != nil {
		w.wrote = w.now()
	}
	w.revision = last
	return err
}

// mayRest returns a record unless something is going on, which the error then tells.
// The gate is paused with it.
func (w *watcher) mayRest(ctx context.Context) (*record, error) {
	if _, free := w.gate.idleSince(); !free {
		return nil, busy("somebody is connected")
	}
	if w.now().Sub(w.wrote) < quietTime {
		return nil, busy("something has just been written")
	}
	if step := w.api.KeyStatus().Step; step != "" {
		return nil, busy("its store is being encrypted anew")
	}
	c := w.current.Load()
	if c == nil {
		return nil, busy("its companion does not run")
	}
	rest, ok := (*c).Rest()
	if !ok {
		return nil, busy("the syncer has something to do")
	}
	verdict, err := w.judge(ctx)
	if err != nil {
		return nil, err
	}
	if verdict.Busy != "" {
		return nil, busy(verdict.Busy)
	}
	due := verdict.Due
	if due.IsZero() || !rest.Due.IsZero() && rest.Due.Before(due) {
		due = rest.Due
	}
	if !due.IsZero() && due.Sub(w.now()) < shortestSleep {
		return nil, busy("something is due at " + due.UTC().Format(time.RFC3339))
	}
	if !w.gate.pause() {
		return nil, busy("somebody is connected")
	}
	// What was written while it was looked at was not looked at.
	if _, written, err := w.api.Activity(ctx, w.revision); written || err != nil {
		w.gate.resume()
		return nil, busy("something has just been written")
	}
	return &record{Tenant: w.remembered(), Since: w.now(), Due: due, Seen: rest.Seen}, nil
}

// judge looks at the tenant's objects.
func (w *watcher) judge(ctx context.Context) (idle.Verdict, error) {
	api, err := kubernetes.NewForConfig(w.api.Loopback())
	if err != nil {
		return idle.Verdict{}, err
	}
	objects, err := idle.Read(ctx, api)
	if err != nil {
		return idle.Verdict{}, err
	}
	return idle.Judge(objects, w.now()), nil
}

// sleep waits until the tenant is to run again. It returns an error when the tenant
// could not be left asleep.
func (h *hosted) sleep(r *record) error {
	h.fallAsleep(r)
	var due <-chan time.Time
	if !r.Due.IsZero() {
		timer := h.cell.config.Clock.NewTimer(r.Due.Add(-wakeAhead).Sub(h.now()))
		defer timer.Stop()
		due = timer.C()
	}
	why := h.awaitWake(due)
	if h.ctx.Err() != nil || h.task != nil { // with a task, the record decides again after it
		return nil
	}
	h.log.Info("the tenant wakes up", "because", why, "slept", h.now().Sub(r.Since))
	return h.getUp()
}

// getUp takes what the control plane that slept has left, and forgets that it slept.
func (h *hosted) getUp() error {
	dir := h.cell.config.Dir(h.tenant.ID)
	c, ok, err := takeLeft(dir)
	if err != nil {
		h.log.Warn("the tenant can tell that it slept", "error", err)
	}
	if ok {
		h.carried = c
	}
	return forgetRecord(dir) // and makes sure that what was taken is gone
}

// fallAsleep reports that the tenant sleeps.
func (h *hosted) fallAsleep(r *record) {
	h.cell.mu.Lock()
	s := &h.status
	s.Phase, s.Reason, s.Message, s.Since, s.Due, s.Seen = Asleep, "", "", r.Since, r.Due, r.Seen
	h.cell.touch()
	h.cell.mu.Unlock()
	h.log.Info("the tenant sleeps", "due", r.Due)
	h.cell.freed()
}

// awaitWake returns why the tenant has to run; ctx of the tenant may have ended.
func (h *hosted) awaitWake(due <-chan time.Time) string {
	for {
		changed, knocked := h.gate.knocked()
		if knocked {
			return "somebody connects"
		}
		select {
		case <-changed:
		case <-due:
			return "its time has come"
		case why := <-h.wake:
			return why
		case a := <-h.asked:
			a.answer <- nil // it sleeps
		case h.task = <-h.tasks:
			return ""
		case <-h.ctx.Done():
			return ""
		}
	}
}

// rouse wakes the tenant, which sleeps. Somebody may have been faster.
func (h *hosted) rouse(why string) {
	select {
	case h.wake <- why:
	default:
	}
}
