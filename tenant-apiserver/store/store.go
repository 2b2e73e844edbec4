package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"

	bolt "go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
)

// Store is one open file. All its methods may be called at the same time.
type Store struct {
	path string
	o    Options
	db   *bolt.DB
	hub  *hub

	queue    chan *call
	stopping chan struct{} // closed by Close
	stopped  chan struct{} // closed by the writer as it ends
	stopOnce sync.Once
	closeErr error

	failed atomic.Pointer[error] // the first failure of the disk or the file
	broken chan struct{}         // closed once failed is set
	keep   writerState           // the writer goroutine's own
}

// Open opens the file at path and makes it when it is absent; its folder must
// exist. It checks every page and every checksum, which takes some
// milliseconds for a small tenant and a second per GiB.
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
		return "; use the newer release that wrote it, or restore a backup made by this one"
	case errors.Is(err, ErrForeign):
		return "; move it away, or point to the right data directory"
	case errors.Is(err, ErrCorrupt):
		return "; restore it from a backup, and check the disk; do not delete it before it was copied"
	}
	return ""
}

func open(path string, o Options) (*Store, error) {
	db, err := openFile(path, o)
	if err != nil {
		return nil, err
	}
	s := &Store{
		path: path, o: o, db: db,
		queue:    make(chan *call, maxQueue),
		stopping: make(chan struct{}),
		stopped:  make(chan struct{}),
		broken:   make(chan struct{}),
	}
	if err := s.load(); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	go s.write()
	return s, nil
}

// load checks the contents and brings the writer's state into memory.
func (s *Store) load() error {
	var h head
	err := s.readTx(func(tx *bolt.Tx) (err error) {
		if h, err = checkContents(tx); err != nil {
			return err
		}
		if s.o.ID != "" && h.id != "" && h.id != s.o.ID {
			return fmt.Errorf("%w: it belongs to %q, not to %q", ErrForeign, h.id, s.o.ID)
		}
		return nil
	})
	if err != nil {
		return err
	}
	s.hub = newHub(h.rev, h.compacted, s.o.HotBytes)
	return s.adopt(h)
}

// adopt takes over from an earlier run: an unfinished sweep, and the leases.
func (s *Store) adopt(h head) error {
	s.keep.sweeping = h.compacted > 0 && h.swept != pos{rev: h.compacted}
	g := &group{now: s.o.Clock.Now(), keep: s.keep}
	err := s.update(func(tx *bolt.Tx) error {
		if err := g.begin(tx); err != nil {
			return err
		}
		if err := g.clampLeases(); err != nil {
			return err
		}
		if g.head.id == "" && s.o.ID != "" {
			g.head.id, g.dirty = s.o.ID, true
		}
		if first, _ := g.due.Cursor().First(); first != nil {
			g.keep.due = 1 // look at once
		}
		return g.finish()
	})
	if err != nil && !errors.Is(err, errRollback) {
		return err
	}
	s.keep = g.keep
	return nil
}

// checkContents reads every value of every bucket. The head comes first, since
// it says whether the rest can be understood.
func checkContents(tx *bolt.Tx) (head, error) {
	meta := tx.Bucket(bucketMeta)
	if meta == nil {
		return head{}, fmt.Errorf("%w: it is a bbolt file of another program", ErrForeign)
	}
	h, err := readHead(meta)
	if err != nil {
		return head{}, err
	}
	if h.format != format {
		return head{}, fmt.Errorf("%w: %d, this release knows %d", ErrNewerFormat, h.format, format)
	}
	for i, name := range counted {
		if err := checkBucket(tx.Bucket(name), name, h.sizes[i]); err != nil {
			return head{}, err
		}
	}
	if last, _ := tx.Bucket(bucketLog).Cursor().Last(); last != nil {
		if p, err := decodePos(last); err != nil || p.rev > h.rev {
			return head{}, fmt.Errorf("%w: the log is ahead of its head", ErrCorrupt)
		}
	}
	return h, nil
}

// checkBucket wants size good values.
func checkBucket(b *bolt.Bucket, name []byte, size int64) error {
	if b == nil {
		return fmt.Errorf("%w: it has no bucket %s", ErrCorrupt, name)
	}
	n := int64(0)
	err := b.ForEach(func(k, v []byte) error {
		n++
		return checkValue(name, k, v)
	})
	if err == nil && n != size {
		return fmt.Errorf("%w: bucket %s has %d entries of %d", ErrCorrupt, name, n, size)
	}
	return err
}

// checkValue checks the seal and the form of one value.
func checkValue(bucket, key, sealed []byte) error {
	body, err := unseal(bucket, key, sealed)
	if err != nil {
		return err
	}
	switch string(bucket) {
	case string(bucketCur):
		_, err = decodeEntry(body)
	case string(bucketLog):
		_, err = decodeRecord(body)
	case string(bucketLease):
		_, err = decodeLease(body)
	}
	if err != nil {
		return fmt.Errorf("%w: %s/%x: %w", ErrCorrupt, bucket, key, err)
	}
	return nil
}

func readHead(meta *bolt.Bucket) (head, error) {
	sealed := meta.Get(keyHead)
	if sealed == nil {
		return head{}, fmt.Errorf("%w: it is a bbolt file of another program", ErrForeign)
	}
	body, err := unseal(bucketMeta, keyHead, sealed)
	if err != nil {
		return head{}, err
	}
	h, err := decodeHead(body)
	if err != nil {
		return head{}, fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	return h, nil
}

// Close finishes the group being written, refuses what is still queued, ends
// all cursors and closes the file. Further calls return the first one's error.
func (s *Store) Close() error {
	s.stopOnce.Do(func() {
		close(s.stopping)
		<-s.stopped
		s.hub.end(ErrClosed)
		if err := s.db.Close(); err != nil {
			s.closeErr = fmt.Errorf("close store %s: %w", s.path, err)
		}
	})
	return s.closeErr
}

// view runs f on the last committed state.
func (s *Store) view(ctx context.Context, f func(snapshot) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := s.Err(); err != nil {
		return err
	}
	err := s.readTx(func(tx *bolt.Tx) error {
		snap, err := newSnapshot(tx)
		if err != nil {
			return err
		}
		return f(snap)
	})
	if errors.Is(err, ErrCorrupt) {
		return s.fail(err)
	}
	return err
}

// readTx runs f in a read-only transaction of bbolt.
func (s *Store) readTx(f func(*bolt.Tx) error) error {
	err := guard(func() error { return s.db.View(f) })
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
	// Revision is the last one, Compacted the oldest that can be read (0: all).
	Revision, Compacted int64
	// ID is the owner stamped into the file, "" for none.
	ID string
}

// Stats reads the size from the last committed state.
func (s *Store) Stats(ctx context.Context) (Stats, error) {
	var st Stats
	err := s.view(ctx, func(snap snapshot) error {
		st = Stats{FileBytes: snap.tx.Size(), Revision: snap.head.rev, Compacted: snap.head.compacted, ID: snap.head.id}
		return nil
	})
	return st, err
}

// WriteTo writes a store file with the last committed state to w, and returns
// its size. Writers go on meanwhile, but the pages they replace stay in the
// file until it is done. The copy has this store's ID; to start many tenants
// from one file, make it without an ID.
func (s *Store) WriteTo(w io.Writer) (int64, error) {
	var n int64
	err := s.readTx(func(tx *bolt.Tx) (err error) {
		n, err = tx.WriteTo(w)
		return err
	})
	if err != nil {
		return n, fmt.Errorf("copy store %s: %w", s.path, err)
	}
	return n, nil
}
