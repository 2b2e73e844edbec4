package etcdclient

import (
	"context"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/grpc"

	"sublet.dev/tenant-apiserver/store"
)

// kvStub is etcd's KV service over a store.
type kvStub struct{ s *store.Store }

var _ pb.KVClient = kvStub{}

func (k kvStub) Range(ctx context.Context, r *pb.RangeRequest, _ ...grpc.CallOption) (*pb.RangeResponse, error) {
	read, err := readOf(r)
	if err != nil {
		return nil, err
	}
	res, err := k.s.Read(ctx, read)
	if err != nil {
		return nil, grpcError(err)
	}
	return rangeResponse(res, header(res.Revision)), nil
}

func (k kvStub) Put(ctx context.Context, r *pb.PutRequest, _ ...grpc.CallOption) (*pb.PutResponse, error) {
	res, err := k.txn(ctx, &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: r}})
	if err != nil {
		return nil, err
	}
	out := res.Responses[0].GetResponsePut()
	out.Header = res.Header
	return out, nil
}

func (k kvStub) DeleteRange(ctx context.Context, r *pb.DeleteRangeRequest, _ ...grpc.CallOption) (*pb.DeleteRangeResponse, error) {
	res, err := k.txn(ctx, &pb.RequestOp{Request: &pb.RequestOp_RequestDeleteRange{RequestDeleteRange: r}})
	if err != nil {
		return nil, err
	}
	out := res.Responses[0].GetResponseDeleteRange()
	out.Header = res.Header
	return out, nil
}

func (k kvStub) txn(ctx context.Context, op *pb.RequestOp) (*pb.TxnResponse, error) {
	return k.Txn(ctx, &pb.TxnRequest{Success: []*pb.RequestOp{op}})
}

func (k kvStub) Txn(ctx context.Context, r *pb.TxnRequest, _ ...grpc.CallOption) (*pb.TxnResponse, error) {
	var t store.Txn
	var err error
	for _, c := range r.Compare {
		compare, err := compareOf(c)
		if err != nil {
			return nil, err
		}
		t.If = append(t.If, compare)
	}
	if t.Then, err = opsOf(r.Success); err != nil {
		return nil, err
	}
	if t.Else, err = opsOf(r.Failure); err != nil {
		return nil, err
	}
	res, err := k.s.Txn(ctx, t)
	if err != nil {
		return nil, grpcError(err)
	}
	asked := r.Success
	if !res.Succeeded {
		asked = r.Failure
	}
	out := &pb.TxnResponse{Header: header(res.Revision), Succeeded: res.Succeeded}
	for i, op := range asked {
		out.Responses = append(out.Responses, responseOp(op, res.Results[i], out.Header))
	}
	return out, nil
}

func (k kvStub) Compact(ctx context.Context, r *pb.CompactionRequest, _ ...grpc.CallOption) (*pb.CompactionResponse, error) {
	rev, err := k.s.Compact(ctx, r.Revision)
	if err != nil {
		return nil, grpcError(err)
	}
	return &pb.CompactionResponse{Header: header(rev)}, nil
}

func header(rev int64) *pb.ResponseHeader { return &pb.ResponseHeader{Revision: rev} }

// readOf translates a range request. Serializable is ignored: all reads see the
// latest acknowledged write.
func readOf(r *pb.RangeRequest) (store.Read, error) {
	switch {
	case r.SortOrder != pb.RangeRequest_NONE && (r.SortTarget != pb.RangeRequest_KEY || r.SortOrder != pb.RangeRequest_ASCEND):
		return store.Read{}, unimplemented("sorting a range")
	case r.MinModRevision != 0 || r.MaxModRevision != 0 || r.MinCreateRevision != 0 || r.MaxCreateRevision != 0:
		return store.Read{}, unimplemented("filtering a range by revision")
	}
	return store.Read{
		Range:    store.Range{Key: r.Key, End: r.RangeEnd},
		Revision: r.Revision, Limit: r.Limit, KeysOnly: r.KeysOnly, CountOnly: r.CountOnly,
	}, nil
}

var targets = map[pb.Compare_CompareTarget]store.Target{
	pb.Compare_MOD: store.ModRevision, pb.Compare_CREATE: store.CreateRevision,
	pb.Compare_VERSION: store.Version, pb.Compare_LEASE: store.Lease, pb.Compare_VALUE: store.Value,
}

var relations = map[pb.Compare_CompareResult]store.Relation{
	pb.Compare_EQUAL: store.Equal, pb.Compare_NOT_EQUAL: store.NotEqual,
	pb.Compare_GREATER: store.Greater, pb.Compare_LESS: store.Less,
}

func compareOf(c *pb.Compare) (store.Compare, error) {
	target, known := targets[c.Target]
	relation, related := relations[c.Result]
	if len(c.RangeEnd) != 0 || !known || !related {
		return store.Compare{}, unimplemented("this comparison")
	}
	out := store.Compare{Key: c.Key, Target: target, Relation: relation, Value: c.GetValue()}
	switch target {
	case store.ModRevision:
		out.Number = c.GetModRevision()
	case store.CreateRevision:
		out.Number = c.GetCreateRevision()
	case store.Version:
		out.Number = c.GetVersion()
	case store.Lease:
		out.Number = c.GetLease()
	}
	return out, nil
}

func opsOf(in []*pb.RequestOp) ([]store.Op, error) {
	out := make([]store.Op, len(in))
	for i, op := range in {
		switch r := op.Request.(type) {
		case *pb.RequestOp_RequestRange:
			read, err := readOf(r.RequestRange)
			if err != nil {
				return nil, err
			}
			out[i].Read = &read
		case *pb.RequestOp_RequestPut:
			p := r.RequestPut
			if p.IgnoreValue || p.IgnoreLease {
				return nil, unimplemented("a put that keeps the value or the lease")
			}
			out[i].Put = &store.Put{Key: p.Key, Value: p.Value, Lease: p.Lease}
		case *pb.RequestOp_RequestDeleteRange:
			d := r.RequestDeleteRange
			out[i].Delete = &store.Range{Key: d.Key, End: d.RangeEnd}
		default:
			return nil, unimplemented("a transaction in a transaction")
		}
	}
	return out, nil
}

func responseOp(asked *pb.RequestOp, res store.OpResult, h *pb.ResponseHeader) *pb.ResponseOp {
	switch r := asked.Request.(type) {
	case *pb.RequestOp_RequestPut:
		out := &pb.PutResponse{Header: h}
		if r.RequestPut.PrevKv && len(res.Prev) > 0 {
			out.PrevKv = keyValue(res.Prev[0])
		}
		return &pb.ResponseOp{Response: &pb.ResponseOp_ResponsePut{ResponsePut: out}}
	case *pb.RequestOp_RequestDeleteRange:
		out := &pb.DeleteRangeResponse{Header: h, Deleted: int64(len(res.Prev))}
		if r.RequestDeleteRange.PrevKv {
			out.PrevKvs = keyValues(res.Prev)
		}
		return &pb.ResponseOp{Response: &pb.ResponseOp_ResponseDeleteRange{ResponseDeleteRange: out}}
	}
	return &pb.ResponseOp{Response: &pb.ResponseOp_ResponseRange{ResponseRange: rangeResponse(res.Read, h)}}
}

func rangeResponse(r *store.ReadResult, h *pb.ResponseHeader) *pb.RangeResponse {
	return &pb.RangeResponse{Header: h, Kvs: keyValues(r.KVs), More: r.More, Count: r.Count}
}

func keyValues(in []*store.KeyValue) []*mvccpb.KeyValue {
	if len(in) == 0 {
		return nil
	}
	out := make([]*mvccpb.KeyValue, len(in))
	for i, kv := range in {
		out[i] = keyValue(kv)
	}
	return out
}

// keyValue shares the bytes of kv; upstream only reads them.
func keyValue(kv *store.KeyValue) *mvccpb.KeyValue {
	return &mvccpb.KeyValue{
		Key: kv.Key, Value: kv.Value, ModRevision: kv.ModRevision,
		CreateRevision: kv.CreateRevision, Version: kv.Version, Lease: kv.Lease,
	}
}
