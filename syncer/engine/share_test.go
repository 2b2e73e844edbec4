package engine

import (
	"context"
	"errors"
	"log/slog"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"sublet.dev/isolation/tenant"
)

// shared is shares whose time is the test's.
type shared struct {
	*testing.T
	*shares
}

func inShares(t *testing.T, processors int, test func(s shared)) {
	synctest.Test(t, func(t *testing.T) { test(shared{t, newShares(processors)}) })
}

// ask begins a pass, which ends when end is called; begun says whether it has begun.
func (s shared) ask(who tenant.ID) (end func(), begun func() bool) {
	has, ended := false, make(chan struct{})
	go func() {
		over, err := s.begin(context.Background(), who)
		if err != nil {
			s.Error(err)
			return
		}
		has = true
		<-ended
		over()
		over() // what ended twice ended once
	}()
	synctest.Wait()
	return func() { close(ended); synctest.Wait() }, func() bool { synctest.Wait(); return has }
}

func (s shared) left() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.passes) + len(s.waiting)
}

func TestOneAloneSharesNothing(t *testing.T) {
	inShares(t, 2, func(s shared) {
		for range 5 {
			s.writes("one")
			end, begun := s.ask("one")
			if !begun() {
				t.Fatal("it waits, and nobody else writes")
			}
			defer end()
		}
	})
}

// While another writes, a tenant has its part of the processors; what it has more ends
// by itself. As soon as nobody else writes, all that wait begin with the next end.
func TestShares(t *testing.T) {
	inShares(t, 4, func(s shared) {
		s.writes("other")
		end1, begun1 := s.ask("greedy")
		end2, begun2 := s.ask("greedy")
		end3, begun3 := s.ask("greedy")
		end4, begun4 := s.ask("greedy")
		if !begun1() || !begun2() || begun3() || begun4() {
			t.Fatal("not two of four processors")
		}
		endOther, begunOther := s.ask("other")
		if !begunOther() {
			t.Error("the other waits for the greedy one")
		}
		end1()
		if !begun3() || begun4() {
			t.Error("not one for the one that ended")
		}
		<-time.After(lately + 1)
		end5, begun5 := s.ask("greedy")
		if !begun4() || !begun5() {
			t.Error("it waits for one that does not write any more")
		}
		for _, end := range []func(){end2, end3, end4, end5, endOther} {
			end()
		}
		if n := s.left(); n != 0 {
			t.Errorf("%d left behind", n)
		}
	})
}

// Each of many has one place, whatever the others do, and none waits for another's.
func TestManyShareOneEach(t *testing.T) {
	inShares(t, 2, func(s shared) {
		all := []tenant.ID{"a", "b", "c", "d"}
		for _, who := range all {
			s.writes(who)
		}
		for _, who := range all {
			end, begun := s.ask(who)
			defer end()
			end2, begun2 := s.ask(who)
			defer end2()
			if !begun() || begun2() {
				t.Errorf("%s: not one pass", who)
			}
		}
	})
}

// A pass that takes very long keeps its tenant's others waiting for so long only.
func TestLongPassesGiveTheirPlacesBack(t *testing.T) {
	inShares(t, 1, func(s shared) {
		end, begun := s.ask("one")
		if !begun() {
			t.Fatal("it waits for nobody")
		}
		other := time.NewTicker(lately / 2)
		defer other.Stop()
		s.writes("other")
		end2, begun2 := s.ask("one")
		for waited := time.Duration(0); waited < longestTurn-lately; waited += lately / 2 {
			if begun2() {
				t.Fatalf("it began after %s", waited)
			}
			<-other.C
			s.writes("other")
		}
		<-time.After(2 * lately)
		if !begun2() {
			t.Error("it waits for one that hangs")
		}
		end()
		end2()
		if n := s.left(); n != 0 {
			t.Errorf("%d left behind", n)
		}
	})
}

func TestWhoLeavesTheLineLeavesNothing(t *testing.T) {
	inShares(t, 1, func(s shared) {
		s.writes("other")
		end, begun := s.ask("one")
		if !begun() {
			t.Fatal("it waits for nobody")
		}
		ctx, cancel := context.WithCancel(s.Context())
		failed := make(chan error, 1)
		go func() {
			_, err := s.begin(ctx, "one")
			failed <- err
		}()
		synctest.Wait()
		cancel()
		if err := <-failed; !errors.Is(err, context.Canceled) {
			t.Errorf("it began: %v", err)
		}
		end()
		if n := s.left(); n != 0 {
			t.Errorf("%d left behind", n)
		}
	})
}

// TestPassesThatWaitToWriteShareNothing: while others write, a pass that waits for its
// tenant's turn at the host does not keep the next pass of its tenant waiting, so that what
// it has to write is served in one burst.
func TestPassesThatWaitToWriteShareNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := NewBudget(1)
		b.shares.processors = 1
		if err := b.acquire(t.Context(), "other"); err != nil {
			t.Fatal(err)
		}
		b.shares.writes("other")
		proceed := make(chan struct{})
		p := &writing{budget: b, proceed: proceed}
		e := New(Config{Passes: []Pass{p}, Logger: slog.New(slog.DiscardHandler), Budget: b, Tenant: "many"})
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- e.Run(ctx) }()
		for i := range burst {
			e.Add(Key{Kind: p.Kind(), Name: tenant.Name{Name: string(rune('a' + i))}})
		}
		synctest.Wait()
		if n := b.Waiting("many"); n != burst {
			t.Errorf("%d of %d wait for their turn", n, burst)
		}
		b.release()
		synctest.Wait()
		if n := p.writes.Load(); n != burst {
			t.Errorf("%d of %d are served in a turn", n, burst)
		}
		close(proceed)
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

// writing is a pass that writes.
type writing struct {
	budget  *Budget
	proceed chan struct{}
	writes  atomic.Int64
}

func (p *writing) Kind() string { return "Writing" }

func (p *writing) Reconcile(ctx context.Context, _ tenant.Name) (time.Duration, error) {
	return 0, p.budget.Do(ctx, "many", func() error {
		p.writes.Add(1)
		<-p.proceed
		return nil
	})
}
