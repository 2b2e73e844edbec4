package engine

import (
	"slices"

	"sublet.dev/isolation/tenant"
)

// turns decides who may write next: tenants take turns, the requests of one are served
// in their order, and in its turn a tenant has a burst of them served at once. A tenant
// that has just begun to wait comes before those that have had a turn and wait on, so
// that the one request of a tenant does not wait for the bursts of all others (RFC 8290
// has flows of packets take turns like that). It is plain state: Budget gives it a lock and
// its waiters channels.
type turns[T comparable] struct {
	free   int               // places that nobody has; fewer than none after a burst that took more than there were
	burst  int               // how many requests are served in a turn, at most
	lines  map[tenant.ID][]T // who waits, first come first; no empty ones
	fresh  []tenant.ID       // who has just begun to wait, whose turn is next first
	waited []tenant.ID       // who has had a turn; also those whose line is empty now, until they would have the next
}

func newTurns[T comparable](places, burst int) *turns[T] {
	return &turns[T]{free: places, burst: burst, lines: map[tenant.ID][]T{}}
}

// ask says whether a request has a place now; otherwise it waits.
func (t *turns[T]) ask(who tenant.ID, request T) bool {
	if t.free > 0 {
		t.free-- // nobody waits: a place that is given back goes to one who does
		return true
	}
	if !slices.Contains(t.fresh, who) && !slices.Contains(t.waited, who) {
		t.fresh = append(t.fresh, who)
	}
	t.lines[who] = append(t.lines[who], request)
	return false
}

// back takes a place back, and says which requests have theirs now.
func (t *turns[T]) back() (served []T) {
	t.free++
	for t.free > 0 && len(t.fresh)+len(t.waited) > 0 {
		some := t.turn()
		t.free -= len(some)
		served = append(served, some...)
	}
	return served
}

// turn gives the next tenant its turn, in which it may turn out that it does not wait any
// more.
func (t *turns[T]) turn() []T {
	list, wasFresh := &t.waited, len(t.fresh) > 0
	if wasFresh {
		list = &t.fresh
	}
	who := (*list)[0]
	*list = slices.Delete(*list, 0, 1)
	line := t.lines[who]
	if wasFresh || len(line) > 0 { // else it has let its turn pass
		t.waited = append(t.waited, who)
	}
	served := min(len(line), t.burst)
	if t.lines[who] = line[served:]; served == len(line) {
		delete(t.lines, who)
	}
	return line[:served]
}

// leave takes a request out of its line; false when it does not wait (any more).
func (t *turns[T]) leave(who tenant.ID, request T) bool {
	line := t.lines[who]
	at := slices.Index(line, request)
	if at < 0 {
		return false
	}
	if t.lines[who] = slices.Delete(slices.Clone(line), at, at+1); len(line) == 1 {
		delete(t.lines, who)
	}
	return true
}
