package engine

// The turns that kinds have among others.
const (
	// patientTurns is how many turns others have for each of a patient kind.
	patientTurns = 16
	// promptTurns is how many turns prompt kinds have for each of the others.
	promptTurns = 8
)

// lines is the order in which keys are worked on: kinds take turns, and the keys of one
// come in their order. So what a host pod's status brings, or a Service, does not wait
// behind ten thousand pods that are to be made. Prompt kinds have most of the turns:
// they end what was begun. Patient kinds have a turn when no other has keys, or has had
// many. It implements workqueue.Queue, which calls it with a lock held, and puts no key
// in it twice.
type lines struct {
	keys   map[string][]Key // by kind; no empty ones
	turns  []string         // the kinds that have keys, whose turn is next first
	count  int
	sorts  map[string]sort
	passed [3]int // turns of any sort since one of this
}

// sort is how long a kind waits.
type sort int

const (
	ordinary sort = iota
	prompt
	patient
)

func newLines(sorts map[string]sort) *lines {
	return &lines{keys: map[string][]Key{}, sorts: sorts}
}

// choose returns where in turns the next kind is.
func (l *lines) choose() int {
	order := []sort{prompt, ordinary, patient}
	if l.passed[ordinary] >= promptTurns {
		order = []sort{ordinary, prompt, patient}
	}
	if l.passed[patient] >= patientTurns {
		order = []sort{patient, prompt, ordinary}
	}
	for _, s := range order {
		for i, kind := range l.turns {
			if l.sorts[kind] == s {
				return i
			}
		}
	}
	return 0 // never: every kind is of a sort
}

// turn notes that a kind has a turn.
func (l *lines) turn(kind string) {
	for s := range l.passed {
		l.passed[s]++
	}
	l.passed[l.sorts[kind]] = 0
}

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
	at := l.choose()
	kind := l.turns[at]
	l.turn(kind)
	line := l.keys[kind]
	next := line[0]
	line[0] = Key{} // the array may stay for long; the key's strings need not
	l.turns = append(l.turns[:at], l.turns[at+1:]...)
	l.count--
	if len(line) == 1 {
		delete(l.keys, kind)
		return next
	}
	l.keys[kind] = line[1:]
	l.turns = append(l.turns, kind)
	return next
}
