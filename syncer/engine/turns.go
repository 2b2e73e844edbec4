package engine

import (
	"slices"

	"sublet.dev/isolation/tenant"
)

// turns decides who may write next: tenants take turns, and the requests of one are
// served in their order. It is plain state: Budget gives it a lock and its waiters
// channels.
type turns[T comparable] struct {
	free    int               // places that nobody has
	lines   map[tenant.ID][]T // who waits, first come first; no empty ones
	waiting []tenant.ID       // the tenants that have a line, whose turn is next first
}

func newTurns[T comparable](places int) *turns[T] {
	return &turns[T]{free: places, lines: map[tenant.ID][]T{}}
}

// ask says whether a request has a place now; otherwise it waits.
func (t *turns[T]) ask(who tenant.ID, request T) bool {
	if t.free > 0 {
		t.free-- // nobody waits: a place that is given back goes to one who does
		return true
	}
	if len(t.lines[who]) == 0 {
		t.waiting = append(t.waiting, who)
	}
	t.lines[who] = append(t.lines[who], request)
	return false
}

// back takes a place back, and says which request has it now, if one waited. Its
// tenant is the last in turn then.
func (t *turns[T]) back() (next T, ok bool) {
	if len(t.waiting) == 0 {
		t.free++
		return next, false
	}
	who := t.waiting[0]
	line := t.lines[who]
	next = line[0]
	t.waiting = append(t.waiting[:0], t.waiting[1:]...)
	if len(line) == 1 {
		delete(t.lines, who)
		return next, true
	}
	t.lines[who] = line[1:]
	t.waiting = append(t.waiting, who)
	return next, true
}

// leave takes a request out of its line; false when it does not wait (any more).
func (t *turns[T]) leave(who tenant.ID, request T) bool {
	line := t.lines[who]
	at := slices.Index(line, request)
	if at < 0 {
		return false
	}
	if len(line) > 1 {
		t.lines[who] = slices.Delete(slices.Clone(line), at, at+1)
		return true
	}
	delete(t.lines, who)
	t.waiting = slices.DeleteFunc(t.waiting, func(id tenant.ID) bool { return id == who })
	return true
}
