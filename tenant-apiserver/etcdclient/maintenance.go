package etcdclient

import (
	"context"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"

	"sublet.dev/tenant-apiserver/store"
)

// maintenanceStub is etcd's Maintenance service over a store: its status, and
// nothing that administers a cluster.
type maintenanceStub struct{ s *store.Store }

var _ pb.MaintenanceClient = maintenanceStub{}

func (m maintenanceStub) Status(ctx context.Context, _ *pb.StatusRequest, _ ...grpc.CallOption) (*pb.StatusResponse, error) {
	st, err := m.s.Stats(ctx)
	if err != nil {
		return nil, grpcError(err)
	}
	return &pb.StatusResponse{
		Header: header(st.Revision), Version: Version, StorageVersion: Version,
		DbSize: st.FileBytes, DbSizeInUse: st.FileBytes,
	}, nil
}

// Alarm lists no alarms.
func (m maintenanceStub) Alarm(ctx context.Context, r *pb.AlarmRequest, _ ...grpc.CallOption) (*pb.AlarmResponse, error) {
	if r.Action != pb.AlarmRequest_GET {
		return nil, unimplemented("changing alarms")
	}
	st, err := m.s.Stats(ctx)
	return &pb.AlarmResponse{Header: header(st.Revision)}, grpcError(err)
}

func (maintenanceStub) Defragment(context.Context, *pb.DefragmentRequest, ...grpc.CallOption) (*pb.DefragmentResponse, error) {
	return nil, unimplemented("Defragment")
}

func (maintenanceStub) Hash(context.Context, *pb.HashRequest, ...grpc.CallOption) (*pb.HashResponse, error) {
	return nil, unimplemented("Hash")
}

func (maintenanceStub) HashKV(context.Context, *pb.HashKVRequest, ...grpc.CallOption) (*pb.HashKVResponse, error) {
	return nil, unimplemented("HashKV")
}

func (maintenanceStub) Snapshot(context.Context, *pb.SnapshotRequest, ...grpc.CallOption) (grpc.ServerStreamingClient[pb.SnapshotResponse], error) {
	return nil, unimplemented("Snapshot")
}

func (maintenanceStub) MoveLeader(context.Context, *pb.MoveLeaderRequest, ...grpc.CallOption) (*pb.MoveLeaderResponse, error) {
	return nil, unimplemented("MoveLeader")
}

func (maintenanceStub) Downgrade(context.Context, *pb.DowngradeRequest, ...grpc.CallOption) (*pb.DowngradeResponse, error) {
	return nil, unimplemented("Downgrade")
}
