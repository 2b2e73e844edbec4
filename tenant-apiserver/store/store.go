package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	bolt "go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
)

// Store is one open file. All its methods may be called at the same time.
type Store struct {
	path string
	o    Options
	db   atomic.Pointer[file] // the goroutine of a checkpoint replaces it
	hub  *hub

	now      atomic.Pointer[state] // what was acknowledged; set by the writer
	applying atomic.Int64          // the file has no group after it
	quota    atomic.Int64          // see Options.QuotaBytes

	queue    chan *call
	stopping chan struct{} // closed by Close
	stopped  chan struct{} // closed by the writer as it ends
	stopOnce sync.Once
	closeErr error

	failed atomic.Pointer[error] // the first failure of the disk or the file
	broken chan struct{}         // closed once failed is set

	// The writer goroutine's own.
	wal   *wal
	keep  writerState
	crowd crowd
	check checkpoint

	// The goroutine of a checkpoint's own.
	shrinkAfter time.Time
	density     float64 // bytes of a file without free pages, for each of entries; 0: not known

	retired sync.WaitGroup // files that were replaced and are still being read
}

// state is everything that was acknowledged: the layers, the newest first and
// never none, over the file. It is never changed.
type state struct {
	head   head
	data   int64 // bytes of all entries: see Options.QuotaBytes
	layers []*layer
}

// over is the state over a transaction of the file that is not ahead of it.
func (st *state) over(tx *bolt.Tx) snapshot {
	return snapshot{tables: &tables{tx: tx, layers: st.layers}, head: st.head, data: st.data}
}

// Open opens the file at path and makes it when it is absent; its folder must
// exist. It checks every page and every checksum, which takes some
// milliseconds for a small tenant and a second per GiB, and takes up what the
// log has beyond the file.
//
// It waits a second for the file's lock. Errors wrap ErrInUse, ErrForeign,
// ErrNewerFormat or ErrCorrupt, and say which file and what to do.
func Open(path string, o Options) (*Store, error) {
	o = o.withDefaults()
	if err := o.validate(); err != nil {
		return nil, err
	}
	s, err := open(path, o)
	if err != nil {
		return nil, fmt.Errorf("open store %s: %w%s", path, err, advice(err))
	}
	return s, nil
}

// advice is the end of an error of Open: what the reader can do about it.
func advice(err error) string {
	switch {
	case errors.Is(err, ErrInUse):
		return "; stop that process, or use another data directory"
	case errors.Is(err, ErrNewerFormat):
		return "; use the newer release that wrote it, or restore a backup made by this one, which keeps this file"
	case errors.Is(err, ErrForeign):
		return "; point to the right data directory, or keep this file under another name and put the right one in its place"
	case errors.Is(err, ErrCorrupt):
		return "; restore a backup with `sublet store restore`, which keeps this file, and check the disk"
	}
	return ""
}

func open(path string, o Options) (*Store, error) {
	db, err := openFile(path, o)
	if err != nil {
		return nil, err
	}
	s := &Store{
		path: path, o: o,
		queue:    make(chan *call, maxQueue),
		stopping: make(chan struct{}),
		stopped:  make(chan struct{}),
		broken:   make(chan struct{}),
	}
	s.quota.Store(o.QuotaBytes)
	s.db.Store(newFile(db))
	if err := s.load(); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	go s.write()
	return s, nil
}

// load checks the contents and brings the writer's state into memory.
func (s *Store) load() error {
	h, data, err := s.checkFile()
	if err != nil {
		return err
	}
	if h.line == 0 {
		if h, err = s.upgrade(); err != nil {
			return fmt.Errorf("take over a file of format %d: %w", formatBefore, err)
		}
	}
	s.applying.Store(h.seq)
	w, beyond, h, err := recoverWAL(s.path, s.o, h)
	if err != nil {
		return err
	}
	s.wal, s.check.applied = w, s.applying.Load()
	if s.o.Ballast {
		if err := w.ballast.open(s.path, w.room(), s.o.Clock.Now()); err != nil {
			return errors.Join(fmt.Errorf("make the ballast: %w", err), w.close(false))
		}
	}
	st := &state{head: h, data: data, layers: []*layer{newLayer()}}
	if !beyond.empty() {
		st.layers = append(st.layers, beyond)
		err = s.readTx(func(tx *bolt.Tx) error { st.data = st.over(tx).measure(); return nil })
		if err != nil {
			return errors.Join(err, w.close(false))
		}
	}
	s.now.Store(st)
	s.hub = newHub(h.rev, h.compacted, s.o.HotBytes)
	if err := s.adopt(); err != nil {
		return errors.Join(err, w.close(false))
	}
	return nil
}

// checkFile reads all that the file has, and counts its bytes.
func (s *Store) checkFile() (h head, data int64, err error) {
	err = s.readTx(func(tx *bolt.Tx) error {
		if h, err = checkContents(tx); err != nil {
			return err
		}
		data = snapshot{tables: &tables{tx: tx}}.measure()
		if s.o.ID != "" && h.id != "" && h.id != s.o.ID {
			return fmt.Errorf("%w: it belongs to %q, not to %q", ErrForeign, h.id, s.o.ID)
		}
		return nil
	})
	return h, data, err
}

// upgrade gives a file of the format before what its head lacks.
func (s *Store) upgrade() (h head, err error) {
	err = s.update(func(tx *bolt.Tx) error {
		if h, err = readHead(tx.Bucket(bucketMeta.name())); err != nil {
			return err
		}
		h.line = newLine()
		return putHead(tx, h)
	})
	return h, err
}

func putHead(tx *bolt.Tx, h head) error {
	return tx.Bucket(bucketMeta.name()).Put(keyHead, seal(bucketMeta, keyHead, h.encode()))
}

// adopt takes over from an earlier run: an unfinished sweep, and the leases.
func (s *Store) adopt() error {
	h := s.now.Load().head
	s.keep.sweeping = h.compacted > 0 && h.swept != pos{rev: h.compacted}
	return s.transact(0, func(g *group) {
		if g.check(g.clampLeases()) {
			return
		}
		if g.head.id == "" && s.o.ID != "" {
			g.changed()
			g.head.id = s.o.ID
		}
		if first, _ := g.cursor(bucketDue).seek(nil); first != nil {
			g.keep.due = 1 // look at once
		}
	})
}

// Close finishes the group being written, refuses what is still queued, ends
// all cursors, brings everything into the file and closes it: a closed store is
// one file. When that fails, an error says so, and what the file lacks stays in
// the log beside it for the next Open. Further calls return the first one's error.
func (s *Store) Close() error {
	s.stopOnce.Do(func() {
		close(s.stopping)
		<-s.stopped
		s.hub.end(ErrClosed)
		s.retired.Wait()
		if err := errors.Join(s.closeErr, s.db.Load().Close()); err != nil {
			s.closeErr = fmt.Errorf("close store %s: %w", s.path, err)
		}
	})
	return s.closeErr
}

// view runs f on what was last acknowledged.
func (s *Store) view(ctx context.Context, f func(snapshot) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := s.Err(); err != nil {
		return err
	}
	err := s.snapshot(f)
	if errors.Is(err, ErrCorrupt) {
		return s.fail(err)
	}
	return err
}

// snapshot runs f on the newest state. The file may be ahead of a state that was
// loaded before it was checkpointed; a newer one is there then.
func (s *Store) snapshot(f func(snapshot) error) error {
	for {
		st := s.now.Load()
		behind := false
		err := s.readTx(func(tx *bolt.Tx) error {
			if behind = s.applying.Load() > st.head.seq; behind {
				return nil
			}
			return f(st.over(tx))
		})
		if !behind {
			return err
		}
	}
}

// readTx runs f in a read-only transaction of the file.
func (s *Store) readTx(f func(*bolt.Tx) error) error {
	file := s.db.Load()
	for !file.enter() { // it was replaced in between
		file = s.db.Load()
	}
	defer file.leave()
	err := guard(func() error { return file.View(f) })
	if errors.Is(err, bolterrors.ErrDatabaseNotOpen) {
		return ErrClosed
	}
	return err
}

// fail puts the store out of service, ends all cursors and returns why. The
// first failure stays.
func (s *Store) fail(cause error) error {
	err := fmt.Errorf("%w: %s: %w", ErrFailed, s.path, cause)
	if s.failed.CompareAndSwap(nil, &err) {
		close(s.broken)
		s.hub.end(err)
	}
	return s.Err()
}

// Err returns what put the store out of service, wrapping ErrFailed, or nil.
func (s *Store) Err() error {
	if p := s.failed.Load(); p != nil {
		return *p
	}
	return nil
}

// Failed is closed when Err returns an error: from then on the store has to be
// closed and opened again to be of use. Close does not close it.
func (s *Store) Failed() <-chan struct{} { return s.broken }

// Stats is how large a store is.
type Stats struct {
	// FileBytes is the size of the file's pages in use or free for use.
	FileBytes int64
	// UsedBytes is what Options.QuotaBytes bounds: keys, values, and history that
	// is not compacted, in the file or not yet.
	UsedBytes int64
	// Revision is the last one, Compacted the oldest that can be read (0: all).
	Revision, Compacted int64
	// ID is the owner stamped into the file, "" for none.
	ID string
}

// Stats reads the size from the last committed state.
func (s *Store) Stats(ctx context.Context) (Stats, error) {
	var st Stats
	err := s.view(ctx, func(snap snapshot) error {
		st = statsOf(snap)
		return nil
	})
	return st, err
}

// WriteTo writes a store file with what was acknowledged before the call to w,
// and returns its size. Writers go on meanwhile, but the pages they replace stay
// in the file until it is done. The copy has this store's ID; to start many
// tenants from one file, make it without an ID. Error: ErrNoSpace when the disk
// has no room to bring everything into the file first.
func (s *Store) WriteTo(w io.Writer) (int64, error) {
	var n int64
	err := s.flush(context.Background())
	if err == nil {
		err = s.readTx(func(tx *bolt.Tx) (err error) {
			n, err = tx.WriteTo(w)
			return err
		})
	}
	if err != nil {
		return n, fmt.Errorf("copy store %s: %w", s.path, err)
	}
	return n, nil
}
