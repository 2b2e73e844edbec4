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
	startRoom = 160 << 20
	// leastRoom is the least room, in percent of the memory in use: a collection among
	// a hundred control planes takes as long as several starts, so there has to be one
	// for many of them, and few while somebody's lists keep others waiting. More room costs memory for good: what stays of a start lies
	// among its garbage, so that pages which the garbage was in are not given back.
	leastRoom = 200
	// roomFor is how long the room is kept after a start: several often follow.
	roomFor = 2 * time.Second
	// listRoom is how much garbage may gather while lists compute and other tenants make
	// requests too. Each collection looks through what the cell keeps, and meanwhile
	// Go has requests wait for it, with two processors for up to ten milliseconds.
	listRoom = 256 << 20
)

// room is the process's: starts that overlap share it.
var room struct {
	sync.Mutex
	users  int
	normal int // GOGC, while it is changed
	end    *time.Timer
	listed time.Time // when there was room for a list last, while that is what there is
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
	room.listed = time.Time{}
	live, _ := heap()
	was := debug.SetGCPercent(roomPercent(live))
	if last == nil && room.users == 1 {
		room.normal = was
	}
	return leaveRoom
}

// roomForList puts collecting garbage off for some time, unless it is put off for starts.
func roomForList() {
	room.Lock()
	defer room.Unlock()
	listed := !room.listed.IsZero()
	if room.users > 0 || room.end != nil && !listed || listed && time.Since(room.listed) < roomFor/2 {
		return
	}
	live, gogc := heap()
	if room.end == nil {
		room.normal = gogc
	} else {
		room.end.Stop()
	}
	room.listed = time.Now()
	if percent := listPercent(live, room.normal); percent != gogc {
		debug.SetGCPercent(percent)
	}
	endRoomLater()
}

// setNormalGC changes GOGC; while there is room, what it is afterwards. It returns what
// it was.
func setNormalGC(percent int) (before int) {
	room.Lock()
	defer room.Unlock()
	if room.users > 0 || room.end != nil {
		before, room.normal = room.normal, percent
		return before
	}
	return debug.SetGCPercent(percent)
}

// heap returns how many bytes were in use after the last collection, and GOGC.
func heap() (live uint64, gogc int) {
	s := []metrics.Sample{{Name: "/gc/heap/live:bytes"}, {Name: "/gc/gogc:percent"}}
	metrics.Read(s)
	return s[0].Value.Uint64(), int(s[1].Value.Uint64())
}

// listPercent is GOGC while lists compute, for a heap of so many bytes in use.
func listPercent(live uint64, normal int) int {
	return max(int(100*listRoom/max(live, 1<<20)), leastRoom, normal)
}

// roomPercent is GOGC for a heap of so many bytes in use.
func roomPercent(live uint64) int {
	return max(int(100*startRoom/max(live, 1<<20)), leastRoom)
}

func leaveRoom() {
	room.Lock()
	defer room.Unlock()
	room.users--
	if room.users == 0 {
		endRoomLater()
	}
}

// endRoomLater ends the room if nobody has come for some time. The caller holds its lock.
func endRoomLater() {
	var end *time.Timer
	end = time.AfterFunc(roomFor, func() {
		room.Lock()
		defer room.Unlock()
		if room.end == end { // nobody has come meanwhile
			debug.SetGCPercent(room.normal)
			room.end, room.listed = nil, time.Time{}
		}
	})
	room.end = end
}
