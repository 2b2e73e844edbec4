package backup

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"sublet.dev/tenant-apiserver/store"
)

// Source is what a backup is taken of: an open [store.Store].
type Source interface {
	ReadPage(ctx context.Context, r store.Range, rev int64) (store.Page, error)
	Lease(ctx context.Context, id int64) (store.LeaseInfo, error)
	Stats(ctx context.Context) (store.Stats, error)
}

// Options of taking a backup. The zero value is good.
type Options struct {
	// Name and Program go into the header.
	Name, Program string
	// Now is the time for the header; zero: the clock's.
	Now time.Time
	// Progress, when set, is told how many keys were written so far.
	Progress func(entries int64)
}

// Take writes a backup of the source's latest state to w. It returns the header
// and the footer of what it wrote. What is on w after an error is no backup.
// Errors: ErrTryAgain, those of w and of the source.
func Take(ctx context.Context, s Source, w io.Writer, o Options) (Header, Footer, error) {
	st, err := s.Stats(ctx)
	if err != nil {
		return Header{}, Footer{}, fmt.Errorf("take a backup: %w", err)
	}
	first, err := s.ReadPage(ctx, store.Everything(), 0)
	if err != nil {
		return Header{}, Footer{}, fmt.Errorf("take a backup: %w", err)
	}
	if o.Now.IsZero() {
		o.Now = time.Now()
	}
	h := Header{
		Tenant: st.ID, Name: o.Name, Program: o.Program, Time: o.Now.UTC().Truncate(time.Second),
		Revision: first.Revision, Compacted: st.Compacted,
	}
	b, err := NewWriter(w, h)
	if err != nil {
		return h, Footer{}, err
	}
	if err := copyPages(ctx, s, b, first, o); err != nil {
		return h, Footer{}, err
	}
	f, err := b.Close()
	return h, f, err
}

// copyPages writes the first page and those after it.
func copyPages(ctx context.Context, s Source, b *Writer, p store.Page, o Options) error {
	r := store.Everything()
	for {
		for _, kv := range p.KVs {
			if err := copyKey(ctx, s, b, kv); err != nil {
				return err
			}
		}
		if o.Progress != nil {
			o.Progress(b.footer.Entries)
		}
		if p.Next == nil {
			return nil
		}
		r.Key = p.Next
		var err error
		p, err = s.ReadPage(ctx, r, p.Revision)
		if errors.Is(err, store.ErrCompacted) {
			return fmt.Errorf("take a backup: %w (%w)", ErrTryAgain, err)
		}
		if err != nil {
			return fmt.Errorf("take a backup: %w", err)
		}
	}
}

func copyKey(ctx context.Context, s Source, b *Writer, kv *store.KeyValue) error {
	if kv.Lease != 0 && !b.HasLease(kv.Lease) {
		info, err := s.Lease(ctx, kv.Lease)
		// One that has ended since held its keys at the backup's revision: it
		// has nothing left.
		if err != nil && !errors.Is(err, store.ErrLeaseNotFound) {
			return fmt.Errorf("take a backup: %w", err)
		}
		if err := b.Lease(Lease{ID: kv.Lease, TTL: info.TTL, Left: max(info.Left, 0)}); err != nil {
			return err
		}
	}
	return b.Entry(Entry{
		Key: kv.Key, Value: kv.Value, CreateRevision: kv.CreateRevision,
		ModRevision: kv.ModRevision, Version: kv.Version, Lease: kv.Lease,
	})
}
