package engine

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"
	"time"

	"sublet.dev/isolation/tenant"
)

// TestTurns: tenants take turns, a burst each, and one that has just begun to wait comes
// before all that have had a turn and wait on, once.
func TestTurns(t *testing.T) {
	s := newTurns[int](1, 3)
	if !s.ask("greedy", 0) {
		t.Fatal("a free place was not given")
	}
	for i := 1; i <= 100; i++ {
		if s.ask("greedy", i) || i <= 7 && s.ask("second", 200+i) {
			t.Fatal("more places than there are")
		}
	}
	var order [][]int
	for turn := 0; len(s.lines) > 0; turn++ {
		if turn == 3 || turn == 4 {
			s.ask("late", 1000+turn)
		}
		var served []int
		for served == nil { // the writes of a burst end one by one
			served = s.back()
		}
		order = append(order, served)
	}
	want := [][]int{{1, 2, 3}, {201, 202, 203}, {4, 5, 6}, {1003}, {204, 205, 206}, {7, 8, 9}, {1004}, {207}, {10, 11, 12}}
	for i := range want {
		if !slices.Equal(order[i], want[i]) {
			t.Fatalf("served %v, and not %v", order[:len(want)], want)
		}
	}
	for s.free < 1 {
		if served := s.back(); len(served) > 0 {
			t.Errorf("%v were served twice", served)
		}
	}
	if n := len(slices.Concat(order...)); n != 109 || len(s.lines)+len(s.fresh)+len(s.waited) != 0 {
		t.Errorf("%d served, %+v left", n, s)
	}
}

// TestTurnsKeepCount plays random requests, ends and departures against a count: no
// place is lost or given twice, a request is served once, in its tenant's order, and
// nothing is left behind.
func TestTurnsKeepCount(t *testing.T) {
	const places, burst = 3, 2
	s := newTurns[int](places, burst)
	waiting, last, busy := map[int]tenant.ID{}, map[tenant.ID]int{}, 0
	random := rand.New(rand.NewPCG(1, 2))
	back := func() {
		busy--
		for _, request := range s.back() {
			who, ok := waiting[request]
			if !ok || request < last[who] {
				t.Fatalf("request %d was served, and did not wait, or behind %d", request, last[who])
			}
			last[who] = request
			delete(waiting, request)
			busy++
		}
	}
	for i := range 20_000 {
		who := tenant.ID(rune('a' + random.IntN(5)))
		switch random.IntN(5) {
		case 0, 1:
			if s.ask(who, i) {
				busy++
			} else {
				waiting[i] = who
			}
		case 2, 3:
			if busy > 0 {
				back()
			}
		default:
			for request, of := range waiting {
				if !s.leave(of, request) {
					t.Fatalf("request %d waited, and was not found", request)
				}
				delete(waiting, request)
				break
			}
		}
		if busy >= places+burst || busy+s.free != places || len(waiting) > 0 && s.free > 0 {
			t.Fatalf("%d busy, %d free, %d waiting", busy, s.free, len(waiting))
		}
	}
	for busy > 0 {
		back()
	}
	if len(waiting)+len(s.lines)+len(s.fresh)+len(s.waited) > 0 {
		t.Errorf("left behind: %v, %+v", waiting, s)
	}
}

// TestBudget: no more writes go on than there are places, reads are not held, and a
// write whose context ends gives up its turn.
func TestBudget(t *testing.T) {
	const places = 2
	var mu sync.Mutex
	var busy, most int
	entered, proceed := make(chan struct{}, 100), make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet {
			return
		}
		mu.Lock()
		busy++
		most = max(most, busy)
		mu.Unlock()
		entered <- struct{}{}
		<-proceed
		mu.Lock()
		busy--
		mu.Unlock()
	}))
	defer server.Close()
	b := NewBudget(places)
	do := func(who tenant.ID, r *http.Request) error {
		client := http.Client{Transport: b.Wrap(who)(http.DefaultTransport)}
		answer, err := client.Do(r)
		if err == nil {
			err = answer.Body.Close()
		}
		return err
	}
	request := func(method string) *http.Request {
		r, err := http.NewRequestWithContext(t.Context(), method, server.URL, nil)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	var group sync.WaitGroup
	for range 10 {
		group.Go(func() {
			if err := do("greedy", request(http.MethodPost)); err != nil {
				t.Error(err)
			}
		})
	}
	for range places {
		<-entered
	}
	if err := do("other", request(http.MethodGet)); err != nil {
		t.Errorf("a read: %v", err)
	}
	late := request(http.MethodPut)
	ctx, cancel := contextOf(late)
	gone := make(chan error, 1)
	go func() { gone <- do("other", late.WithContext(ctx)) }()
	for b.Waiting("other") == 0 {
		select {
		case err := <-gone:
			t.Fatalf("it did not wait: %v", err)
		default:
		}
	}
	cancel()
	if err := <-gone; err == nil {
		t.Error("a write without a place went on")
	}
	close(proceed)
	group.Wait()
	if most != places || b.Waiting("other") != 0 {
		t.Errorf("%d at a time, %d waiting", most, b.Waiting("other"))
	}
}

func contextOf(r *http.Request) (context.Context, context.CancelFunc) {
	return context.WithCancel(r.Context())
}

// panics is a pass that falls over the first time.
type panics struct {
	calls int
	done  chan struct{}
}

func (p *panics) Kind() string { return "Panics" }

func (p *panics) Reconcile(context.Context, tenant.Name) (time.Duration, error) {
	if p.calls++; p.calls == 1 {
		panic("a defect")
	}
	close(p.done)
	return 0, nil
}

// TestPanicIsAnError: it is told, tried again, and ends nothing.
func TestPanicIsAnError(t *testing.T) {
	p := &panics{done: make(chan struct{})}
	told := make(chan error, 10)
	e := New(Config{Passes: []Pass{p}, Logger: slog.New(slog.DiscardHandler), OnError: func(_ Key, err error) { told <- err }})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- e.Run(ctx) }()
	e.Add(Key{Kind: "Panics", Name: tenant.Name{Name: "x"}})
	<-p.done
	if err := <-told; !errors.Is(err, ErrPanic) {
		t.Errorf("told %v", err)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// TestInspect: a key that was inspected is told with its writes, one that was worked
// on because of an event is not, and neither keeps the engine from resting for long.
func TestInspect(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/refused" {
			w.WriteHeader(http.StatusConflict)
		}
	}))
	defer server.Close()
	p := &putter{client: http.Client{Transport: Counted()(http.DefaultTransport)}, base: server.URL, done: make(chan string, 10)}
	told := make(chan int64, 10)
	e := New(Config{Passes: []Pass{p}, Workers: 1, Logger: slog.New(slog.DiscardHandler), OnInspected: func(_ Key, n int64) { told <- n }})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- e.Run(ctx) }()
	key := func(name string) Key { return Key{Kind: "Putter", Name: tenant.Name{Name: name}} }
	e.Inspect(key("written"))
	if n := <-told; n != 1 {
		t.Errorf("%d writes counted", n)
	}
	e.Inspect(key("refused"))
	if n := <-told; n != 0 {
		t.Errorf("%d writes counted that were refused", n)
	}
	e.Add(key("event"))
	for name := ""; name != "event"; name = <-p.done {
	}
	e.Inspect(key("written"))
	if n := <-told; n != 1 {
		t.Errorf("the event was told, or %d writes counted", n)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if s := e.State(key("refused")); s != (State{}) {
		t.Errorf("left behind: %+v", s)
	}
}

// putter is a pass that writes once.
type putter struct {
	client http.Client
	base   string
	done   chan string
}

func (p *putter) Kind() string { return "Putter" }

func (p *putter) Reconcile(ctx context.Context, n tenant.Name) (time.Duration, error) {
	defer func() { p.done <- n.Name }()
	r, err := http.NewRequestWithContext(ctx, http.MethodPut, p.base+"/"+n.Name, nil)
	if err != nil {
		return 0, err
	}
	answer, err := p.client.Do(r)
	if err != nil {
		return 0, err
	}
	return 0, answer.Body.Close()
}

// TestState: what fails says so until it does not.
func TestState(t *testing.T) {
	p := &scripted{make(chan tenant.Name), make(chan answer)}
	e := New(Config{Passes: []Pass{p}, Logger: slog.New(slog.DiscardHandler)})
	ctx, cancel := context.WithCancel(t.Context())
	over := make(chan error, 1)
	go func() { over <- e.Run(ctx) }()
	k := Key{Kind: "Scripted", Name: tenant.Name{Name: "x"}}
	e.Add(k)
	<-p.entered
	if s := e.State(k); !s.Working || s.Queued {
		t.Errorf("while it is worked on: %+v", s)
	}
	p.answers <- answer{err: errors.New("no")}
	<-p.entered // again
	if s := e.State(k); s.Failures != 1 || s.Error != "no" || s.FailedAt.IsZero() {
		t.Errorf("after a failure: %+v", s)
	}
	p.answers <- answer{again: time.Hour}
	ended(t, e)
	if s := e.State(k); s.Failures != 0 || s.Error != "" || s.Due.IsZero() {
		t.Errorf("after a success: %+v", s)
	}
	cancel()
	if err := <-over; err != nil {
		t.Error(err)
	}
}
