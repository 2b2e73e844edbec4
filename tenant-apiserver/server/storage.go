package server

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/kubernetes"
	"k8s.io/apiserver/pkg/storage/value"

	"sublet.dev/tenant-apiserver/etcdclient"
	"sublet.dev/tenant-apiserver/internal/kube"
	"sublet.dev/tenant-apiserver/keyring"
	"sublet.dev/tenant-apiserver/store"
)

// Keys of our own. They are outside /registry, where no API object can be.
const (
	// bootstrapKey holds the version whose bootstrap objects the store has.
	bootstrapKey = "/sublet.dev/bootstrapped"
	// markPrefix and a key's ID hold a value that is encrypted with that key:
	// whoever opens the store learns from it which keys he needs.
	markPrefix = "/sublet.dev/keys/"
	// IDKey holds, in an etcd, the ID of the tenant whose part it is. A store's
	// file has the ID in its head instead.
	IDKey = "/sublet.dev/id"
)

// opened numbers the stores of the process, so that endpoints are unique.
var opened atomic.Int64

// storage is an open store under the address that upstream finds it by.
type storage struct {
	client     func() *kubernetes.Client // a view that holds nothing; it need not be closed
	endpoint   string
	unregister func()
	closeStore func() error
	file       *store.Store  // nil: it is an etcd
	ring       *keyring.Ring // nil: values are stored as they are
}

// openStorage opens where c's cluster is kept, makes sure that it is c's, and has
// its keys ready.
func openStorage(ctx context.Context, c Config) (*storage, error) {
	var st *storage
	var err error
	if c.Etcd != nil {
		st, err = openEtcd(ctx, c)
	} else {
		st, err = openFile(c)
	}
	if err != nil {
		return nil, err
	}
	if err := st.unlock(ctx, c); err != nil {
		return nil, errors.Join(err, st.close())
	}
	if st.file != nil && st.ring != nil && st.ring.Remains() && !st.ring.Unfinished() {
		return st.withoutRemains(c)
	}
	return st, nil
}

// withoutRemains opens the store again after its file was rewritten without the
// values that are not under the key in use. When that cannot be done, for want of
// room, the next start tries.
func (s *storage) withoutRemains(c Config) (*storage, error) {
	if err := s.close(); err != nil {
		return nil, err
	}
	_, shrinkErr := store.ShrinkFile(c.StorePath)
	again, err := openFile(c)
	if err != nil {
		return nil, errors.Join(shrinkErr, err)
	}
	again.ring = s.ring
	if shrinkErr != nil {
		c.logger().Warn("values that were replaced are still in free space of the store's file", "name", c.Name, "error", shrinkErr)
	} else if err := s.ring.NoRemains(); err != nil {
		return nil, errors.Join(err, again.close())
	}
	return again, nil
}

func openFile(c Config) (*storage, error) {
	s, err := store.Open(c.StorePath, c.storeOptions())
	if err != nil {
		return nil, err
	}
	endpoint := fmt.Sprintf("bbolt://%s-%d", c.Name, opened.Add(1))
	return &storage{
		client: func() *kubernetes.Client { return etcdclient.New(s) }, file: s, closeStore: s.Close,
		endpoint: endpoint, unregister: etcdclient.Register(endpoint, s),
	}, nil
}

func (s *storage) close() error {
	s.unregister()
	return s.closeStore()
}

// get returns the value of a key, or nil.
func (s *storage) get(ctx context.Context, key string) (*mvccpb.KeyValue, error) {
	resp, err := s.client().KV.Get(ctx, key)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", key, err)
	}
	if len(resp.Kvs) == 0 {
		return nil, nil
	}
	return resp.Kvs[0], nil
}

// seal encrypts the value of a key, if values are encrypted.
func (s *storage) seal(ctx context.Context, key string, plain []byte) (string, error) {
	if s.ring == nil {
		return string(plain), nil
	}
	sealed, err := s.ring.TransformToStorage(ctx, plain, value.DefaultContext(key))
	if err != nil {
		return "", fmt.Errorf("encrypt %s: %w", key, err)
	}
	return string(sealed), nil
}

// unseal is the reverse of seal.
func (s *storage) unseal(ctx context.Context, kv *mvccpb.KeyValue) ([]byte, error) {
	if s.ring == nil {
		return kv.Value, nil
	}
	plain, _, err := s.ring.TransformFromStorage(ctx, kv.Value, value.DefaultContext(kv.Key))
	if err != nil {
		return nil, fmt.Errorf("decrypt %s: %w", kv.Key, err)
	}
	return plain, nil
}

// count returns how many keys there are below a prefix.
func (s *storage) count(ctx context.Context, prefix string) (int64, error) {
	resp, err := s.client().KV.Get(ctx, prefix, clientv3.WithPrefix(), clientv3.WithCountOnly())
	if err != nil {
		return 0, err
	}
	return resp.Count, nil
}

// bytes returns how much of the file is in use.
func (s *storage) bytes(ctx context.Context) (int64, error) {
	st, err := s.file.Stats(ctx)
	return st.UsedBytes, err
}

// bootstrapped returns the version whose bootstrap has been done, or "".
func (s *storage) bootstrapped(ctx context.Context) (string, error) {
	kv, err := s.get(ctx, bootstrapKey)
	if err != nil || kv == nil {
		return "", err
	}
	version, err := s.unseal(ctx, kv)
	return string(version), err
}

func (s *storage) markBootstrapped(ctx context.Context) error {
	sealed, err := s.seal(ctx, bootstrapKey, []byte(kube.Version))
	if err != nil {
		return err
	}
	if _, err := s.client().KV.Put(ctx, bootstrapKey, sealed); err != nil {
		return fmt.Errorf("write the store's version: %w", err)
	}
	return nil
}
