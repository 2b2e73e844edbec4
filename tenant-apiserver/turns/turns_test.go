package turns

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// world is turns whose time is the test's.
type world struct {
	*testing.T
	*Turns
	begun []string // who began, in order; read after synctest.Wait
}

// in runs a test in a bubble, in which time passes when everything waits.
func in(t *testing.T, processors int, test func(w *world)) {
	synctest.Test(t, func(t *testing.T) { test(&world{T: t, Turns: New(processors)}) })
}

// ask asks for a turn and holds it until end is called.
func (w *world) ask(f *Flow, name string) (end func()) {
	ended := make(chan struct{})
	go func() {
		finish, err := f.Begin(context.Background(), time.Hour)
		if err != nil {
			w.Error(err)
			return
		}
		w.mu.Lock()
		w.begun = append(w.begun, name)
		w.mu.Unlock()
		<-ended
		finish()
	}()
	synctest.Wait()
	return func() { close(ended); synctest.Wait() }
}

// want wants just these to have begun since it was called last.
func (w *world) want(names ...string) {
	w.Helper()
	synctest.Wait()
	if !slices.Equal(w.begun, names) {
		w.Fatalf("%v began, want %v", w.begun, names)
	}
	w.begun = nil
}

func times(n int, name string) []string { return slices.Repeat([]string{name}, n) }

func TestOneAloneHasAllTurns(t *testing.T) {
	in(t, 2, func(w *world) {
		f := w.Flow()
		var ends []func()
		for range 2*Ahead + 3 {
			ends = append(ends, w.ask(f, "x"))
		}
		w.want(times(2*Ahead, "x")...)
		ends[0]()
		w.want("x") // the next of those that wait
		for _, end := range ends[1:] {
			end()
		}
	})
}

// A flow with a long queue gets its part of the turns once another asks, and the other
// waits for none of that queue.
func TestAFloodWaitsForItself(t *testing.T) {
	in(t, 2, func(w *world) {
		flood, quiet := w.Flow(), w.Flow()
		var ends []func()
		for range 20 {
			ends = append(ends, w.ask(flood, "flood"))
		}
		w.want(times(2*Ahead, "flood")...)
		first := w.ask(quiet, "quiet")
		w.want() // all turns are taken
		ends[0]()
		w.want("quiet")
		for _, end := range ends[1 : 2*Ahead-1] {
			end()
		}
		w.want() // the flood has one turn still, its part
		first()
		w.want() // quiet still counts
		second := w.ask(quiet, "quiet")
		w.want("quiet")
		second()
		<-time.After(Recent)
		ends[2*Ahead-1]() // alone again, it has all of them
		w.want(times(2*Ahead, "flood")...)
		for _, end := range ends[2*Ahead:] {
			end()
		}
	})
}

// Who waits only because another has asked of late does not wait for longer.
func TestWhatIsLeftIsGivenLater(t *testing.T) {
	in(t, 1, func(w *world) {
		w.ask(w.Flow(), "once")()
		w.want("once")
		f := w.Flow()
		ends := []func(){w.ask(f, "x"), w.ask(f, "x")}
		w.want("x")
		<-time.After(Recent)
		w.want("x")
		for _, end := range ends {
			end()
		}
	})
}

func TestFreeTurnsGoRound(t *testing.T) {
	in(t, 1, func(w *world) {
		ends := map[string][]func(){}
		for _, name := range []string{"a", "b", "c", "d", "e", "f"} {
			f := w.Flow()
			for range 3 {
				ends[name] = append(ends[name], w.ask(f, name))
			}
		}
		w.want("a", "a", "a", "b") // a was alone, and b came when one was left
		next := func(name string) { ends[name][0](); ends[name] = ends[name][1:] }
		for _, name := range []string{"a", "a", "a", "b", "c", "d", "e", "b", "f", "c", "d", "e"} {
			next(name)
		}
		w.want("c", "d", "e", "b", "f", "c", "d", "e", "b", "f", "c", "d")
		for _, name := range []string{"b", "f", "c", "d", "e", "f"} {
			next(name)
		}
	})
}

func TestATurnEndsWithItsTime(t *testing.T) {
	in(t, 1, func(w *world) {
		f := w.Flow()
		for range Ahead {
			if _, err := f.Begin(w.Context(), time.Second); err != nil {
				w.Fatal(err)
			}
		}
		ctx, cancel := context.WithCancel(w.Context())
		cancel()
		if _, err := f.Begin(ctx, time.Second); !errors.Is(err, context.Canceled) {
			w.Fatalf("error %v", err)
		}
		if len(f.waiting) != 0 {
			w.Error("a turn is wanted that was given up")
		}
		end, err := f.Begin(w.Context(), time.Second) // waits for the time of the others
		if err != nil {
			w.Fatal(err)
		}
		synctest.Wait()
		if f.running != 1 {
			w.Errorf("%d turns, after the time of the others", f.running)
		}
		end()
		end() // only the first counts
		<-time.After(2 * time.Second)
		if f.running != 0 || w.running != 0 {
			w.Errorf("%d turns, after all have ended", w.running)
		}
	})
}

func TestFlowsThatRestCostNothing(t *testing.T) {
	in(t, 1, func(w *world) {
		use := func() {
			end, err := w.Flow().Begin(w.Context(), time.Second)
			if err != nil {
				w.Fatal(err)
			}
			end()
		}
		for range 10 {
			use()
		}
		<-time.After(Recent)
		use()
		if n := len(w.flows); n != 1 {
			w.Errorf("%d flows count, one was used of late", n)
		}
	})
}
