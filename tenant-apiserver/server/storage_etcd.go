package server

import (
	"context"
	"errors"
	"fmt"

	clientv3 "go.etcd.io/etcd/client/v3"

	"sublet.dev/tenant-apiserver/etcdclient"
	"sublet.dev/tenant-apiserver/store"
)

// ErrStoreMissing is wrapped when a control plane that has run before finds nothing
// where its cluster is kept.
var ErrStoreMissing = errors.New("the store is missing")

// openEtcd connects to the part of an etcd that has c's cluster.
func openEtcd(ctx context.Context, c Config) (*storage, error) {
	e, err := etcdclient.DialEtcd(ctx, *c.Etcd)
	if err != nil {
		return nil, err
	}
	endpoint := fmt.Sprintf("etcd://%s-%d", c.Name, opened.Add(1))
	st := &storage{client: e.Client, closeStore: e.Close, endpoint: endpoint, unregister: etcdclient.RegisterEtcd(endpoint, e)}
	if err := st.claim(ctx, c); err != nil {
		return nil, errors.Join(fmt.Errorf("prefix %s of the etcd: %w", c.Etcd.Prefix, err), st.close())
	}
	return st, nil
}

// claim stamps c's ID into a part that is empty, and wants it in one that is not.
func (s *storage) claim(ctx context.Context, c Config) error {
	client := s.client()
	for {
		kv, err := s.get(ctx, IDKey)
		switch {
		case err != nil:
			return err
		case kv != nil && string(kv.Value) != c.ID:
			return fmt.Errorf("%w: it belongs to %q, not to %q", store.ErrForeign, kv.Value, c.ID)
		case kv != nil:
			return nil
		case c.Existing:
			return fmt.Errorf("%w, though this control plane has run before; put it back from a backup, or move it there with `sublet store migrate`", ErrStoreMissing)
		}
		resp, err := client.KV.Get(ctx, "", clientv3.WithPrefix(), clientv3.WithCountOnly())
		if err != nil {
			return fmt.Errorf("count the keys: %w", err)
		}
		if resp.Count > 0 {
			return fmt.Errorf("%w: it has %d keys and no owner; choose another prefix, or empty this one", store.ErrForeign, resp.Count)
		}
		absent := clientv3.Compare(clientv3.CreateRevision(IDKey), "=", 0)
		if _, err := client.KV.Txn(ctx).If(absent).Then(clientv3.OpPut(IDKey, c.ID)).Commit(); err != nil {
			return fmt.Errorf("write the owner's ID: %w", err)
		}
	}
}

// RemoveEtcd removes everything that control plane c.ID keeps in an etcd; nothing
// there is nothing to do. It must not be running.
func RemoveEtcd(ctx context.Context, c etcdclient.EtcdConfig, id string) (err error) {
	e, err := etcdclient.DialEtcd(ctx, c)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, e.Close()) }()
	// The owner's ID goes with the rest, or not at all.
	own := clientv3.Compare(clientv3.Value(IDKey), "=", id)
	if _, err := e.Client().KV.Txn(ctx).If(own).Then(clientv3.OpDelete("", clientv3.WithPrefix())).Commit(); err != nil {
		return fmt.Errorf("remove the keys of %s from the etcd: %w", c.Prefix, err)
	}
	return nil
}
