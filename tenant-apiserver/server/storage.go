package server

import (
	"context"
	"fmt"
	"sync/atomic"

	"go.etcd.io/etcd/client/v3/kubernetes"

	"sublet.dev/tenant-apiserver/etcdclient"
	"sublet.dev/tenant-apiserver/internal/kube"
	"sublet.dev/tenant-apiserver/store"
)

// bootstrapKey holds the version whose bootstrap objects the store has. It is
// outside /registry, where no API object can be.
const bootstrapKey = "/sublet.dev/bootstrapped"

// opened numbers the stores of the process, so that endpoints are unique.
var opened atomic.Int64

// storage is an open store under the address that upstream finds it by.
type storage struct {
	store      *store.Store
	endpoint   string
	unregister func()
}

func openStorage(name, path string, o store.Options) (*storage, error) {
	s, err := store.Open(path, o)
	if err != nil {
		return nil, err
	}
	endpoint := fmt.Sprintf("bbolt://%s-%d", name, opened.Add(1))
	return &storage{store: s, endpoint: endpoint, unregister: etcdclient.Register(endpoint, s)}, nil
}

// client is a view of the store that holds nothing; it need not be closed.
func (s *storage) client() *kubernetes.Client { return etcdclient.New(s.store) }

func (s *storage) close() error {
	s.unregister()
	return s.store.Close()
}

// bootstrapped says whether the linked version's bootstrap has been done.
func (s *storage) bootstrapped(ctx context.Context) (bool, error) {
	resp, err := s.client().KV.Get(ctx, bootstrapKey)
	if err != nil {
		return false, fmt.Errorf("read the store's version: %w", err)
	}
	return len(resp.Kvs) == 1 && string(resp.Kvs[0].Value) == kube.Version, nil
}

func (s *storage) markBootstrapped(ctx context.Context) error {
	if _, err := s.client().KV.Put(ctx, bootstrapKey, kube.Version); err != nil {
		return fmt.Errorf("write the store's version: %w", err)
	}
	return nil
}
