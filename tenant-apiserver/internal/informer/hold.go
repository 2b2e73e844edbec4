package informer

import "sync"

// holds are the listeners that may not deliver yet.
type holds struct {
	mu   sync.Mutex
	deep int // how many Hold there are
	held []*listener
}

// Hold keeps handlers that are added from now on from being called until release is
// called, for which they then get what is there and all that has changed. Upstream's
// constructors of controllers need it: they add handlers which use fields that they
// set afterwards, and count on informers that have not been started, as they are in
// kube-controller-manager. Handlers that others add meanwhile are held, too.
func (f *Factory) Hold() (release func()) {
	f.holds.mu.Lock()
	f.holds.deep++
	f.holds.mu.Unlock()
	return sync.OnceFunc(f.holds.release)
}

// add holds a listener that nobody knows yet, if others are held.
func (h *holds) add(l *listener) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.deep > 0 {
		l.held = true
		h.held = append(h.held, l)
	}
}

func (h *holds) release() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.deep--; h.deep > 0 {
		return
	}
	for _, l := range h.held {
		l.release()
	}
	h.held = nil
}
