package server

import (
	"context"
	"net/http"
	"sync"
	"time"
)

// firstAnswer is how long controllers wait for the first answer to a client. Somebody
// often waits for it; what they have to do computes for longer than that takes.
const firstAnswer = 25 * time.Millisecond

// first knows of the first answer.
type first struct {
	once sync.Once
	told chan struct{} // closed with the first answer
}

func newFirst() *first { return &first{told: make(chan struct{})} }

// tell makes a handler whose first answer is told of.
func (f *first) tell(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer f.once.Do(func() { close(f.told) })
		h.ServeHTTP(w, r)
	})
}

// control lets the controllers run once the server is up and somebody has had an answer,
// or for a moment nobody has. It returns then, or when life ends.
func (s *Server) control(life context.Context) {
	select {
	case <-s.up:
	case <-life.Done():
		return
	}
	waited := time.NewTimer(firstAnswer)
	defer waited.Stop()
	select {
	case <-s.first.told:
	case <-waited.C:
	case <-life.Done():
		return
	}
	s.instance.Control()
}
