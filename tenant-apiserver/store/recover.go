package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	bolt "go.etcd.io/bbolt"
)

// recoverWAL opens the log of the store at path, whose file has everything up to
// h, and returns what it holds beyond: a layer and its head. It changes nothing.
//
// The frames must begin where the file ends and go on without a gap. Only one
// group is ever being written, so what follows the last good frame is an
// unacknowledged one, or is from an earlier lap; a good and newer frame anywhere
// behind a bad one is damage.
func recoverWAL(path string, o Options, h head) (*wal, *layer, head, error) {
	w := &wal{line: h.line, noSync: o.NoSync, smallest: o.pace.segmentBytes}
	var frames []frame
	for i, p := range segmentPaths(path) {
		s, found, err := openSegment(p, h)
		if err != nil {
			return nil, nil, head{}, errors.Join(fmt.Errorf("log %s: %w", p, err), w.abandon())
		}
		w.segments[i], frames = s, append(frames, found...)
	}
	if w.segments[1].last > w.segments[0].last {
		slices.Reverse(w.segments[:])
	}
	l := newLayer()
	slices.SortFunc(frames, func(a, b frame) int { return int(a.seq - b.seq) })
	for _, f := range frames {
		var err error
		if f.seq != h.seq+1 {
			err = fmt.Errorf("%w: the log continues with group %d, expected %d", ErrCorrupt, f.seq, h.seq+1)
		} else if h, err = f.replay(l, h); err != nil {
			err = fmt.Errorf("%w: group %d of the log: %w", ErrCorrupt, f.seq, err)
		}
		if err != nil {
			return nil, nil, head{}, errors.Join(err, w.abandon())
		}
	}
	fault(faultRecovered)
	return w, l, h, nil
}

// withLog is what the closed store at path has: its file, and its log over it.
func withLog(path string, tx *bolt.Tx) (snapshot, error) {
	snap, err := newSnapshot(tx)
	if err != nil {
		return snapshot{}, err
	}
	w, beyond, h, err := recoverWAL(path, Options{}, snap.head)
	if err != nil {
		return snapshot{}, err
	}
	snap.head, snap.layers = h, []*layer{beyond}
	snap.data = snap.measure()
	return snap, w.abandon()
}

// LogFiles returns the files of the write-ahead log that lie beside the store at
// path: there are some while it is open, and after a crash until it is opened
// again. They belong to that file alone: whoever moves it has to move them too,
// to the same name with the same endings.
func LogFiles(path string) ([]string, error) {
	var found []string
	for _, p := range segmentPaths(path) {
		if _, err := os.Lstat(p); err == nil {
			found = append(found, p)
		} else if !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
	return found, nil
}

// abandon closes the files of a log that is not going to be used.
func (w *wal) abandon() error {
	var all []error
	for _, s := range w.segments {
		if s != nil && s.f != nil {
			all = append(all, s.f.Close())
		}
	}
	return errors.Join(all...)
}

// openSegment reads the frames of one file that are not in the store's own yet.
func openSegment(path string, h head) (s *segment, beyond []frame, err error) {
	s = &segment{path: path}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return s, nil, nil
	}
	if err != nil {
		return nil, nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.Close())
		}
	}()
	b, err := readSegment(f)
	if err != nil {
		return nil, nil, err
	}
	s.f, s.room = f, int64(len(b))
	if len(b) >= frameHeader {
		if line := binary.BigEndian.Uint64(b); line != 0 && line != h.line {
			return nil, nil, fmt.Errorf("%w: the log belongs to another file", ErrForeign)
		}
	}
	frames := s.parse(b, h.line)
	if err := noneBehind(b[s.end:], h.line, max(s.last, h.seq)); err != nil {
		return nil, nil, err
	}
	for _, f := range frames {
		if f.seq > h.seq {
			beyond = append(beyond, f)
		}
	}
	if len(beyond) == 0 {
		s.end, s.lap, s.last = 0, 0, 0
		return s, nil, nil
	}
	// A crash of the process alone leaves frames that were never flushed; what
	// is served from here on must not go away again.
	s.kept = true
	return s, beyond, errors.Join(fdatasync(f), syncDir(filepath.Dir(path)))
}

func readSegment(f *os.File) ([]byte, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%w: it is not a regular file", ErrForeign)
	}
	b := make([]byte, info.Size())
	n, err := f.ReadAt(b, 0)
	if n < len(b) {
		return nil, err
	}
	return b, nil
}

// parse reads the frames of one lap from the beginning of b, and notes where
// they end.
func (s *segment) parse(b []byte, line uint64) (frames []frame) {
	for {
		f, size, ok := openFrame(b[s.end:], line)
		switch {
		case !ok, s.end == 0 && f.lap != f.seq, s.end > 0 && (f.lap != s.lap || f.seq != s.last+1):
			return frames
		}
		frames = append(frames, f)
		s.lap, s.last, s.end = f.lap, f.seq, s.end+int64(size)
	}
}

// noneBehind wants no frame after seq in b, which begins where reading stopped.
func noneBehind(b []byte, line uint64, seq int64) error {
	for at := 0; at+frameHeader <= len(b); at += frameAlign {
		if binary.BigEndian.Uint64(b[at:]) != line {
			continue
		}
		if f, _, ok := openFrame(b[at:], line); ok && f.seq > seq {
			return fmt.Errorf("%w: group %d of the log cannot be read, group %d behind it can", ErrCorrupt, seq+1, f.seq)
		}
	}
	return nil
}
