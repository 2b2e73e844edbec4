package store

import (
	"context"
	"errors"
	"fmt"
)

// Page is a part of a range at one revision.
type Page struct {
	// KVs in byte order, values included.
	KVs []*KeyValue
	// Next is the first key that may come after the page; nil after the last one.
	Next []byte
	// Revision is the one that was read at.
	Revision int64
}

// The bounds of one page; its last key may exceed the bytes, and keys that are
// deleted count too, so a page may be empty and not the last.
const (
	pageKeys  = 1000
	pageBytes = 1 << 20
)

var errPageFull = errors.New("the page is full")

// ReadPage returns the first part of a range at a revision (0: the latest). To
// read a whole range of any size in bounded memory and without one long
// transaction, call it again with the page's Next as Key and its Revision, until
// Next is nil. Unlike Read it does not count what it does not return. Errors:
// those of Read; ErrCompacted comes when the revision was compacted meanwhile.
func (s *Store) ReadPage(ctx context.Context, r Range, rev int64) (Page, error) {
	if err := checkKey(r.Key); err != nil {
		return Page{}, err
	}
	var p Page
	err := s.view(ctx, func(snap snapshot) (err error) {
		p, err = snap.page(r, rev)
		return err
	})
	return p, err
}

func (s snapshot) page(r Range, rev int64) (Page, error) {
	if err := s.checkRevision(rev); err != nil {
		return Page{}, err
	}
	p := Page{Revision: rev}
	if rev == 0 {
		p.Revision = s.head.rev
	}
	seen, size := 0, 0
	err := s.each(r, func(key []byte, e entry) error {
		if seen >= pageKeys || size >= pageBytes {
			p.Next = append([]byte{}, key...)
			return errPageFull
		}
		seen++
		e, err := s.asOf(e, p.Revision)
		if err != nil || !e.live() {
			return err
		}
		kv, err := s.keyValue(key, e, false)
		if err != nil {
			return err
		}
		p.KVs, size = append(p.KVs, kv), size+len(kv.Key)+len(kv.Value)
		return nil
	})
	if err != nil && !errors.Is(err, errPageFull) {
		return Page{}, fmt.Errorf("read a page: %w", err)
	}
	return p, nil
}

// Everything is the range of all keys.
func Everything() Range { return Range{Key: []byte{0}, End: openEnd} }
