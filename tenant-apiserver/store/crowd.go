package store

import (
	"runtime"
	"time"
)

// Callers that write again as soon as they are answered fall into two halves, of
// which one is always in line when the other is answered: a group then has half of
// them, and each waits for two flushes. So the writer gives those that it has just
// answered a moment to come back, before it takes what is in line: a quarter of
// what the last flush took, from their answers on, and no longer than until all are
// there. One caller alone is never waited for, nor anybody who comes later. Where
// they do not come back, as most callers do not, the next 2, 4, 8 ... 64 groups do
// not wait.
type crowd struct {
	size  int       // callers there were when the last group was answered
	until time.Time // when waiting for them ends
	vain  int       // waits in a row for those who did not come
	rest  int       // groups that do not wait
}

const (
	// patience is the part of a flush that is waited, and maxPatience the most.
	patience    = 4
	maxPatience = time.Millisecond
	// maxVain bounds the groups without a wait: 2 to its power.
	maxVain = 6
)

// answering is called as a group is going to be answered, with its callers, those in
// line, and what its flush took.
func (c *crowd) answering(callers, inLine int, flush time.Duration) {
	c.size, c.until = callers+inLine, time.Time{}
	if flush > 0 {
		c.until = time.Now().Add(min(flush/patience, maxPatience))
	}
}

// gather takes what is in line beside the first, within the bounds of a group, and
// waits for the crowd.
func (s *Store) gather(first *call) []*call {
	var calls []*call
	if first != nil {
		calls = []*call{first}
	}
	calls, full := s.take(calls)
	c := &s.crowd
	missing := c.size - len(calls)
	if first == nil || full || missing <= 0 || !time.Now().Before(c.until) {
		return calls
	}
	if c.rest > 0 {
		c.rest--
		return calls
	}
	for !full && len(calls) < c.size && time.Now().Before(c.until) {
		runtime.Gosched() // timers are too coarse
		calls, full = s.take(calls)
	}
	c.waited(missing, c.size-len(calls))
	return calls
}

// waited notes how many were waited for, and how many of them did not come.
func (c *crowd) waited(missing, still int) {
	if still <= missing/2 {
		c.vain = 0
		return
	}
	c.vain = min(c.vain+1, maxVain)
	c.rest = 1 << c.vain
}

// take adds what is in line, until the group is full.
func (s *Store) take(calls []*call) (more []*call, full bool) {
	size := 0
	for _, c := range calls {
		size += c.size
	}
	for len(calls) < maxGroup && size < maxGroupBytes {
		select {
		case c := <-s.queue:
			calls, size = append(calls, c), size+c.size
		default:
			return calls, false
		}
	}
	return calls, true
}
