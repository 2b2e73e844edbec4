package store

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	bolt "go.etcd.io/bbolt"
)

// shrinkRetry is how long a file that could not be rewritten is left as it is.
const shrinkRetry = 10 * time.Minute

// shrinkIfWasteful rewrites the file into one without free pages when most of it is
// free, and puts that in its place. It runs at the end of a checkpoint, in its
// goroutine: nobody else writes to the file, so the copy has everything that the
// file has, and groups go on into the log and the newest layer meanwhile. Readers
// keep the file that they have begun to read.
//
// Only a rename whose fate is unknown is an error: a file that cannot be rewritten,
// for lack of room, say, stays as it is.
func (s *Store) shrinkIfWasteful() error {
	now := s.o.Clock.Now()
	if now.Before(s.shrinkAfter) || !s.wasteful() {
		return nil
	}
	smaller, err := s.rewritten()
	if err != nil {
		s.leaveAsIs(now)
		return nil
	}
	fault(faultShrinkCopied)
	if err := os.Rename(shrunkPath(s.path), s.path); err != nil {
		s.leaveAsIs(now)
		return smaller.Close()
	}
	fault(faultShrinkRenamed)
	if !s.o.NoSync {
		if err := syncDir(filepath.Dir(s.path)); err != nil {
			return errors.Join(fmt.Errorf("flush the folder of a smaller file: %w", err), smaller.Close())
		}
	}
	s.replace(smaller)
	fault(faultShrinkKept)
	return nil
}

// leaveAsIs gives up for a while. A copy that cannot be removed now, either, is
// removed by the next one, or by Open.
func (s *Store) leaveAsIs(now time.Time) {
	s.shrinkAfter = now.Add(shrinkRetry)
	_ = os.Remove(shrunkPath(s.path))
}

// emptyFile is about how large a file is that has nothing in it.
const emptyFile = 128 << 10

// wasteful says whether the file is more than twice as large as it would be
// rewritten, and that by much. How large that is depends on how values fill pages,
// and is known after the first time.
func (s *Store) wasteful() bool {
	var size int64
	err := s.readTx(func(tx *bolt.Tx) error { size = tx.Size(); return nil })
	dense := s.emptyBytes() + int64(max(s.density, 1)*float64(s.now.Load().data))
	return err == nil && size > 2*dense && size-dense >= s.o.pace.shrinkBytes
}

// emptyBytes is emptyFile, or less where less is much.
func (s *Store) emptyBytes() int64 { return min(emptyFile, s.o.pace.shrinkBytes) }

// noteDensity keeps how large a file without free pages is.
func (s *Store) noteDensity(dense *bolt.DB) error {
	return dense.View(func(tx *bolt.Tx) error {
		data := snapshot{tables: &tables{tx: tx}}.measure()
		s.density = float64(max(tx.Size()-s.emptyBytes(), 0)) / float64(max(data, 1))
		return nil
	})
}

// rewritten returns a copy of the file beside it, open, locked, checked and on disk.
func (s *Store) rewritten() (*bolt.DB, error) {
	path := shrunkPath(s.path)
	if err := removeIfThere(path); err != nil {
		return nil, err
	}
	var smaller *bolt.DB
	err := guard(func() (err error) {
		file := s.db.Load().DB
		if smaller, err = bolt.Open(path, 0o600, boltOptions(s.o, 0, nil)); err != nil {
			return err
		}
		smaller.AllocSize = allocSize
		if err := bolt.Compact(smaller, file, shrinkTx); err != nil {
			return err
		}
		if err := smaller.View(func(tx *bolt.Tx) error { _, err := checkContents(tx); return err }); err != nil {
			return err
		}
		if err := s.noteDensity(smaller); err != nil {
			return err
		}
		return smaller.Sync()
	})
	if err != nil && smaller != nil {
		return nil, errors.Join(err, smaller.Close())
	}
	return smaller, err
}

// replace makes readers to come use another file, and lets go of the one before when
// the last reader has. Close waits for that.
func (s *Store) replace(with *bolt.DB) {
	before := s.db.Swap(newFile(with))
	before.retire()
	s.retired.Go(func() {
		<-before.unused
		// Everything in it is in the other one: there is nothing to lose.
		_ = before.Close()
	})
}

// file is an open file and how many read it. bbolt lets nobody begin to read while
// Close waits for those who read, so it is closed only when there are none.
type file struct {
	*bolt.DB

	mu      sync.Mutex
	readers int
	retired bool
	unused  chan struct{} // closed once it is retired and nobody reads it
}

func newFile(db *bolt.DB) *file { return &file{DB: db, unused: make(chan struct{})} }

// enter counts a reader, who has to leave. false: there is another file by now.
func (f *file) enter() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.retired {
		f.readers++
	}
	return !f.retired
}

func (f *file) leave() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.readers--; f.retired && f.readers == 0 {
		close(f.unused)
	}
}

// retire lets nobody begin to read any more.
func (f *file) retire() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.retired = true; f.readers == 0 {
		close(f.unused)
	}
}

func shrunkPath(path string) string { return path + ".shrunk" }

func removeIfThere(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove what an earlier run left: %w", err)
	}
	return nil
}
