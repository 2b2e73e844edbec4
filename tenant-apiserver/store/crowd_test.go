package store

import (
	"testing"
	"time"
)

// crowded is a writer with a crowd and callers in line, whom nobody answers.
func crowded(size, inLine int, patience time.Duration) *Store {
	s := &Store{queue: make(chan *call, maxQueue)}
	s.crowd = crowd{size: size, until: time.Now().Add(patience)}
	for range inLine {
		s.queue <- &call{}
	}
	return s
}

// TestCrowd waits for callers that come back, and for nobody else.
func TestCrowd(t *testing.T) {
	for _, test := range []struct {
		name               string
		size, inLine, want int
		patience           time.Duration
	}{
		{"one caller", 1, 0, 1, time.Hour},
		{"all in line", 3, 2, 3, time.Hour},
		{"more in line", 3, 5, 6, time.Hour},
		{"too late", 4, 1, 2, 0},
	} {
		s := crowded(test.size, test.inLine, test.patience)
		if got := len(s.gather(&call{})); got != test.want {
			t.Errorf("%s: a group of %d, want %d", test.name, got, test.want)
		}
	}
	s := crowded(5, 1, time.Hour)
	go func() {
		for range 3 {
			s.queue <- &call{}
		}
	}()
	if got := len(s.gather(&call{})); got != 5 || s.crowd.rest != 0 {
		t.Errorf("a group of %d, want those who come back too", got)
	}
	if got := s.gather(nil); len(got) != 0 {
		t.Errorf("a group of %d without a caller", len(got))
	}
	if got := len(s.gather(&call{size: maxGroupBytes})); got != 1 {
		t.Errorf("a group of %d, which was full", got)
	}
}

// TestCrowdGone lets callers stay away: fewer and fewer groups wait for them, until
// they come again.
func TestCrowdGone(t *testing.T) {
	s := crowded(10, 0, time.Hour)
	for _, rest := range []int{2, 4, 8, 16, 32, 64, 64} {
		for s.crowd.rest == 0 { // who comes too late has not waited
			s.crowd.size, s.crowd.until = 10, time.Now().Add(time.Millisecond)
			if got := len(s.gather(&call{})); got != 1 {
				t.Fatalf("a group of %d", got)
			}
		}
		if s.crowd.rest != rest {
			t.Fatalf("%d groups do not wait, want %d", s.crowd.rest, rest)
		}
		s.crowd.until = time.Now().Add(time.Hour)
		for range rest { // would wait for an hour
			s.gather(&call{})
		}
	}
	go func() {
		for range 9 {
			s.queue <- &call{}
		}
	}()
	if got := len(s.gather(&call{})); got != 10 || s.crowd.vain != 0 {
		t.Errorf("a group of %d, %d waits in vain", got, s.crowd.vain)
	}
}

// TestCrowdOfAnswers notes who was there, and waits no longer than a part of a flush.
func TestCrowdOfAnswers(t *testing.T) {
	var c crowd
	c.answering(3, 2, 0)
	if c.size != 5 || !c.until.IsZero() {
		t.Errorf("%+v: nothing was flushed", c)
	}
	before := time.Now()
	c.answering(1, 0, time.Minute)
	if wait := time.Since(before); c.size != 1 || c.until.Before(before) || c.until.After(before.Add(wait+maxPatience)) {
		t.Errorf("%+v", c)
	}
}
