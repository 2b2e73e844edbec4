package etcdclient

import (
	"context"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/kubernetes"

	"sublet.dev/tenant-apiserver/store"
)

// objects is a client whose puts go to the store as they are: etcd's client copies
// every value twice on the way into a request.
type objects struct {
	*kubernetes.Client
	s *store.Store
}

var _ kubernetes.Interface = objects{}

// OptimisticPut is that of [kubernetes.Client]. The store keeps value: the caller
// must not change it afterwards. Upstream encodes each object anew.
func (o objects) OptimisticPut(ctx context.Context, key string, value []byte, expectedRevision int64, opts kubernetes.PutOptions) (kubernetes.PutResponse, error) {
	name := []byte(key)
	t := store.Txn{
		If:   []store.Compare{{Key: name, Target: store.ModRevision, Relation: store.Equal, Number: expectedRevision}},
		Then: []store.Op{{Put: &store.Put{Key: name, Value: value, Lease: int64(opts.LeaseID)}}},
	}
	if opts.GetOnFailure {
		t.Else = []store.Op{{Read: &store.Read{Range: store.Range{Key: name}}}}
	}
	res, err := o.s.Txn(ctx, t)
	if err != nil {
		return kubernetes.PutResponse{}, clientv3.ContextError(ctx, grpcError(err))
	}
	out := kubernetes.PutResponse{Succeeded: res.Succeeded, Revision: res.Revision}
	if !res.Succeeded && opts.GetOnFailure {
		if found := res.Results[0].Read.KVs; len(found) > 0 {
			out.KV = keyValue(found[0])
		}
	}
	return out, nil
}
