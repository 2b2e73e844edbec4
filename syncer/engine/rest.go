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

// ledger is what an engine has under way: the queue does not tell.
type ledger struct {
	mu      sync.Mutex
	last    time.Time         // when a key was queued
	queued  map[Key]struct{}  // since then not begun
	working int               // keys that are worked on
	failing map[Key]struct{}  // that wait to be tried again
	timed   map[Key]time.Time // that wait for a time of their own
}

func newLedger() *ledger {
	return &ledger{queued: map[Key]struct{}{}, failing: map[Key]struct{}{}, timed: map[Key]time.Time{}}
}

// added is called before the keys are queued.
func (l *ledger) added(now time.Time, keys []Key) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.last = now
	for _, k := range keys {
		l.queued[k] = struct{}{}
	}
}

func (l *ledger) begin(k Key) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.working++
	delete(l.queued, k)
	delete(l.timed, k)
}

func (l *ledger) end(k Key, now time.Time, again time.Duration, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.working--
	delete(l.failing, k)
	switch {
	case err != nil:
		l.failing[k] = struct{}{}
	case again > 0:
		l.timed[k] = now.Add(again)
	}
}

func (l *ledger) rest(now time.Time) (due time.Time, quiet bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.queued) > 0 || l.working > 0 || len(l.failing) > 0 || now.Sub(l.last) < settleTime {
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
