package store

import (
	"errors"
	"os"
	"path/filepath"
)

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

// The sizes of a segment. It begins small (pace.segmentBytes), grows in few steps
// as load asks for it, and is cut back when the store is idle.
const (
	minSegment  = 64 << 10
	growth      = 8
	steps       = growth * growth / 2 * growth // the largest that growth leads to, in smallest ones: 16 MiB
	segmentStep = 8 << 20                      // from there on
	zeroChunk   = 256 << 10
	flushChunk  = 2 << 20
)

// larger is what a segment of so many bytes grows to.
func (w *wal) larger(room int64) int64 {
	switch most := steps * w.smallest; {
	case room < w.smallest:
		return w.smallest
	case room < most:
		return min(room*growth, most)
	}
	return room + segmentStep
}

// ready makes a segment at least size long, and durably so, its name included.
func (s *segment) ready(size int64, noSync bool) error {
	if s.f == nil {
		if err := s.make(); err != nil {
			return err
		}
	}
	err := s.grow(size, noSync)
	if err == nil && !s.kept && !noSync {
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
// it took. It flushes now and then: others want to flush meanwhile.
func (s *segment) grow(size int64, noSync bool) error {
	if size = (size + 4095) / 4096 * 4096; size <= s.room {
		return nil
	}
	zeros := make([]byte, min(size-s.room, zeroChunk))
	for at := s.room; at < size; at += int64(len(zeros)) {
		if _, err := s.f.WriteAt(zeros[:min(int64(len(zeros)), size-at)], at); err != nil {
			return errors.Join(err, s.f.Truncate(s.room))
		}
		if !noSync && at > s.room && (at-s.room)%flushChunk == 0 {
			if err := fdatasync(s.f); err != nil {
				return &flushError{err}
			}
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
