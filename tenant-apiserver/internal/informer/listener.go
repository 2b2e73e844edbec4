package informer

import (
	"slices"
	"sync"
	"time"

	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	"k8s.io/client-go/tools/cache"
)

// mergeFrom is how many notifications wait for a handler before those of one
// object are merged. Below it a handler sees each change, as it would with
// client-go's informers when it keeps up.
const mergeFrom = 1024

type change int

const (
	nothing change = iota
	added
	updated
	deleted
)

// notification is a change that a handler has not been told of yet.
type notification struct {
	change   change
	key      string
	old, new any
	initial  bool // part of what was there when the handler was added
}

// listener is a handler and what waits for it. It is the registration that
// AddEventHandler returns.
type listener struct {
	handler cache.ResourceEventHandler
	name    string
	resync  time.Duration
	at      *sync.WaitGroup // counts the goroutines that call handlers

	mu      sync.Mutex
	queue   []notification
	places  map[string]int // of keys in queue, once it is long
	holes   int            // entries of queue that say nothing
	working bool
	held    bool // nothing is delivered yet: see Factory.Hold
	removed bool
	primed  bool // all that was there at first is in queue
	initial int  // how much of that is not delivered yet
	silent  bool // no resyncs any more
	timer   *time.Timer
	synced  chan struct{} // closed when all of that is delivered
	gone    chan struct{} // closed when it is removed and at rest
}

func newListener(h cache.ResourceEventHandler, name string, resync time.Duration, at *sync.WaitGroup) *listener {
	return &listener{handler: h, name: name, resync: resync, at: at, synced: make(chan struct{}), gone: make(chan struct{})}
}

// add queues notifications and sees to it that they are delivered.
func (l *listener) add(ns ...notification) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.removed {
		return
	}
	for _, n := range ns {
		if n.initial {
			l.initial++
		}
		l.push(n)
	}
	l.wake()
}

// prime says that what was there at first has all been added.
func (l *listener) prime() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.primed {
		l.primed = true
		l.settle()
	}
}

// release ends a hold.
func (l *listener) release() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.held = false
	l.wake()
}

// wake delivers what waits, unless that is being done. The caller holds mu.
func (l *listener) wake() {
	if !l.working && !l.held && len(l.queue) > 0 {
		l.working = true
		l.at.Go(l.deliver)
	}
}

// settle closes synced when everything of the beginning is delivered. The caller
// holds mu.
func (l *listener) settle() {
	if !l.primed || l.initial > 0 {
		return
	}
	select {
	case <-l.synced:
	default:
		close(l.synced)
	}
}

// push queues n. In a long queue it is merged with what waits of the same object,
// so that a queue is bounded by the number of objects and not by that of their
// changes. The caller holds mu.
func (l *listener) push(n notification) {
	if len(l.queue) < mergeFrom || n.initial {
		l.queue = append(l.queue, n)
		return
	}
	if l.places == nil {
		l.index()
	}
	if at, ok := l.places[n.key]; ok {
		if merged, ok := merge(l.queue[at], n); ok {
			l.queue[at] = merged
			if merged.change == nothing {
				l.holes++
				delete(l.places, n.key)
			}
			return
		}
	}
	if l.holes > len(l.queue)/2 {
		l.queue = slices.DeleteFunc(l.queue, func(n notification) bool { return n.change == nothing })
		l.index()
	}
	l.places[n.key] = len(l.queue)
	l.queue = append(l.queue, n)
}

// index notes where in the queue the last change of each object is. The caller
// holds mu.
func (l *listener) index() {
	l.places, l.holes = make(map[string]int, len(l.queue)), 0
	for i, n := range l.queue {
		if n.change == nothing {
			l.holes++
			continue
		}
		l.places[n.key] = i
	}
}

// merge returns one notification for two of the same object, the second right
// after the first; false when there is none. That an object which came and went
// is not told at all, and one that went and came as changed, is in client-go's
// contract: the states seen are a subsequence of the real ones.
func merge(first, second notification) (notification, bool) {
	switch {
	case first.change == deleted && second.change == added:
		return notification{change: updated, key: first.key, old: last(first.old), new: second.new}, true
	case first.change == updated && second.change == deleted:
		return second, true
	case first.change == added && second.change == deleted && !first.initial:
		return notification{}, true
	case (first.change == added || first.change == updated) && second.change == updated:
		first.new = second.new
		return first, true
	}
	return notification{}, false
}

// last is the object of a delete notification.
func last(obj any) any {
	if unknown, ok := obj.(cache.DeletedFinalStateUnknown); ok {
		return unknown.Obj
	}
	return obj
}

// deliver calls the handler until nothing waits.
func (l *listener) deliver() {
	for {
		batch, ok := l.take()
		if !ok {
			return
		}
		for _, n := range batch {
			if l.isRemoved() {
				break
			}
			l.call(n)
		}
	}
}

// take empties the queue; false when it was empty, and the caller has to return.
func (l *listener) take() ([]notification, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.queue) == 0 || l.removed {
		l.working = false
		l.queue = nil
		if l.removed {
			close(l.gone)
		}
		return nil, false
	}
	batch := l.queue
	l.queue, l.places, l.holes = nil, nil, 0
	return batch, true
}

func (l *listener) isRemoved() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.removed
}

// call tells the handler. A panic of it is reported as upstream does; the process
// goes on when utilruntime.ReallyCrash says so, and the notification counts as
// delivered.
func (l *listener) call(n notification) {
	defer l.delivered(n)
	defer utilruntime.HandleCrash()
	switch n.change {
	case added:
		l.handler.OnAdd(n.new, n.initial)
	case updated:
		l.handler.OnUpdate(n.old, n.new)
	case deleted:
		l.handler.OnDelete(n.old)
	}
}

func (l *listener) delivered(n notification) {
	if n.initial {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.initial--
		l.settle()
	}
}

// remove drops what waits. A call of the handler that is on its way ends later:
// see ShutdownChan.
func (l *listener) remove() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.removed {
		return
	}
	l.removed, l.queue, l.places = true, nil, nil
	if l.timer != nil {
		l.timer.Stop()
	}
	if !l.working {
		close(l.gone)
	}
}

// repeat calls f after the resync period, unless the handler is removed or quiet.
func (l *listener) repeat(f func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.removed && !l.silent {
		l.timer = time.AfterFunc(l.resync, f)
	}
}

// quiet ends resyncs: the informer has stopped.
func (l *listener) quiet() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.silent = true
	if l.timer != nil {
		l.timer.Stop()
	}
}

// HasSynced implements cache.ResourceEventHandlerRegistration.
func (l *listener) HasSynced() bool { return cache.IsDone(l.HasSyncedChecker()) }

// HasSyncedChecker implements cache.ResourceEventHandlerRegistration.
func (l *listener) HasSyncedChecker() cache.DoneChecker { return done{l.name + " handler", l.synced} }

// ShutdownChan is closed when the handler was removed and is not called any more:
// cache.ShutDownEventHandler waits for it.
func (l *listener) ShutdownChan() <-chan struct{} { return l.gone }

// done is a cache.DoneChecker.
type done struct {
	name string
	ch   <-chan struct{}
}

func (d done) Name() string          { return d.name }
func (d done) Done() <-chan struct{} { return d.ch }
