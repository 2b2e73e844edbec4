package turns

import (
	"testing"
	"time"
)

// breathe says whether one who has computed for so long rests.
func (w *world) breathe(f *Flow, computed time.Duration) bool {
	ctx := f.Paced(w.Context())
	<-time.After(computed)
	before := time.Now()
	Breathe(ctx)
	return time.Since(before) > 0
}

func TestWhoComputesRestsForOthers(t *testing.T) {
	in(t, 2, func(w *world) {
		busy, other := w.Flow(), w.Flow()
		end := w.ask(busy, "busy")
		if w.breathe(busy, 10*Stretch) {
			t.Error("rests, and nobody else is there")
		}
		w.ask(other, "other")()
		if !w.breathe(busy, Stretch) {
			t.Error("does not rest after a stretch, and another has asked just now")
		}
		if w.breathe(busy, Stretch/2) {
			t.Error("rests before the stretch is over")
		}
		if !w.breathe(other, Stretch) {
			t.Error("does not rest for the one that has a turn")
		}
		if w.breathe(busy, Recent) {
			t.Error("rests for one that has not asked for long")
		}
		end()
		Breathe(w.Context()) // of nobody's request
	})
}

// A rest begins the next stretch, and so does one that nobody needed.
func TestStretchesBeginAnew(t *testing.T) {
	in(t, 2, func(w *world) {
		busy, other := w.Flow(), w.Flow()
		ctx := busy.Paced(w.Context())
		rests := func() int {
			n := 0
			for range 10 {
				<-time.After(Stretch / 2)
				before := time.Now()
				Breathe(ctx)
				if time.Since(before) > 0 {
					n++
				}
			}
			return n
		}
		if n := rests(); n != 0 {
			t.Errorf("%d rests alone", n)
		}
		defer w.ask(other, "other")()
		if n := rests(); n != 5 {
			t.Errorf("%d rests in ten times half a stretch, want 5", n)
		}
	})
}

// A rest goes on until the brief turns of others are over, but not for ever, and not for
// turns that may last.
func TestRestsLastAsLongAsBriefTurnsOfOthers(t *testing.T) {
	for name, c := range map[string]struct {
		own, ends bool          // it is a turn of the same flow; it ends soon
		lasts     time.Duration // what it was begun for
		want      time.Duration
	}{
		"it ends":               {ends: true, lasts: Brief, want: 4 * Rest},
		"it does not end":       {lasts: Brief, want: LongestRest},
		"it may last":           {lasts: Brief + 1, want: Rest},
		"it is of its own, too": {own: true, lasts: Brief, want: Rest},
	} {
		t.Run(name, func(t *testing.T) {
			in(t, 2, func(w *world) {
				busy, other := w.Flow(), w.Flow()
				w.ask(other, "other")() // it counts in any case
				ctx := busy.Paced(w.Context())
				<-time.After(Stretch)
				who := other
				if c.own {
					who = busy
				}
				end, err := who.Begin(w.Context(), c.lasts)
				if err != nil {
					t.Fatal(err)
				}
				if c.ends {
					time.AfterFunc(7*Rest/2, end)
				}
				before := time.Now()
				Breathe(ctx)
				if took := time.Since(before); took != c.want {
					t.Errorf("rests for %s, want %s", took, c.want)
				}
				end()
			})
		})
	}
}
