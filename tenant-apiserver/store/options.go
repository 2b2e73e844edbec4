package store

import (
	"fmt"
	"time"
)

// MaxKeyBytes is the longest key: bbolt's own limit less the room that the
// index of leases needs beside it.
const MaxKeyBytes = 32<<10 - 64

// Options of Open. The zero value is good for one small tenant.
type Options struct {
	// ID is stamped into a file that has none and must equal the one a file
	// has: it keeps one tenant's file from being opened as another's. Empty:
	// neither stamped nor checked.
	ID string
	// MaxRequestBytes bounds the keys and values of one transaction.
	// 0: 1.5 MiB, what an etcd server accepts, and so what tenants' tools expect.
	MaxRequestBytes int
	// HotBytes bounds the recent events kept in memory for cursors. 0: 256 KiB.
	HotBytes int
	// QuotaBytes bounds the keys and values that the store keeps, their history
	// and a few bytes for each included; the file is larger by what its pages
	// leave empty. 0: no bound. Store.SetQuota changes it.
	QuotaBytes int64
	// Ballast keeps a file beside the store's, path.ballast, that has disk blocks
	// for the time when there are no others: what was acknowledged can then be
	// brought into the file, and deletes go on. It stays when the store is closed
	// and may then be removed.
	Ballast bool
	// SweepSlice is how many log records one compaction step looks at between
	// two groups of writes. 0: 512.
	SweepSlice int
	// NoSync leaves flushing to the kernel. Acknowledged writes are then lost
	// when the machine stops. For tests and for building throw-away files.
	NoSync bool
	// Clock tells the time for leases, and when a checkpoint is due. nil: the
	// machine's.
	Clock Clock

	pace pace
}

// pace says when the log is brought into the file. Tests change it, so that
// small loads meet everything.
type pace struct {
	// layerBytes begin a checkpoint. Larger ones cost less per write: neighbours
	// share pages, and what was replaced meanwhile is not written at all.
	layerBytes int
	// backlogBytes bound the newest layer; above, writers wait for the
	// checkpoint that is running.
	backlogBytes int
	// reserveBytes may be added beyond by deletes and compactions while no
	// checkpoint can be made because the disk is full.
	reserveBytes int
	// segmentBytes are a segment of the log when it begins. 0: 64 KiB.
	segmentBytes int64
	// layerAge is how long a change waits for others before it is brought into
	// the file.
	layerAge time.Duration
	// retry is how long a checkpoint waits for room on a full disk.
	retry time.Duration
	// restAge is how long a store without work keeps a large log.
	restAge time.Duration
	// shrinkBytes are how much of a file has to be free, beside half of it, for it
	// to be rewritten.
	shrinkBytes int64
}

var defaultPace = pace{
	layerBytes: 8 << 20, backlogBytes: 32 << 20, reserveBytes: 4 << 20,
	layerAge: 3 * time.Second, retry: time.Second, restAge: 30 * time.Second, shrinkBytes: 16 << 20,
}

// Clock is the time as leases see it: wall time, because a deadline must mean
// the same after a restart.
type Clock interface {
	Now() time.Time
	// NewTimer returns a channel that gets a value after d, and a function that
	// releases the timer. The function may be called more than once.
	NewTimer(d time.Duration) (fired <-chan time.Time, stop func())
}

type wallClock struct{}

func (wallClock) Now() time.Time { return time.Now() }

func (wallClock) NewTimer(d time.Duration) (<-chan time.Time, func()) {
	t := time.NewTimer(d)
	return t.C, func() { t.Stop() }
}

// withDefaults fills in what is zero.
func (o Options) withDefaults() Options {
	if o.MaxRequestBytes == 0 {
		o.MaxRequestBytes = 3 << 19
	}
	if o.HotBytes == 0 {
		o.HotBytes = 256 << 10
	}
	if o.SweepSlice == 0 {
		o.SweepSlice = 512
	}
	if o.Clock == nil {
		o.Clock = wallClock{}
	}
	if o.pace == (pace{}) {
		o.pace = defaultPace
	}
	if o.pace.segmentBytes == 0 {
		o.pace.segmentBytes = minSegment
	}
	return o
}

func (o Options) validate() error {
	for _, f := range []struct {
		name  string
		value int
	}{{"MaxRequestBytes", o.MaxRequestBytes}, {"HotBytes", o.HotBytes}, {"SweepSlice", o.SweepSlice}} {
		if f.value <= 0 {
			return fmt.Errorf("store: Options.%s must be positive, is %d", f.name, f.value)
		}
	}
	if o.QuotaBytes < 0 {
		return fmt.Errorf("store: Options.QuotaBytes must not be negative, is %d", o.QuotaBytes)
	}
	return nil
}
