package server

import (
	"context"
	"runtime/debug"
	"testing"
)

func gcPercent() int {
	p := debug.SetGCPercent(100)
	debug.SetGCPercent(p)
	return p
}

// otherwise waits until nobody has room, and makes GOGC lower than anybody would.
func otherwise(t *testing.T) (normal int) {
	t.Helper()
	before := 0
	await(t, "what other tests have started to be over", func(context.Context) (bool, error) {
		room.Lock()
		defer room.Unlock()
		if room.users > 0 || room.end != nil {
			return false, nil
		}
		before = debug.SetGCPercent(10)
		return true, nil
	})
	t.Cleanup(func() { debug.SetGCPercent(before) })
	return 10
}

// Starts that overlap share the room, and afterwards collecting is as it was.
func TestRoomForStarts(t *testing.T) {
	normal := otherwise(t)
	first, second := makeRoom(), makeRoom()
	if p := gcPercent(); p <= normal {
		t.Errorf("GOGC is %d while control planes start", p)
	}
	first()
	third := makeRoom()
	second()
	third()
	if p := gcPercent(); p <= normal {
		t.Errorf("GOGC is %d right after they have", p)
	}
	await(t, "GOGC to be what it was", func(context.Context) (bool, error) { return gcPercent() == normal, nil })
}

// Lists have room for some time. What starts have they leave alone.
func TestRoomForLists(t *testing.T) {
	normal := otherwise(t)
	roomForList()
	if p := gcPercent(); p <= normal || !roomIsForLists() {
		t.Errorf("GOGC is %d while lists compute, for them: %t", p, roomIsForLists())
	}
	leave := makeRoom()
	roomForList()
	if roomIsForLists() {
		t.Error("a list has taken the room of a control plane that starts")
	}
	leave()
	roomForList()
	if roomIsForLists() {
		t.Error("a list has taken the room of a control plane that has just started")
	}
	await(t, "GOGC to be what it was", func(context.Context) (bool, error) { return gcPercent() == normal, nil })
}

func roomIsForLists() bool {
	room.Lock()
	defer room.Unlock()
	return !room.listed.IsZero()
}

// The room is as large however many control planes there are, until it would be little.
func TestRoomIsBounded(t *testing.T) {
	for live, want := range map[uint64]int{32 << 20: 500, 64 << 20: 250, 256 << 20: leastRoom, 1 << 30: leastRoom} {
		if p := roomPercent(live); p != want {
			t.Errorf("GOGC is %d with %d MiB in use, want %d", p, live>>20, want)
		}
	}
	for live, want := range map[uint64]int{32 << 20: 800, 64 << 20: 400, 256 << 20: leastRoom, 1 << 30: leastRoom} {
		if p := listPercent(live, 50); p != want {
			t.Errorf("GOGC is %d while lists compute with %d MiB in use, want %d", p, live>>20, want)
		}
	}
}
