package storetool

import (
	"context"
	"errors"
	"fmt"
	"io"

	"sublet.dev/tenant-apiserver/store"
	"sublet.dev/tenant-apiserver/store/backup"
)

// Each calls f for every key of something, in order. What f gets is valid during
// the call only. It stops with f's first error.
type Each func(f func(backup.Entry) error) error

// Source is an open store.
type Source interface {
	ReadPage(ctx context.Context, r store.Range, rev int64) (store.Page, error)
	Stats(ctx context.Context) (store.Stats, error)
}

// OfStore goes through a store's keys at its latest revision, without keeping
// anybody waiting. A compaction meanwhile ends it with backup.ErrTryAgain.
func OfStore(ctx context.Context, s Source) Each {
	return func(f func(backup.Entry) error) error {
		r, rev := store.Everything(), int64(0)
		for {
			p, err := s.ReadPage(ctx, r, rev)
			if errors.Is(err, store.ErrCompacted) {
				return fmt.Errorf("%w (%w)", backup.ErrTryAgain, err)
			}
			if err != nil {
				return err
			}
			for _, kv := range p.KVs {
				err := f(backup.Entry{
					Key: kv.Key, Value: kv.Value, CreateRevision: kv.CreateRevision,
					ModRevision: kv.ModRevision, Version: kv.Version, Lease: kv.Lease,
				})
				if err != nil {
					return err
				}
			}
			if p.Next == nil {
				return nil
			}
			r.Key, rev = p.Next, p.Revision
		}
	}
}

// OfBackup goes through a backup's keys. Whether all of it is right is known only
// when it returns.
func OfBackup(b *backup.Reader) Each {
	return func(f func(backup.Entry) error) error {
		for {
			_, e, err := b.Next()
			if errors.Is(err, io.EOF) {
				return nil
			}
			if err != nil {
				return err
			}
			if e == nil {
				continue
			}
			if err := f(*e); err != nil {
				return err
			}
		}
	}
}
