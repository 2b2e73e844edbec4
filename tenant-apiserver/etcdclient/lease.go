package etcdclient

import (
	"context"
	"errors"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"

	"sublet.dev/tenant-apiserver/store"
)

// leaseStub is etcd's Lease service over a store.
type leaseStub struct{ s *store.Store }

var _ pb.LeaseClient = leaseStub{}

func (l leaseStub) LeaseGrant(ctx context.Context, r *pb.LeaseGrantRequest, _ ...grpc.CallOption) (*pb.LeaseGrantResponse, error) {
	info, err := l.s.Grant(ctx, r.ID, r.TTL)
	if err != nil {
		return nil, grpcError(err)
	}
	return &pb.LeaseGrantResponse{Header: header(info.Revision), ID: info.ID, TTL: info.TTL}, nil
}

func (l leaseStub) LeaseRevoke(ctx context.Context, r *pb.LeaseRevokeRequest, _ ...grpc.CallOption) (*pb.LeaseRevokeResponse, error) {
	rev, err := l.s.Revoke(ctx, r.ID)
	if err != nil {
		return nil, grpcError(err)
	}
	return &pb.LeaseRevokeResponse{Header: header(rev)}, nil
}

// LeaseTimeToLive answers with a TTL of -1 for a lease that does not exist, as
// etcd's server does.
func (l leaseStub) LeaseTimeToLive(ctx context.Context, r *pb.LeaseTimeToLiveRequest, _ ...grpc.CallOption) (*pb.LeaseTimeToLiveResponse, error) {
	info, err := l.s.Lease(ctx, r.ID)
	if errors.Is(err, store.ErrLeaseNotFound) {
		return &pb.LeaseTimeToLiveResponse{Header: header(0), ID: r.ID, TTL: -1}, nil
	}
	if err != nil {
		return nil, grpcError(err)
	}
	out := &pb.LeaseTimeToLiveResponse{Header: header(info.Revision), ID: info.ID, TTL: info.Left, GrantedTTL: info.TTL}
	if r.Keys {
		out.Keys = info.Keys
	}
	return out, nil
}

func (l leaseStub) LeaseLeases(ctx context.Context, _ *pb.LeaseLeasesRequest, _ ...grpc.CallOption) (*pb.LeaseLeasesResponse, error) {
	ids, rev, err := l.s.Leases(ctx)
	if err != nil {
		return nil, grpcError(err)
	}
	out := &pb.LeaseLeasesResponse{Header: header(rev)}
	for _, id := range ids {
		out.Leases = append(out.Leases, &pb.LeaseStatus{ID: id})
	}
	return out, nil
}

func (l leaseStub) LeaseKeepAlive(ctx context.Context, _ ...grpc.CallOption) (grpc.BidiStreamingClient[pb.LeaseKeepAliveRequest, pb.LeaseKeepAliveResponse], error) {
	return &keepAliveStream{ctx: ctx, s: l.s, answers: make(chan *pb.LeaseKeepAliveResponse, 1)}, nil
}

// keepAliveStream renews on Send and answers on Recv.
type keepAliveStream struct {
	grpc.ClientStream // nil: etcd's client calls nothing of it but what is below
	ctx               context.Context
	s                 *store.Store
	answers           chan *pb.LeaseKeepAliveResponse
}

func (k *keepAliveStream) Send(r *pb.LeaseKeepAliveRequest) error {
	info, err := k.s.Renew(k.ctx, r.ID)
	if err != nil && !errors.Is(err, store.ErrLeaseNotFound) {
		return grpcError(err)
	}
	answer := &pb.LeaseKeepAliveResponse{Header: header(info.Revision), ID: r.ID, TTL: info.TTL}
	select {
	case k.answers <- answer: // a TTL of 0 says that the lease is gone
		return nil
	case <-k.ctx.Done():
		return k.ctx.Err()
	}
}

func (k *keepAliveStream) Recv() (*pb.LeaseKeepAliveResponse, error) {
	select {
	case a := <-k.answers:
		return a, nil
	case <-k.ctx.Done():
		return nil, k.ctx.Err()
	}
}

func (k *keepAliveStream) CloseSend() error { return nil }

func (k *keepAliveStream) Context() context.Context { return k.ctx }
