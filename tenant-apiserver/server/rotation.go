package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// rotationPace is how fast a rotation goes.
type rotationPace struct {
	// page is how many values are read at a time, and pause the time between two.
	page  int64
	pause time.Duration
	// settle is how long writes may take that were encrypted before the new key was
	// in use: longer than any request of upstream's.
	settle time.Duration
	// poll is how often a rotation looks whether the history has been compacted;
	// retry is how soon one that failed is tried again.
	poll, retry time.Duration
}

func (p rotationPace) withDefaults() rotationPace {
	if p == (rotationPace{}) {
		p = rotationPace{page: 50, pause: 50 * time.Millisecond, settle: 2 * time.Minute, poll: 5 * time.Second, retry: 10 * time.Second}
	}
	return p
}

// Steps of a rotation, in KeyStatus.
const (
	StepRewriting = "rewriting the objects"
	StepHistory   = "waiting until the history under the old key is compacted"
)

// KeyStatus says with which keys a store is encrypted.
type KeyStatus struct {
	// InUse is the key of new values, Keys those that values are read with.
	InUse string   `json:"inUse"`
	Keys  []string `json:"keys"`
	// Plaintext says that values are read, too, that are not encrypted.
	Plaintext bool `json:"plaintext,omitempty"`
	// Step is what a rotation does now; empty: none is going on.
	Step string `json:"step,omitempty"`
	// Rewritten counts the values that this rotation rewrote.
	Rewritten int64 `json:"rewritten,omitempty"`
	// Error is why the rotation does not get on. It is tried again.
	Error string `json:"error,omitempty"`
}

// ErrNotEncrypted is returned by RotateKey when values are stored as they are.
var ErrNotEncrypted = errors.New("the store is not encrypted")

// ErrRotating is returned by RotateKey while another rotation goes on.
var ErrRotating = errors.New("a rotation of the key is going on")

// rotation rewrites the values of a store that are not under the newest key, and then
// drops the other keys. What it has to do follows from the keys' file alone, so it
// goes on where a crash stopped it.
type rotation struct {
	st   *storage
	pace rotationPace
	log  *slog.Logger
	wake chan struct{} // has a value when there may be work

	mu     sync.Mutex
	status KeyStatus // Step, Rewritten, Error
}

func newRotation(st *storage, pace rotationPace, log *slog.Logger) *rotation {
	return &rotation{st: st, pace: pace.withDefaults(), log: log, wake: make(chan struct{}, 1)}
}

// start makes a new key and lets run do the rest.
func (r *rotation) start(ctx context.Context) error {
	if r.st.ring == nil {
		return ErrNotEncrypted
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.st.ring.Unfinished() {
		return ErrRotating
	}
	if err := r.st.ring.Rewrap(ctx); err != nil {
		return err
	}
	if _, err := r.st.ring.Add(ctx); err != nil {
		return err
	}
	r.status = KeyStatus{Step: StepRewriting}
	select {
	case r.wake <- struct{}{}:
	default: // it has not looked since the last time
	}
	return nil
}

func (r *rotation) get() KeyStatus {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.status
	if ring := r.st.ring; ring != nil {
		s.InUse, s.Keys, s.Plaintext = ring.InUse(), ring.IDs(), ring.Plaintext()
	}
	return s
}

func (r *rotation) set(change func(*KeyStatus)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	change(&r.status)
}

// run rotates whenever there is something to do, until ctx ends.
func (r *rotation) run(ctx context.Context) {
	if r.st.ring == nil {
		return
	}
	for ctx.Err() == nil {
		if r.st.ring.Unfinished() {
			if err := r.rotate(ctx); err != nil && ctx.Err() == nil {
				r.log.Error("the rotation of the encryption key does not get on", "error", err, "retry", r.pace.retry)
				r.set(func(s *KeyStatus) { s.Error = err.Error() })
				pause(ctx, r.pace.retry)
			}
			continue
		}
		select {
		case <-r.wake:
		case <-ctx.Done():
		}
	}
}

// rotate does one rotation, from wherever it stands.
func (r *rotation) rotate(ctx context.Context) error {
	ring := r.st.ring
	if err := r.st.writeMarks(ctx); err != nil {
		return err
	}
	if newest := ring.IDs()[len(ring.IDs())-1]; ring.InUse() != newest {
		if err := ring.Use(newest); err != nil {
			return err
		}
	}
	r.log.Info("rewriting all values under the newest key", "key", ring.InUse())
	since := time.Now()
	for clean := false; !clean; {
		revision, err := r.rewriteAll(ctx)
		if err != nil {
			return err
		}
		if err := r.outlive(ctx, revision, since); err != nil {
			return err
		}
		// A write that was under way then may have come since.
		found, _, err := r.pass(ctx)
		if err != nil {
			return err
		}
		clean = found == 0
	}
	if err := r.st.removeMarks(ctx); err != nil {
		return err
	}
	if err := ring.Drop(); err != nil {
		return err
	}
	r.set(func(s *KeyStatus) { s.Step, s.Error = "", "" })
	r.log.Info("all values are under the newest key, and the others are dropped", "key", ring.InUse())
	return nil
}

// rewriteAll makes passes until one finds nothing, and returns its revision.
func (r *rotation) rewriteAll(ctx context.Context) (revision int64, err error) {
	r.set(func(s *KeyStatus) { s.Step = StepRewriting })
	for {
		found, revision, err := r.pass(ctx)
		if err != nil || found == 0 {
			return revision, err
		}
	}
}

// outlive waits until no write is under way that began before since, and what the
// store was before a revision cannot be read any more.
func (r *rotation) outlive(ctx context.Context, revision int64, since time.Time) error {
	r.set(func(s *KeyStatus) { s.Step, s.Error = StepHistory, "" })
	for time.Since(since) < r.pace.settle || !r.compacted(ctx, revision) {
		pause(ctx, r.pace.poll)
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	return nil
}

// pass rewrites the stale values. It returns how many it found, and a revision at
// which it had seen all.
func (r *rotation) pass(ctx context.Context) (found int, revision int64, err error) {
	for _, prefix := range []string{"/registry/", bootstrapKey} {
		end := clientv3.GetPrefixRangeEnd(prefix)
		for key := prefix; ; {
			page, err := r.st.client().KV.Get(ctx, key, clientv3.WithRange(end), clientv3.WithLimit(r.pace.page))
			if err != nil {
				return found, 0, fmt.Errorf("read the values: %w", err)
			}
			n, err := r.rewrite(ctx, page.Kvs)
			found += n
			if err != nil {
				return found, 0, err
			}
			revision = max(revision, page.Header.Revision)
			if !page.More {
				break
			}
			key = string(page.Kvs[len(page.Kvs)-1].Key) + "\x00"
			pause(ctx, r.pace.pause)
		}
	}
	return found, revision, ctx.Err()
}

// rewrite rewrites the stale ones of some values, unless they changed meanwhile.
func (r *rotation) rewrite(ctx context.Context, kvs []*mvccpb.KeyValue) (found int, err error) {
	for _, kv := range kvs {
		if !r.st.ring.Stale(kv.Value) {
			continue
		}
		found++
		plain, err := r.st.unseal(ctx, kv)
		if err != nil {
			return found, err
		}
		key := string(kv.Key)
		sealed, err := r.st.seal(ctx, key, plain)
		if err != nil {
			return found, err
		}
		same := clientv3.Compare(clientv3.ModRevision(key), "=", kv.ModRevision)
		put := clientv3.OpPut(key, sealed, clientv3.WithLease(clientv3.LeaseID(kv.Lease)))
		if _, err := r.st.client().KV.Txn(ctx).If(same).Then(put).Commit(); err != nil {
			return found, fmt.Errorf("rewrite %s: %w", key, err)
		}
		r.set(func(s *KeyStatus) { s.Rewritten++ })
	}
	return found, nil
}

// compacted says whether nothing older than a revision can be read any more.
func (r *rotation) compacted(ctx context.Context, revision int64) bool {
	_, err := r.st.client().KV.Get(ctx, bootstrapKey, clientv3.WithRev(revision-1), clientv3.WithKeysOnly())
	return errors.Is(err, rpctypes.ErrCompacted)
}

// pause waits for d or for ctx to end.
func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// RotateKey makes a new encryption key, under which all values are rewritten while
// the server goes on, and returns when the key is on disk. The old one is dropped
// when nothing is under it any more, some minutes later. A rotation survives the
// server: the next Start goes on with it.
func (s *Server) RotateKey(ctx context.Context) (KeyStatus, error) {
	if err := s.rotation.start(ctx); err != nil {
		return s.rotation.get(), fmt.Errorf("rotate the encryption key of %s: %w", s.config.Name, err)
	}
	return s.rotation.get(), nil
}

// KeyStatus says with which keys the store is encrypted, and how far a rotation is.
func (s *Server) KeyStatus() KeyStatus { return s.rotation.get() }
