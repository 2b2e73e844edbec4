package server

import (
	"context"
	"errors"
	"fmt"
	"strings"

	clientv3 "go.etcd.io/etcd/client/v3"
	"k8s.io/apiserver/pkg/storage/value"

	"sublet.dev/tenant-apiserver/keyring"
)

// ErrKeyMissing is wrapped when a store is encrypted with a key that the keys' file
// does not have, or not with that secret.
var ErrKeyMissing = errors.New("the store's encryption key is missing")

// unlock opens the keys that the store needs, or makes the first one. It never
// makes a key for a store that is encrypted already, and never opens such a store
// without its keys. A store that is not encrypted is taken over: its values are read
// until all have been rewritten.
func (s *storage) unlock(ctx context.Context, c Config) error {
	marks, err := s.marks(ctx)
	if err != nil {
		return err
	}
	if c.KeyFile == "" {
		if len(marks) > 0 {
			return fmt.Errorf("%w: it is encrypted with key %s, and no file with keys is configured", ErrKeyMissing, strings.Join(marks, ", "))
		}
		return nil
	}
	ring, err := keyring.Open(ctx, c.KeyFile, c.KMS)
	switch {
	case errors.Is(err, keyring.ErrMissing) && len(marks) > 0:
		return fmt.Errorf("%w: the store is encrypted with key %s, and its file, %s, is not there; put that back from a backup: without it nobody can read the store",
			ErrKeyMissing, strings.Join(marks, ", "), c.KeyFile)
	case errors.Is(err, keyring.ErrMissing):
		ring, err = keyring.Create(ctx, c.KeyFile, c.KMS)
	}
	if err != nil {
		return err
	}
	s.ring = ring
	if len(marks) == 0 {
		return s.takeOver(ctx)
	}
	if err := s.checkMarks(ctx, marks); err != nil {
		return err
	}
	return s.writeMarks(ctx)
}

// marks returns the IDs of the keys that the store is encrypted with.
func (s *storage) marks(ctx context.Context) ([]string, error) {
	r, err := s.client().KV.Get(ctx, markPrefix, clientv3.WithPrefix(), clientv3.WithKeysOnly())
	if err != nil {
		return nil, fmt.Errorf("read which keys the store needs: %w", err)
	}
	var ids []string
	for _, kv := range r.Kvs {
		ids = append(ids, strings.TrimPrefix(string(kv.Key), markPrefix))
	}
	return ids, nil
}

// checkMarks wants every key that the store is encrypted with.
func (s *storage) checkMarks(ctx context.Context, ids []string) error {
	for _, id := range ids {
		kv, err := s.get(ctx, markPrefix+id)
		if err != nil {
			return err
		}
		if _, err := s.unseal(ctx, kv); err != nil {
			return fmt.Errorf("%w: the store is encrypted with key %s, and %s has no such key, or another of that name; put the file back that belongs to this store: without it nobody can read the store",
				ErrKeyMissing, id, s.ring.Path())
		}
	}
	return nil
}

// takeOver prepares a store without marks, which is a new one or not encrypted.
func (s *storage) takeOver(ctx context.Context) error {
	r, err := s.client().KV.Get(ctx, "/registry/", clientv3.WithPrefix(), clientv3.WithCountOnly())
	if err != nil {
		return fmt.Errorf("count the objects: %w", err)
	}
	version, err := s.get(ctx, bootstrapKey)
	if err != nil {
		return err
	}
	if r.Count > 0 || version != nil {
		if err := s.ring.AcceptPlaintext(); err != nil {
			return err
		}
	}
	return s.writeMarks(ctx)
}

// writeMarks records which keys values may be encrypted with from now on.
func (s *storage) writeMarks(ctx context.Context) error {
	for _, id := range s.ring.IDs() {
		key := markPrefix + id
		kv, err := s.get(ctx, key)
		if err != nil {
			return err
		}
		if kv != nil {
			continue
		}
		sealed, err := s.ring.SealWith(ctx, id, []byte("key "+id), value.DefaultContext(key))
		if err != nil {
			return err
		}
		if _, err := s.client().KV.Put(ctx, key, string(sealed)); err != nil {
			return fmt.Errorf("record key %s in the store: %w", id, err)
		}
	}
	return nil
}

// removeMarks removes the marks of all keys but the one in use.
func (s *storage) removeMarks(ctx context.Context) error {
	ids, err := s.marks(ctx)
	if err != nil {
		return err
	}
	for _, id := range ids {
		if id == s.ring.InUse() {
			continue
		}
		if _, err := s.client().KV.Delete(ctx, markPrefix+id); err != nil {
			return fmt.Errorf("record that key %s is not needed any more: %w", id, err)
		}
	}
	return nil
}
