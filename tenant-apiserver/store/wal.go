package store

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// wal is the write-ahead log: two files beside the store's own, of which one is
// written to while what the other holds is brought into the file. It belongs to
// the writer goroutine.
type wal struct {
	line     uint64
	noSync   bool
	flushed  time.Duration // how long the last flush took
	smallest int64         // see pace.segmentBytes
	ballast  ballast
	segments [2]*segment // the first is being written to
	next     *preparation
	tried    bool // and there was no room for another
}

// segmentPaths are the files of the log of the store at path.
func segmentPaths(path string) [2]string { return [2]string{path + ".wal0", path + ".wal1"} }

// append writes a frame and returns when it is on disk. The file has all groups
// up to applied. An error that isNoSpace leaves the log as it was; after any other
// the end of the log is unknown.
func (w *wal) append(applied, seq int64, buf []byte) error {
	s, err := w.place(applied, int64(frameSize(len(buf))))
	if err != nil {
		return fmt.Errorf("make room in the log: %w", err)
	}
	lap := s.lap
	if s.end == 0 {
		lap = seq
	}
	buf = sealFrame(buf, w.line, lap, seq)
	end := s.end + int64(len(buf))
	if _, err := s.f.WriteAt(buf, s.end); err != nil {
		return fmt.Errorf("write the log: %w", err)
	}
	fault(faultFrameWritten)
	if !w.noSync {
		began := time.Now()
		if err := fdatasync(s.f); err != nil {
			return &flushError{err}
		}
		w.flushed = time.Since(began)
	}
	fault(faultFrameFlushed)
	s.lap, s.end, s.last = lap, end, seq
	return nil
}

// flushError is a failed flush: what is on disk is unknown, even when the reason
// is a full disk.
type flushError struct{ error }

func (e *flushError) Error() string { return "flush the log: " + e.error.Error() }

// fdatasync flushes a file's bytes, and its size if it grew.
func fdatasync(f *os.File) error {
	for {
		if err := syscall.Fdatasync(int(f.Fd())); !errors.Is(err, syscall.EINTR) {
			return err
		}
	}
}

// place returns the segment that a frame of size bytes goes to, with the room for
// it: the one in use or, when that is full, the other one if it is prepared. Only
// if it is not, the one in use grows while writers wait.
func (w *wal) place(applied, size int64) (*segment, error) {
	if s := w.segments[0]; s.end > 0 && s.end+size > s.room {
		if err := w.settle(true); err != nil {
			return nil, err
		}
		if other := w.segments[1]; other.last <= applied && other.kept && other.room >= max(size, s.room) {
			fault(faultSegmentFull)
			w.rotate(applied)
		}
	}
	s := w.segments[0]
	return s, w.reserve(s, s.end+size)
}

// reserve makes a segment at least size long, and durably so, with the ballast
// that goes with it.
func (w *wal) reserve(s *segment, size int64) error {
	if size <= s.room && s.kept {
		return nil
	}
	best := max(size, s.room)
	if to := w.larger(s.room); size > s.room && w.roomy(to-s.room) {
		best = max(size, to)
	}
	var err error
	for _, to := range [...]int64{best, size} { // on a full disk no more than needed
		if err = w.ballast.hold(w.room() + to - s.room); err == nil {
			err = s.ready(to, w.noSync)
		}
		if !isNoSpace(err) {
			return err
		}
	}
	return err
}

// spare is how many times as much as it takes a disk has to have for the log to take
// more than it needs at once: the file has to grow too.
const spare = 4

// roomy says whether the disk has room to spare for so many bytes more of the log.
func (w *wal) roomy(more int64) bool {
	var fs syscall.Statfs_t
	err := syscall.Statfs(filepath.Dir(w.segments[0].path), &fs)
	return err == nil && int64(fs.Bavail)*fs.Bsize/spare >= more+ballastFor(more)
}

// room is how much the segments hold, or will.
func (w *wal) room() int64 {
	n := w.segments[0].room + w.segments[1].room
	if w.next != nil {
		n += w.next.to - w.segments[1].room
	}
	return n
}

// rotate goes on in the other segment, when the file has everything up to applied
// and so all that it holds, and nobody is preparing it.
func (w *wal) rotate(applied int64) {
	other := w.segments[1]
	if w.next != nil || other.last > applied || w.segments[0].end == 0 {
		return
	}
	fault(faultRotate)
	other.end = 0
	w.segments[0], w.segments[1] = other, w.segments[0]
	w.tried = false
	fault(faultRotated)
}

// free makes both segments empty. The file must have all that they hold.
func (w *wal) free() {
	fault(faultSegmentFree)
	for _, s := range w.segments {
		s.end = 0
	}
}

// large says whether there is more of the log than an idle store needs.
func (w *wal) large() bool { return w.room() > 2*w.smallest }

// shrink cuts empty segments to what an idle store needs.
func (w *wal) shrink() error {
	if err := w.settle(true); err != nil {
		return fmt.Errorf("prepare the log: %w", err)
	}
	for _, s := range w.segments {
		if s.room <= w.smallest {
			continue
		}
		if err := s.f.Truncate(w.smallest); err != nil {
			return fmt.Errorf("cut the log: %w", err)
		}
		s.room = w.smallest
	}
	fault(faultSegmentShrunk)
	return w.ballast.cut(w.room())
}

// close lets go of the files, and removes them when the store's own has all. It
// waits for who prepares one of them.
func (w *wal) close(remove bool) error {
	all := []error{w.settle(true)}
	gone := false
	for _, s := range w.segments {
		if s.f == nil {
			continue
		}
		all = append(all, s.f.Close())
		if s.f = nil; remove {
			all, gone = append(all, os.Remove(s.path)), true
			fault(faultCloseSegmentGone)
		}
	}
	if remove {
		all = append(all, w.ballast.cut(0))
	}
	if gone && !w.noSync {
		all = append(all, syncDir(filepath.Dir(w.segments[0].path)))
	}
	return errors.Join(all...)
}

// orphaned says whether there is a log beside a store that is not there.
func orphaned(path string) error {
	for _, p := range segmentPaths(path) {
		info, err := os.Stat(p)
		if err == nil && info.Size() > 0 {
			return fmt.Errorf("%w: it is gone, and its log %s is not", ErrCorrupt, p)
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}
