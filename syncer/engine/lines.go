package engine

// lines is the order in which keys are worked on: kinds take turns, and the keys of one
// come in their order. So what a host pod's status brings, or a Service, does not wait
// behind ten thousand pods that are to be made. It implements workqueue.Queue, which
// calls it with a lock held, and puts no key in it twice.
type lines struct {
	keys  map[string][]Key // by kind; no empty ones
	turns []string         // the kinds that have keys, whose turn is next first
	count int
}

func newLines() *lines { return &lines{keys: map[string][]Key{}} }

// Touch implements workqueue.Queue: a key that is queued again keeps its place.
func (l *lines) Touch(Key) {}

// Push implements workqueue.Queue.
func (l *lines) Push(k Key) {
	if len(l.keys[k.Kind]) == 0 {
		l.turns = append(l.turns, k.Kind)
	}
	l.keys[k.Kind] = append(l.keys[k.Kind], k)
	l.count++
}

// Len implements workqueue.Queue.
func (l *lines) Len() int { return l.count }

// Pop implements workqueue.Queue. It is called only when there is a key.
func (l *lines) Pop() Key {
	kind := l.turns[0]
	line := l.keys[kind]
	next := line[0]
	line[0] = Key{} // the array may stay for long; the key's strings need not
	l.turns = append(l.turns[:0], l.turns[1:]...)
	l.count--
	if len(line) == 1 {
		delete(l.keys, kind)
		return next
	}
	l.keys[kind] = line[1:]
	l.turns = append(l.turns, kind)
	return next
}
