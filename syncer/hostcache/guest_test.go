package hostcache

import (
	"errors"
	"runtime"
	"testing"
)

// guest lets a view of a kind in, with a handler.
func guest(t *testing.T, s *Space, h *hosts) (v *View, told *log, leave func()) {
	t.Helper()
	v, told = s.Guest(h.kind()), &log{}
	if _, err := v.AddEventHandler(told); err != nil {
		t.Fatal(err)
	}
	leave, err := s.LetIn(v)
	if err != nil {
		t.Fatal(err)
	}
	return v, told, leave
}

// TestGuest: a view that comes after its space was joined is as the others are, and ends
// before them, or with them.
func TestGuest(t *testing.T) {
	h, c := newHosts(), New()
	h.in("a").Add(object("a", "one"))
	s := c.Space("a")
	always := s.View(h.kind())
	if _, err := s.LetIn(s.Guest(h.kind())); !errors.Is(err, ErrNotJoined) {
		t.Errorf("let in before the space was joined: %v", err)
	}
	leaveSpace := join(t, s)
	eventually(t, "one", func() bool { return names(always) == "1 [a/one]" })
	h.in("a").Delete(object("a", "one"))
	eventually(t, "none", func() bool { return names(always) == "0 []" }) // by the watch: all goroutines have begun
	h.in("a").Add(object("a", "one"))
	eventually(t, "one again", func() bool { return names(always) == "1 [a/one]" })
	before := runtime.NumGoroutine()
	v, told, leave := guest(t, s, h)
	eventually(t, "one for the guest", func() bool { return v.HasSynced() && told.has("add one") })
	if got := c.Stats(); got != (Stats{Namespaces: 1, Watches: 2, Objects: 2}) {
		t.Errorf("with a guest: %+v", got)
	}
	leave()
	leave()
	h.in("a").Add(object("a", "two"))
	eventually(t, "two", func() bool { return names(always) == "2 [a/one a/two]" || names(always) == "2 [a/two a/one]" })
	if !told.has("add one") || c.Stats() != (Stats{Namespaces: 1, Watches: 1, Objects: 2}) {
		t.Errorf("who left was told %v; %+v", told.lines, c.Stats())
	}
	if _, err := v.Hold(t.Context()); !errors.Is(err, ErrNotJoined) {
		t.Errorf("held after it left: %v", err)
	}
	eventually(t, "the end of the guest's goroutines", func() bool { return runtime.NumGoroutine() <= before })

	last, told, leave := guest(t, s, h)
	eventually(t, "the second guest", last.HasSynced)
	leaveSpace()
	h.in("a").Delete(object("a", "one"))
	if last.runs() || len(told.lines) != 2 || c.Stats() != (Stats{}) {
		t.Errorf("after the space was left it was told %v; %+v", told.lines, c.Stats())
	}
	leave()
}

// TestGuestParks: of a guest's kind nothing is watched while there is nothing.
func TestGuestParks(t *testing.T) {
	h, c := newHosts(), New()
	s := c.Space("a")
	join(t, s)
	v, told, leave := guest(t, s, h)
	defer leave()
	eventually(t, "a list", func() bool { return v.HasSynced() && c.Stats().Watches == 0 })
	release, err := v.Hold(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	h.in("a").Add(object("a", "one"))
	eventually(t, "one", func() bool { return told.has("add one") })
	release()
	h.in("a").Delete(object("a", "one"))
	eventually(t, "its end", func() bool { return told.has("add one", "delete one") })
	v.Look()
	eventually(t, "the end of the watch", func() bool { return c.Stats().Watches == 0 })
}
