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

// Starts that overlap share the room, and afterwards collecting is as it was.
func TestRoomForStarts(t *testing.T) {
	await(t, "what other tests have started to be over", func(context.Context) (bool, error) {
		room.Lock()
		defer room.Unlock()
		return room.users == 0 && room.end == nil, nil
	})
	before := debug.SetGCPercent(10) // below what there is room for
	defer debug.SetGCPercent(before)
	first, second := makeRoom(), makeRoom()
	if p := gcPercent(); p <= 10 {
		t.Errorf("GOGC is %d while control planes start", p)
	}
	first()
	third := makeRoom()
	second()
	third()
	if p := gcPercent(); p <= 10 {
		t.Errorf("GOGC is %d right after they have", p)
	}
	await(t, "GOGC to be what it was", func(context.Context) (bool, error) { return gcPercent() == 10, nil })
}

// The room is as large however many control planes there are, until it would be little.
func TestRoomIsBounded(t *testing.T) {
	for live, want := range map[uint64]int{32 << 20: 800, 64 << 20: 400, 256 << 20: leastRoom, 1 << 30: leastRoom} {
		if p := roomPercent(live); p != want {
			t.Errorf("GOGC is %d with %d MiB in use, want %d", p, live>>20, want)
		}
	}
}
