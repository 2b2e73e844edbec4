package etcdclient

import (
	"context"
	"io"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
)

// The first chunk of a stream, and about how many bytes a chunk grows to.
const (
	firstChunk = 10
	chunkBytes = 1 << 20
)

// RangeStream answers a range in chunks, all of one revision. As with etcd's
// server, the last chunk alone has the header, the count, and whether a limit
// cut the range.
func (k kvStub) RangeStream(ctx context.Context, r *pb.RangeRequest, _ ...grpc.CallOption) (grpc.ServerStreamingClient[pb.RangeStreamResponse], error) {
	return &rangeStream{ctx: ctx, kv: k, rest: proto.CloneOf(r), limit: r.Limit, chunk: firstChunk}, nil
}

// rangeStream reads a chunk on each Recv and holds nothing in between.
type rangeStream struct {
	grpc.ClientStream // nil: etcd's client calls nothing of it but Recv
	ctx               context.Context
	kv                kvStub

	rest     *pb.RangeRequest // what was not sent yet
	limit    int64            // of the whole stream; 0: none
	chunk    int64            // keys to read next
	sent     int64
	revision int64 // the store's when the stream began
	done     bool
}

func (s *rangeStream) Recv() (*pb.RangeStreamResponse, error) {
	if s.done {
		return nil, io.EOF
	}
	if !s.rest.CountOnly {
		s.rest.Limit = s.chunk
		if s.limit > 0 {
			s.rest.Limit = min(s.chunk, s.limit-s.sent)
		}
	}
	res, err := s.kv.Range(s.ctx, s.rest)
	if err != nil {
		return nil, err
	}
	if s.revision == 0 {
		s.revision = res.Header.Revision
		if s.rest.Revision == 0 {
			s.rest.Revision = s.revision
		}
	}
	res.Count += s.sent // of all keys from the first one on
	s.sent += int64(len(res.Kvs))
	if !res.More || s.limit > 0 && s.sent >= s.limit {
		s.done = true
		res.Header = header(s.revision)
		return &pb.RangeStreamResponse{RangeResponse: res}, nil
	}
	s.advance(res)
	return &pb.RangeStreamResponse{RangeResponse: &pb.RangeResponse{Kvs: res.Kvs}}, nil
}

// advance goes on behind the last key, in steps that double while chunks are small.
func (s *rangeStream) advance(res *pb.RangeResponse) {
	last := res.Kvs[len(res.Kvs)-1].Key
	s.rest.Key = append(append(make([]byte, 0, len(last)+1), last...), 0)
	switch size := proto.Size(res); {
	case size < chunkBytes/2:
		s.chunk *= 2
	case size > 2*chunkBytes:
		s.chunk = max(s.chunk/2, 1)
	}
}
