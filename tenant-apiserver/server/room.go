package server

import (
	"runtime/debug"
	"runtime/metrics"
	"sync"
	"time"
)

const (
	// startRoom is how much garbage may gather while control planes start. One makes
	// some 40 MB of it, and a collection in the middle looks through the memory of
	// all others, which takes longer than the rest of the start.
	startRoom = 256 << 20
	// leastRoom is the least room, in percent of the memory in use: a collection among
	// a hundred control planes takes as long as several starts, so there has to be one
	// for many of them. More room costs memory for good: what stays of a start lies
	// among its garbage, so that pages which the garbage was in are not given back.
	leastRoom = 200
	// roomFor is how long the room is kept after a start: several often follow.
	roomFor = 2 * time.Second
)

// room is the process's: starts that overlap share it.
var room struct {
	sync.Mutex
	users  int
	normal int // GOGC, while it is changed
	end    *time.Timer
}

// makeRoom puts collecting garbage off until leave has been called and some time has
// passed.
func makeRoom() (leave func()) {
	room.Lock()
	defer room.Unlock()
	room.users++
	last := room.end
	if last != nil {
		last.Stop()
		room.end = nil
	}
	live := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	metrics.Read(live)
	was := debug.SetGCPercent(roomPercent(live[0].Value.Uint64()))
	if last == nil && room.users == 1 {
		room.normal = was
	}
	return leaveRoom
}

// roomPercent is GOGC for a heap of so many bytes in use.
func roomPercent(live uint64) int {
	return max(int(100*startRoom/max(live, 1<<20)), leastRoom)
}

func leaveRoom() {
	room.Lock()
	defer room.Unlock()
	room.users--
	if room.users > 0 {
		return
	}
	var end *time.Timer
	end = time.AfterFunc(roomFor, func() {
		room.Lock()
		defer room.Unlock()
		if room.end == end { // nobody has come meanwhile
			debug.SetGCPercent(room.normal)
			room.end = nil
		}
	})
	room.end = end
}
