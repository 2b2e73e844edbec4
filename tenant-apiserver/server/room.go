package server

import (
	"runtime/debug"
	"runtime/metrics"
	"sync"
	"time"
)

const (
	// startRoom is how much garbage may gather while control planes start. One makes
	// some 50 MB of it, and a collection in the middle looks through the memory of
	// all others, which takes longer than the rest of the start.
	startRoom = 256 << 20
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
	if room.end != nil {
		room.end.Stop()
		room.end = nil
	} else if room.users == 1 {
		live := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
		metrics.Read(live)
		percent := int(100 * startRoom / max(live[0].Value.Uint64(), 1<<20))
		room.normal = debug.SetGCPercent(percent)
		if room.normal < 0 || room.normal > percent {
			debug.SetGCPercent(room.normal)
		}
	}
	return leaveRoom
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
