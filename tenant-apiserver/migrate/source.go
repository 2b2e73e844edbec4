package migrate

import (
	"context"
	"errors"
	"fmt"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"sublet.dev/tenant-apiserver/store"
)

// The keys of ours that say whose part of an etcd it is. A file says that in its
// head instead, so they are not part of a backup.
const (
	// idKey has the ID of the tenant whose cluster is there, complete.
	idKey = "/sublet.dev/id"
	// movingKey has the ID of the tenant whose cluster is being moved there, or was
	// moved away from there.
	movingKey = "/sublet.dev/moving"
)

// pageKeys is how many keys are read at a time; an etcd cannot be asked for a number
// of bytes, and a tenant's values have up to 1.5 MiB each.
const pageKeys = 64

// Side is an etcd, or a part of one.
type Side struct {
	KV    clientv3.KV
	Lease clientv3.Lease
}

// Source lets package backup read an etcd.
type Source struct {
	side Side
	id   string
}

// NewSource returns the cluster of tenant id, which must be there. The error wraps
// store.ErrForeign when it is another's, or none's.
func NewSource(ctx context.Context, s Side, id string) (*Source, error) {
	owner, _, err := get(ctx, s.KV, idKey)
	if err != nil {
		return nil, err
	}
	if owner != id {
		return nil, fmt.Errorf("%w: the part of the etcd belongs to %q, not to %q", store.ErrForeign, owner, id)
	}
	return &Source{side: s, id: id}, nil
}

// get returns the value of a key, "" when there is none, and the etcd's revision.
func get(ctx context.Context, kv clientv3.KV, key string) (value string, rev int64, err error) {
	r, err := kv.Get(ctx, key)
	if err != nil {
		return "", 0, fmt.Errorf("read %s: %w", key, err)
	}
	if len(r.Kvs) > 0 {
		value = string(r.Kvs[0].Value)
	}
	return value, r.Header.Revision, nil
}

// Stats says whose cluster it is and how far the etcd is.
func (s *Source) Stats(ctx context.Context) (store.Stats, error) {
	_, rev, err := get(ctx, s.side.KV, idKey)
	return store.Stats{ID: s.id, Revision: rev}, err
}

// ReadPage reads a part of a range: see store.Store.ReadPage.
func (s *Source) ReadPage(ctx context.Context, r store.Range, rev int64) (store.Page, error) {
	options := []clientv3.OpOption{clientv3.WithRange(string(r.End)), clientv3.WithLimit(pageKeys), clientv3.WithRev(rev)}
	resp, err := s.side.KV.Get(ctx, string(r.Key), options...)
	if errors.Is(err, rpctypes.ErrCompacted) {
		return store.Page{}, fmt.Errorf("%w: %w", store.ErrCompacted, err)
	}
	if err != nil {
		return store.Page{}, fmt.Errorf("read the etcd: %w", err)
	}
	p := store.Page{Revision: rev}
	if rev == 0 {
		p.Revision = resp.Header.Revision
	}
	for _, kv := range resp.Kvs {
		if key := string(kv.Key); key != idKey && key != movingKey {
			p.KVs = append(p.KVs, keyValue(kv))
		}
	}
	if resp.More {
		last := resp.Kvs[len(resp.Kvs)-1].Key
		p.Next = append(append([]byte{}, last...), 0)
	}
	return p, nil
}

func keyValue(kv *mvccpb.KeyValue) *store.KeyValue {
	return &store.KeyValue{
		Key: kv.Key, Value: kv.Value, ModRevision: kv.ModRevision,
		CreateRevision: kv.CreateRevision, Version: kv.Version, Lease: kv.Lease,
	}
}

// Lease says what a lease has left; store.ErrLeaseNotFound when it has ended.
func (s *Source) Lease(ctx context.Context, id int64) (store.LeaseInfo, error) {
	r, err := s.side.Lease.TimeToLive(ctx, clientv3.LeaseID(id))
	if errors.Is(err, rpctypes.ErrLeaseNotFound) || err == nil && r.TTL <= 0 {
		return store.LeaseInfo{}, store.ErrLeaseNotFound
	}
	if err != nil {
		return store.LeaseInfo{}, fmt.Errorf("read lease %d: %w", id, err)
	}
	return store.LeaseInfo{ID: id, TTL: r.GrantedTTL, Left: r.TTL}, nil
}

// Leave gives a part of an etcd up that was moved away: nobody starts on it any
// more. What is in it stays.
func Leave(ctx context.Context, s Side, id string) error {
	own := clientv3.Compare(clientv3.Value(idKey), "=", id)
	_, err := s.KV.Txn(ctx).If(own).Then(clientv3.OpDelete(idKey), clientv3.OpPut(movingKey, id)).Commit()
	if err != nil {
		return fmt.Errorf("give up the part of the etcd: %w", err)
	}
	return nil
}

// Left says whether tenant id was moved away from a part of an etcd.
func Left(ctx context.Context, s Side, id string) (bool, error) {
	owner, _, err := get(ctx, s.KV, idKey)
	if err != nil || owner != "" {
		return false, err
	}
	moved, _, err := get(ctx, s.KV, movingKey)
	return moved == id, err
}
