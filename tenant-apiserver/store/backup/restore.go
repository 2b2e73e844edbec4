package backup

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"sublet.dev/tenant-apiserver/store"
)

// How far a restored store's revisions lie above all that anybody may have seen.
const (
	// jumpKnown is above the last revision of a closed store that could be read.
	jumpKnown = 1_000
	// jumpRunning is above the one of a store that goes on while the new one is
	// being made; Commit refuses when that was not enough.
	jumpRunning = 100_000
	// jumpUnknown is above the backup's own when the old store cannot say how far
	// it came: at a thousand writes in each second, eleven days.
	jumpUnknown = 1_000_000_000
)

// The bounds of one transaction of a restore.
const (
	batchEntries = 256
	batchBytes   = 1 << 20
)

// Target is what to restore into.
type Target struct {
	// Path of the store's file, which nobody has open; it may be absent.
	Path string
	// Tenant is the ID that the backup must be of, and that the new store gets.
	Tenant string
	// Running is the last revision of a store that is still open while Prepare
	// works; 0: the file is closed, and says it itself.
	Running int64
	// Now names what is kept of the old store; zero: the clock's.
	Now time.Time
	// Progress, when set, is told how many keys were restored so far.
	Progress func(entries int64)

	at func(step) // for tests: called at each step
}

// step is a place at which a restore may be interrupted.
type step string

const (
	stepRead   step = "the old store was looked at"
	stepSeed   step = "the new store was begun"
	stepFill   step = "keys were written"
	stepFilled step = "all keys were written"
	stepSynced step = "the new store is on disk"
	stepKept   step = "the old store has its second name"
	stepSwap   step = "the new store has its name"
)

var steps = []step{stepRead, stepSeed, stepFill, stepFilled, stepSynced, stepKept, stepSwap}

func (t Target) reached(s step) {
	if t.at != nil {
		t.at(s)
	}
}

// Result is what a restore did.
type Result struct {
	Header Header `json:"backup"`
	Keys   int64  `json:"keys"`
	// Revision of the restored store.
	Revision int64 `json:"revision"`
	// Before is the last revision of the store that was replaced, 0 when it could
	// not be read; Kept is where it is now, "" when there was none.
	Before int64  `json:"before"`
	Kept   string `json:"kept,omitempty"`
}

// Restore replaces the closed store at t.Path by what a backup holds: [Prepare]
// and [Prepared.Commit].
func Restore(ctx context.Context, r io.Reader, t Target) (Result, error) {
	p, err := Prepare(ctx, r, t)
	if err != nil {
		return Result{}, err
	}
	return p.Commit(ctx)
}

// Prepared is a new store beside the one that it is to replace. It is ended by
// Commit or by Discard, and keeps others from restoring there until then.
type Prepared struct {
	target Target
	tmp    string
	from   int64 // no revision up to it is in the new store
	alone  io.Closer
	result Result
}

// Prepare reads and verifies a whole backup and makes a store of it, complete and
// on disk, beside the one at t.Path, which it does not touch. Errors: those of
// [Reader], ErrOtherTenant, store.ErrInUse.
func Prepare(ctx context.Context, r io.Reader, t Target) (*Prepared, error) {
	p, err := prepare(ctx, r, t)
	if err != nil {
		return nil, fmt.Errorf("restore %s: %w", t.Path, err)
	}
	return p, nil
}

func prepare(ctx context.Context, r io.Reader, t Target) (*Prepared, error) {
	b, err := NewReader(r)
	if err != nil {
		return nil, err
	}
	p := &Prepared{target: t, tmp: t.Path + ".restoring", result: Result{Header: b.Header()}}
	if got := b.Header().Tenant; got != t.Tenant {
		return nil, fmt.Errorf("%w: it is of %q, not of %q", ErrOtherTenant, got, t.Tenant)
	}
	if p.alone, err = store.Hold(filepath.Dir(t.Path)); err != nil {
		return nil, err
	}
	if err := p.make(ctx, b); err != nil {
		return nil, errors.Join(err, p.Discard())
	}
	return p, nil
}

func (p *Prepared) make(ctx context.Context, b *Reader) error {
	last, jump := p.target.Running, int64(jumpRunning)
	if last == 0 {
		var err error
		if last, err = lastRevision(ctx, p.target.Path); err != nil {
			return err
		}
		jump = jumpKnown
	}
	if last == 0 {
		jump = jumpUnknown
	}
	p.from = max(last, b.Header().Revision) + jump
	p.target.reached(stepRead)
	if err := removeIfThere(p.tmp); err != nil {
		return err
	}
	var err error
	p.result.Keys, p.result.Revision, err = fill(ctx, b, p.tmp, p.from, p.target)
	return err
}

// Discard removes what was prepared.
func (p *Prepared) Discard() error {
	return errors.Join(removeIfThere(p.tmp), p.alone.Close())
}

// Commit puts the new store in the old one's place, which must be closed by now
// and is kept beside it; a crash leaves the one or the other. Whatever comes of
// it, nothing prepared is left. Errors: store.ErrInUse, ErrTryAgain when the old
// store went on further than the new one reaches back.
func (p *Prepared) Commit(ctx context.Context) (res Result, err error) {
	defer func() {
		if err = errors.Join(err, p.Discard()); err != nil {
			err = fmt.Errorf("restore %s: %w", p.target.Path, err)
		}
	}()
	last, err := lastRevision(ctx, p.target.Path)
	if err != nil {
		return p.result, err
	}
	if last > p.from {
		return p.result, fmt.Errorf("%w: the old store is at revision %d meanwhile, the new one was to begin after %d", ErrTryAgain, last, p.from)
	}
	old, err := store.Hold(p.target.Path)
	if errors.Is(err, fs.ErrNotExist) {
		old, err = io.NopCloser(nil), nil
	}
	if err != nil {
		return p.result, err
	}
	p.result.Before = last
	p.result.Kept, err = p.target.swap(p.tmp)
	return p.result, errors.Join(err, old.Close())
}

// lastRevision returns that of the closed store at path, or 0 when it cannot say:
// a store that is missing, damaged or another's is why one restores.
func lastRevision(ctx context.Context, path string) (int64, error) {
	if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	} else if err != nil {
		return 0, err
	}
	s, err := store.Open(path, store.Options{})
	switch {
	case errors.Is(err, store.ErrCorrupt), errors.Is(err, store.ErrForeign), errors.Is(err, store.ErrNewerFormat):
		return 0, nil
	case err != nil:
		return 0, err
	}
	st, err := s.Stats(ctx)
	return st.Revision, errors.Join(err, s.Close())
}

func removeIfThere(path string) error {
	files, err := store.LogFiles(path)
	for _, f := range append(files, path) {
		if rmErr := os.Remove(f); !errors.Is(rmErr, fs.ErrNotExist) {
			err = errors.Join(err, rmErr)
		}
	}
	if err != nil {
		return fmt.Errorf("remove what an interrupted restore left: %w", err)
	}
	return nil
}

// fill makes the new store at path and returns how many keys it has, and its
// revision, below which nothing can be asked for.
func fill(ctx context.Context, b *Reader, path string, from int64, t Target) (keys, rev int64, err error) {
	o := store.Options{ID: t.Tenant, NoSync: true, MaxRequestBytes: 2 * maxPayload, Clock: stopped{time.Now()}}
	if err := store.Seed(path, o, from); err != nil {
		return 0, 0, err
	}
	t.reached(stepSeed)
	s, err := store.Open(path, o)
	if err != nil {
		return 0, 0, err
	}
	err = copyAll(ctx, b, s, t)
	if err == nil {
		rev, err = seal(ctx, s)
	}
	if err = errors.Join(err, s.Close()); err != nil {
		return 0, 0, err
	}
	t.reached(stepFilled)
	report, err := store.CheckFile(ctx, path)
	if err != nil {
		return 0, 0, err
	}
	if !report.OK() || report.Keys != b.Footer().Entries {
		return 0, 0, fmt.Errorf("the new store is not what the backup holds (%d keys of %d, %q): the disk may be failing", report.Keys, b.Footer().Entries, report.Problems)
	}
	if err := syncFile(path); err != nil {
		return 0, 0, err
	}
	t.reached(stepSynced)
	return report.Keys, rev, nil
}

// stopped is a clock that stands still: no lease ends while a store is being filled.
type stopped struct{ at time.Time }

func (s stopped) Now() time.Time { return s.at }

func (s stopped) NewTimer(time.Duration) (<-chan time.Time, func()) { return nil, func() {} }

// seal compacts the store up to its last revision: what was in it while it was
// being filled is nobody's past.
func seal(ctx context.Context, s *store.Store) (int64, error) {
	st, err := s.Stats(ctx)
	if err != nil || st.Revision == st.Compacted {
		return st.Revision, err // a backup without keys
	}
	return s.Compact(ctx, st.Revision)
}

// copyAll writes all of a backup to a store.
func copyAll(ctx context.Context, b *Reader, s *store.Store, t Target) error {
	var batch []store.Op
	size, written := 0, int64(0)
	flush := func() error {
		if len(batch) == 0 {
			return nil
		}
		_, err := s.Txn(ctx, store.Txn{Then: batch})
		written += int64(len(batch))
		batch, size = nil, 0
		t.reached(stepFill)
		if t.Progress != nil {
			t.Progress(written)
		}
		return err
	}
	for {
		l, e, err := b.Next()
		switch {
		case errors.Is(err, io.EOF):
			return flush()
		case err != nil:
			return err
		case l != nil:
			if _, err := s.Grant(ctx, l.ID, max(l.Left, 1)); err != nil {
				return fmt.Errorf("lease %d: %w", l.ID, err)
			}
			continue
		}
		batch = append(batch, store.Op{Put: &store.Put{Key: e.Key, Value: e.Value, Lease: e.Lease}})
		if size += len(e.Key) + len(e.Value); len(batch) >= batchEntries || size >= batchBytes {
			if err := flush(); err != nil {
				return err
			}
		}
	}
}

// Look opens the new store, for what only its owner can tell of it, and closes it
// when f returns. f must not change it.
func (p *Prepared) Look(f func(*store.Store) error) error {
	s, err := store.Open(p.tmp, store.Options{ID: p.target.Tenant, Clock: stopped{time.Now()}})
	if err != nil {
		return fmt.Errorf("look into the restored store: %w", err)
	}
	return errors.Join(f(s), s.Close())
}
