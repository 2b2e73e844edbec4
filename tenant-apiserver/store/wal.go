package store

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// The sizes of a segment. It begins small, grows as load asks for it, in few
// steps because writers wait meanwhile, and is cut back when the store is idle.
const (
	minSegment  = 64 << 10
	segmentStep = 8 << 20
	zeroChunk   = 256 << 10
)

// nextRoom is what a segment of so many bytes grows to.
func nextRoom(room int64) int64 {
	switch {
	case room < minSegment:
		return minSegment
	case room < segmentStep/8:
		return segmentStep / 8
	case room < segmentStep:
		return segmentStep
	}
	return room + segmentStep
}

// wal is the write-ahead log: two files beside the store's own, of which one is
// written to while what the other holds is brought into the file. It belongs to
// the writer goroutine.
type wal struct {
	line     uint64
	noSync   bool
	ballast  ballast
	segments [2]*segment // the first is being written to
}

// segment is one file of the log: frames, the first at 0, each directly behind
// the one before. It is filled with zeros beforehand and then written over and
// over, so that a flush has no metadata to write and room is known to be there.
type segment struct {
	path string
	f    *os.File // nil: there is no file yet
	kept bool     // the file's name is on disk too
	room int64    // the size of the file
	lap  int64    // seq of the first frame
	end  int64    // of the last frame; 0: none
	last int64    // seq of the last frame
}

// segmentPaths are the files of the log of the store at path.
func segmentPaths(path string) [2]string { return [2]string{path + ".wal0", path + ".wal1"} }

// append writes a frame and returns when it is on disk. An error that isNoSpace
// leaves the log as it was; after any other the end of the log is unknown.
func (w *wal) append(seq int64, buf []byte) error {
	s := w.segments[0]
	lap := s.lap
	if s.end == 0 {
		lap = seq
	}
	buf = sealFrame(buf, w.line, lap, seq)
	end := s.end + int64(len(buf))
	if err := w.reserve(s, end); err != nil {
		return fmt.Errorf("make room in the log: %w", err)
	}
	if _, err := s.f.WriteAt(buf, s.end); err != nil {
		return fmt.Errorf("write the log: %w", err)
	}
	fault(faultFrameWritten)
	if !w.noSync {
		if err := fdatasync(s.f); err != nil {
			return &flushError{err}
		}
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

// room is how much the segments hold.
func (w *wal) room() int64 { return w.segments[0].room + w.segments[1].room }

// reserve makes a segment at least size long, and durably so, with the ballast
// that goes with it.
func (w *wal) reserve(s *segment, size int64) error {
	if size <= s.room && s.kept {
		return nil
	}
	if s.f == nil {
		if err := s.make(); err != nil {
			return err
		}
	}
	var err error
	for _, to := range [...]int64{max(size, nextRoom(s.room)), size} { // on a full disk no more than needed
		if err = w.ballast.hold(w.room() + to - s.room); err == nil {
			err = s.grow(to, w.noSync)
		}
		if !isNoSpace(err) {
			break
		}
	}
	if err == nil && !s.kept && !w.noSync {
		err = syncDir(filepath.Dir(s.path))
	}
	if err == nil {
		s.kept = true
		fault(faultSegmentReady)
	}
	return err
}

func (s *segment) make() error {
	f, err := os.OpenFile(s.path, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	fault(faultSegmentMade)
	s.f, s.room = f, 0
	return nil
}

// grow fills the file up to size with zeros; when it cannot it gives back what
// it took.
func (s *segment) grow(size int64, noSync bool) error {
	if size = (size + 4095) / 4096 * 4096; size <= s.room {
		return nil
	}
	zeros := make([]byte, min(size-s.room, zeroChunk))
	for at := s.room; at < size; at += int64(len(zeros)) {
		if _, err := s.f.WriteAt(zeros[:min(int64(len(zeros)), size-at)], at); err != nil {
			return errors.Join(err, s.f.Truncate(s.room))
		}
	}
	fault(faultSegmentFilled)
	if !noSync {
		if err := s.f.Sync(); err != nil {
			return &flushError{err}
		}
	}
	fault(faultSegmentFlushed)
	s.room = size
	return nil
}

// rotate goes on in the other segment, when the file has everything up to seq
// and so all that it holds.
func (w *wal) rotate(seq int64) {
	if other := w.segments[1]; other.last <= seq && w.segments[0].end > 0 {
		fault(faultRotate)
		other.end = 0
		w.segments[0], w.segments[1] = other, w.segments[0]
		fault(faultRotated)
	}
}

// free makes both segments empty. The file must have all that they hold.
func (w *wal) free() {
	fault(faultSegmentFree)
	for _, s := range w.segments {
		s.end = 0
	}
}

// shrink cuts empty segments to what an idle store needs.
func (w *wal) shrink() error {
	for _, s := range w.segments {
		if s.room <= minSegment {
			continue
		}
		if err := s.f.Truncate(minSegment); err != nil {
			return fmt.Errorf("cut the log: %w", err)
		}
		s.room = minSegment
	}
	fault(faultSegmentShrunk)
	return w.ballast.cut(w.room())
}

// close lets go of the files, and removes them when the store's own has all.
func (w *wal) close(remove bool) error {
	var all []error
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
