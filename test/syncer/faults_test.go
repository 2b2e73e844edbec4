package syncer

import (
	"errors"
	"io"
	"math/rand/v2"
	"net/http"
	"sync"
	"testing"
)

var errDown = errors.New("injected: the host's API is down")

// everyday is the part of the writes to the host that fail in every test, half of them
// after they were carried out: what holds, holds with faults.
const everyday = 0.05

// faults are what goes wrong between the syncer and the host's API.
type faults struct {
	mu     sync.Mutex
	down   bool
	writes float64 // the part of writes that fail, half of them after they were carried out
	random *rand.Rand
	failed int               // requests that failed since set
	lost   int               // writes that failed while others did not, ever
	open   map[*watched]bool // answers that are being read
}

func newFaults() *faults {
	return &faults{writes: everyday, random: rand.New(rand.NewPCG(7, 7)), open: map[*watched]bool{}}
}

// set changes what goes wrong, and cuts what is open when the API goes down.
func (f *faults) set(down bool, writes float64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.down, f.writes, f.failed = down, writes, 0
	if down {
		for w := range f.open {
			_ = w.ReadCloser.Close()
		}
		clear(f.open)
	}
}

// answered has all writes of a test answered: of what is counted, or told once, when a write
// has been carried out, nothing comes if its answer is lost.
func answered(t *testing.T) {
	t.Helper()
	w.faults.set(false, 0)
	t.Cleanup(func() { w.faults.set(false, everyday) })
}

// count returns how many requests failed since set.
func (f *faults) count() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.failed
}

// ever returns how many writes failed while the API was there.
func (f *faults) ever() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.lost
}

// draw says what becomes of a request.
func (f *faults) draw(write bool) (before, after bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.down {
		before = true
	} else if write && f.random.Float64() < f.writes {
		before = f.random.IntN(2) == 0
		after = !before
	}
	if before || after {
		f.failed++
	}
	if !f.down && (before || after) {
		f.lost++
	}
	return before, after
}

func (f *faults) wrap(next http.RoundTripper) http.RoundTripper { return &faulty{f, next} }

type faulty struct {
	faults *faults
	next   http.RoundTripper
}

// RoundTrip implements http.RoundTripper.
func (f *faulty) RoundTrip(r *http.Request) (*http.Response, error) {
	stream := r.Header.Get("Upgrade") != "" // a user's own, who tries again
	before, after := f.faults.draw(r.Method != http.MethodGet && !stream)
	if before {
		if r.Body != nil {
			_ = r.Body.Close()
		}
		return nil, errDown
	}
	answer, err := f.next.RoundTrip(r)
	if err == nil && after { // carried out, but nobody hears of it
		_ = answer.Body.Close()
		return nil, errDown
	}
	if err == nil && answer.StatusCode < http.StatusMultipleChoices && r.Method == http.MethodGet {
		answer.Body = f.faults.watch(answer.Body)
	}
	return answer, err
}

func (f *faults) watch(body io.ReadCloser) io.ReadCloser {
	f.mu.Lock()
	defer f.mu.Unlock()
	w := &watched{body, f}
	f.open[w] = true
	return w
}

// watched is the body of an answer that may be cut.
type watched struct {
	io.ReadCloser
	faults *faults
}

// Close implements io.Closer.
func (w *watched) Close() error {
	w.faults.mu.Lock()
	delete(w.faults.open, w)
	w.faults.mu.Unlock()
	return w.ReadCloser.Close()
}
