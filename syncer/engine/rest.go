package engine

import (
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/util/resourceversion"
)

// settleTime is how long nothing must have been queued for an engine to be quiet:
// much longer than an object takes from an informer's cache to its handler.
const settleTime = 2 * time.Second

// Rest says whether the engine has nothing to do now: its informers have delivered,
// nothing is queued, being worked on, or failing. due is when the next pass comes by
// itself; the zero time: none will.
func (e *Engine) Rest() (due time.Time, quiet bool) {
	for _, synced := range e.sources() {
		if !synced() {
			return time.Time{}, false
		}
	}
	return e.ledger.rest(e.config.Clock.Now())
}

// ledger is what an engine has under way: the queue does not tell. It keeps nothing
// of keys that are in step.
type ledger struct {
	mu        sync.Mutex
	last      time.Time         // when a key was queued for what was observed
	queued    map[Key]struct{}  // since then not begun
	inspected map[Key]struct{}  // those of queued that were queued by Inspect alone
	working   map[Key]struct{}  // that are worked on
	failing   map[Key]State     // that wait to be tried again
	timed     map[Key]time.Time // that wait for a time of their own
}

func newLedger() *ledger {
	return &ledger{
		queued: map[Key]struct{}{}, inspected: map[Key]struct{}{}, working: map[Key]struct{}{},
		failing: map[Key]State{}, timed: map[Key]time.Time{},
	}
}

// State is what an engine has under way for a key.
type State struct {
	// Queued: it waits for a worker. Working: a worker is at it.
	Queued  bool `json:"queued,omitempty"`
	Working bool `json:"working,omitempty"`
	// Failures counts the tries that failed since the last one that did not, Error is
	// the last one's text (at most 2 KiB) and FailedAt its time.
	Failures int       `json:"failures,omitempty"`
	Error    string    `json:"error,omitempty"`
	FailedAt time.Time `json:"failedAt,omitzero"`
	// Due is when it comes again by itself; the zero time: not.
	Due time.Time `json:"due,omitzero"`
}

// maxError is how much of an error's text is kept.
const maxError = 2 << 10

// State returns what is under way for a key.
func (e *Engine) State(k Key) State {
	l := e.ledger
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.failing[k]
	_, s.Queued = l.queued[k]
	_, s.Working = l.working[k]
	s.Due = l.timed[k]
	return s
}

// Backlog returns how many keys wait for a worker, and how many fail.
func (e *Engine) Backlog() (queued, failing int) {
	l := e.ledger
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.queued), len(l.failing)
}

// added is called before the keys are queued.
func (l *ledger) added(now time.Time, keys []Key) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.last = now
	for _, k := range keys {
		l.queued[k] = struct{}{}
		delete(l.inspected, k)
	}
}

// inspect is called before a key is queued to be inspected; false: it is under way.
func (l *ledger) inspect(k Key) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	_, queued := l.queued[k]
	_, working := l.working[k]
	_, failing := l.failing[k]
	if queued || working || failing {
		return false
	}
	l.queued[k], l.inspected[k] = struct{}{}, struct{}{}
	return true
}

func (l *ledger) begin(k Key) (inspected bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	_, inspected = l.inspected[k]
	l.working[k] = struct{}{}
	delete(l.queued, k)
	delete(l.inspected, k)
	delete(l.timed, k)
	return inspected
}

func (l *ledger) end(k Key, now time.Time, again time.Duration, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.working, k)
	before := l.failing[k].Failures
	delete(l.failing, k)
	switch {
	case err != nil:
		text := err.Error()
		l.failing[k] = State{Failures: before + 1, Error: text[:min(len(text), maxError)], FailedAt: now}
	case again > 0:
		l.timed[k] = now.Add(again)
	}
}

func (l *ledger) rest(now time.Time) (due time.Time, quiet bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.queued) > 0 || len(l.working) > 0 || len(l.failing) > 0 || now.Sub(l.last) < settleTime {
		return time.Time{}, false
	}
	for _, at := range l.timed {
		if due.IsZero() || at.Before(due) {
			due = at
		}
	}
	return due, true
}

// Mark is how far an informer's objects have been queued. The nil Mark notes nothing.
type Mark struct {
	mu      sync.Mutex
	version string // the newest resource version
	count   int    // objects there are
}

// note is called when an object was queued; more is by how many objects there are
// more now.
func (m *Mark) note(object any, more int) {
	o, err := meta.Accessor(object)
	if m == nil || err != nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.count += more
	if newer(o.GetResourceVersion(), m.version) {
		m.version = o.GetResourceVersion()
	}
}

// newer compares two resource versions of one resource. One that cannot be compared
// is not newer: then what follows it is taken for unseen.
func newer(version, than string) bool {
	if than == "" {
		return version != ""
	}
	c, err := resourceversion.CompareResourceVersion(version, than)
	return err == nil && c > 0
}

// Get returns the newest resource version that was queued ("": none) and how many
// objects there are.
func (m *Mark) Get() (version string, count int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.version, m.count
}
