package migrate

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io"
	"sync"

	clientv3 "go.etcd.io/etcd/client/v3"

	"sublet.dev/tenant-apiserver/store"
	"sublet.dev/tenant-apiserver/store/backup"
)

const (
	// batchOps and batchBytes stay within what an etcd accepts in one transaction
	// by default: 128 operations, 1.5 MiB.
	batchOps   = 100
	batchBytes = 512 << 10
	// mostBehind is how many revisions an etcd is brought forward, which takes a
	// write for each.
	mostBehind = 2_000_000
	// behindWorkers write at a time, to share the etcd's flushes.
	behindWorkers = 64
)

// ErrNotEmpty says that there is something else where a cluster was to be moved to.
var ErrNotEmpty = errors.New("the part of the etcd is not empty")

// ErrBehind says that an etcd's revisions are too far behind the store's: clients
// would see time go back.
var ErrBehind = errors.New("the etcd's revision is too far behind the store's")

// Result is what a Load did.
type Result struct {
	Keys int64 `json:"keys"`
	// Revision of the etcd after it.
	Revision int64 `json:"revision"`
}

// Load writes what a backup holds to an etcd, reads it back, and makes the tenant
// its owner. It begins anew where an earlier one was interrupted. Errors: those of
// the reader, ErrNotEmpty, ErrBehind.
func Load(ctx context.Context, b *backup.Reader, to Side, progress func(entries int64)) (Result, error) {
	id := b.Header().Tenant
	l := &loader{to: to, leases: map[int64]clientv3.LeaseID{}, progress: progress, sum: sha256.New()}
	if err := l.clear(ctx, id); err != nil {
		return Result{}, err
	}
	if err := l.forward(ctx, id, b.Header().Revision); err != nil {
		return Result{}, err
	}
	if err := l.copy(ctx, b); err != nil {
		return Result{}, err
	}
	if err := l.verify(ctx, id); err != nil {
		return Result{}, err
	}
	moving := clientv3.Compare(clientv3.Value(movingKey), "=", id)
	r, err := to.KV.Txn(ctx).If(moving).Then(clientv3.OpDelete(movingKey), clientv3.OpPut(idKey, id)).Commit()
	if err != nil {
		return Result{}, fmt.Errorf("stamp the owner: %w", err)
	}
	if !r.Succeeded {
		return Result{}, fmt.Errorf("%w: somebody else writes there", ErrNotEmpty)
	}
	return Result{Keys: l.keys, Revision: r.Header.Revision}, nil
}

type loader struct {
	to       Side
	leases   map[int64]clientv3.LeaseID // by the backup's
	progress func(int64)

	batch []clientv3.Op
	size  int
	keys  int64
	sum   hash.Hash // over the keys without a lease, which must all be there in the end
	count int64     // of those
}

// clear wants a part that is empty, or has what an earlier Load left.
func (l *loader) clear(ctx context.Context, id string) error {
	owner, _, err := get(ctx, l.to.KV, idKey)
	if err != nil {
		return err
	}
	if owner != "" {
		return fmt.Errorf("%w: it belongs to %q; choose another prefix, or empty this one", ErrNotEmpty, owner)
	}
	moving, _, err := get(ctx, l.to.KV, movingKey)
	if err != nil {
		return err
	}
	all, err := l.to.KV.Get(ctx, "", clientv3.WithPrefix(), clientv3.WithCountOnly())
	if err != nil {
		return fmt.Errorf("count the keys: %w", err)
	}
	switch {
	case moving == "" && all.Count > 0:
		return fmt.Errorf("%w: it has %d keys and no owner; choose another prefix, or empty this one", ErrNotEmpty, all.Count)
	case moving != "" && moving != id:
		return fmt.Errorf("%w: tenant %q is being moved there; choose another prefix, or empty this one", ErrNotEmpty, moving)
	}
	if _, err := l.to.KV.Txn(ctx).Then(clientv3.OpDelete("", clientv3.WithPrefix())).Commit(); err != nil {
		return fmt.Errorf("remove what an interrupted move left: %w", err)
	}
	if _, err := l.to.KV.Put(ctx, movingKey, id); err != nil {
		return fmt.Errorf("begin the move: %w", err)
	}
	return nil
}

// forward brings the etcd's revision above the store's.
func (l *loader) forward(ctx context.Context, id string, above int64) error {
	_, rev, err := get(ctx, l.to.KV, movingKey)
	if err != nil {
		return err
	}
	if above-rev > mostBehind {
		return fmt.Errorf("%w: it is at %d, the store at %d; restore the etcd from a snapshot of its own with --bump-revision %d --mark-compacted, or use one that has been in use for longer",
			ErrBehind, rev, above, above-rev)
	}
	var group sync.WaitGroup
	errs := make([]error, behindWorkers)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	for w := range behindWorkers {
		share := (above - rev + int64(behindWorkers) - 1) / int64(behindWorkers)
		group.Go(func() {
			for range share {
				if _, err := l.to.KV.Put(ctx, movingKey, id); err != nil {
					errs[w] = fmt.Errorf("bring the etcd's revision forward: %w", err)
					cancel()
					return
				}
			}
		})
	}
	group.Wait()
	return errors.Join(errs...)
}

// copy writes all of a backup.
func (l *loader) copy(ctx context.Context, b *backup.Reader) error {
	for {
		lease, e, err := b.Next()
		switch {
		case errors.Is(err, io.EOF):
			return l.flush(ctx)
		case err != nil:
			return err
		case lease != nil:
			err = l.grant(ctx, *lease)
		default:
			err = l.put(ctx, *e)
		}
		if err != nil {
			return err
		}
	}
}

func (l *loader) grant(ctx context.Context, lease backup.Lease) error {
	r, err := l.to.Lease.Grant(ctx, max(lease.Left, 1))
	if err != nil {
		return fmt.Errorf("make a lease: %w", err)
	}
	l.leases[lease.ID] = r.ID
	return nil
}

func (l *loader) put(ctx context.Context, e backup.Entry) error {
	if len(l.batch) == batchOps || l.size+len(e.Key)+len(e.Value) > batchBytes {
		if err := l.flush(ctx); err != nil {
			return err
		}
	}
	var options []clientv3.OpOption
	if e.Lease != 0 {
		options = append(options, clientv3.WithLease(l.leases[e.Lease]))
	} else {
		add(l.sum, e.Key, e.Value)
		l.count++
	}
	l.batch = append(l.batch, clientv3.OpPut(string(e.Key), string(e.Value), options...))
	l.size += len(e.Key) + len(e.Value)
	return nil
}

func (l *loader) flush(ctx context.Context) error {
	if len(l.batch) == 0 {
		return nil
	}
	if _, err := l.to.KV.Txn(ctx).Then(l.batch...).Commit(); err != nil {
		return fmt.Errorf("write to the etcd: %w", err)
	}
	l.keys += int64(len(l.batch))
	l.batch, l.size = nil, 0
	if l.progress != nil {
		l.progress(l.keys)
	}
	return nil
}

// verify reads everything back. Keys on leases may have ended meanwhile.
func (l *loader) verify(ctx context.Context, id string) error {
	from := &Source{side: l.to, id: id}
	sum, count := sha256.New(), int64(0)
	r, rev := store.Everything(), int64(0)
	for {
		p, err := from.ReadPage(ctx, r, rev)
		if err != nil {
			return err
		}
		for _, kv := range p.KVs {
			if kv.Lease == 0 {
				add(sum, kv.Key, kv.Value)
				count++
			}
		}
		if p.Next == nil {
			break
		}
		r.Key, rev = p.Next, p.Revision
	}
	if count != l.count || string(sum.Sum(nil)) != string(l.sum.Sum(nil)) {
		return fmt.Errorf("the etcd does not have what was written to it (%d keys, %d were written): does somebody else write there?", count, l.count)
	}
	return nil
}

// add adds a key and its value to a sum, each with its length.
func add(sum hash.Hash, parts ...[]byte) {
	for _, p := range parts {
		sum.Write(binary.BigEndian.AppendUint64(nil, uint64(len(p))))
		sum.Write(p)
	}
}
