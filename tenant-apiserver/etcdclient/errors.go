package etcdclient

import (
	"errors"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"sublet.dev/tenant-apiserver/store"
)

// answers are the errors for which etcd has its own words, which callers
// compare with.
var answers = []struct{ ours, etcd error }{
	{store.ErrCompacted, rpctypes.ErrGRPCCompacted},
	{store.ErrFutureRevision, rpctypes.ErrGRPCFutureRev},
	{store.ErrEmptyKey, rpctypes.ErrGRPCEmptyKey},
	{store.ErrTooLarge, rpctypes.ErrGRPCRequestTooLarge},
	{store.ErrDuplicateKey, rpctypes.ErrGRPCDuplicateKey},
	{store.ErrLeaseNotFound, rpctypes.ErrGRPCLeaseNotFound},
	{store.ErrLeaseExists, rpctypes.ErrGRPCLeaseExist},
	{store.ErrLeaseTTL, rpctypes.ErrGRPCLeaseTTLTooLarge},
	{store.ErrNoSpace, rpctypes.ErrGRPCNoSpace},
}

// grpcError says a store's error as an etcd server would. The error of a
// context stays what it is.
func grpcError(err error) error {
	if err == nil {
		return nil
	}
	for _, a := range answers {
		if errors.Is(err, a.ours) {
			return a.etcd
		}
	}
	if errors.Is(err, store.ErrFailed) || errors.Is(err, store.ErrClosed) {
		return status.Error(codes.Unavailable, err.Error())
	}
	return err
}

func unimplemented(what string) error {
	return status.Errorf(codes.Unimplemented, "%s is not implemented by this store", what)
}
