package server

import (
	"context"

	"go.etcd.io/etcd/client/v3/kubernetes"

	"sublet.dev/tenant-apiserver/etcdclient"
	"sublet.dev/tenant-apiserver/keyring"
	"sublet.dev/tenant-apiserver/store"
)

// File returns the file that the control plane has open, for looking into it and
// for backups; nil when its cluster is kept in an etcd. It is closed by Stop.
func (s *Server) File() *store.Store { return s.rotation.st.file }

// CheckKeys says whether the file keyFile has the keys that a store is encrypted
// with, before a control plane is started on it. It changes nothing. Errors wrap
// ErrKeyMissing, keyring.ErrMissing or another of keyring's.
func CheckKeys(ctx context.Context, s *store.Store, keyFile string, kms keyring.KMS) error {
	st := &storage{client: func() *kubernetes.Client { return etcdclient.New(s) }, file: s}
	marks, err := st.marks(ctx)
	if err != nil || len(marks) == 0 {
		return err
	}
	if st.ring, err = keyring.Open(ctx, keyFile, kms); err != nil {
		return err
	}
	return st.checkMarks(ctx, marks)
}
