package store

import (
	"bytes"
	"context"
	"fmt"

	bolt "go.etcd.io/bbolt"
)

// Read returns the keys of a range, in order, as of a revision. It sees every
// write that was acknowledged before it was called. Errors: ErrCompacted,
// ErrFutureRevision, ErrEmptyKey.
func (s *Store) Read(ctx context.Context, r Read) (*ReadResult, error) {
	if err := checkKey(r.Key); err != nil {
		return nil, err
	}
	var out *ReadResult
	err := s.view(ctx, func(snap snapshot) (err error) {
		out, err = snap.read(r)
		return err
	})
	return out, err
}

// snapshot is the store as one group left it, for readers and for the group
// that comes next. Nothing that it returns points into bbolt's memory.
type snapshot struct {
	*tables
	head head
	data int64 // see state
}

// newSnapshot is what the file alone has.
func newSnapshot(tx *bolt.Tx) (snapshot, error) {
	h, err := readHead(tx.Bucket(bucketMeta.name()))
	if err != nil {
		return snapshot{}, err
	}
	return snapshot{tables: &tables{tx: tx}, head: h}, nil
}

// checkRevision says whether a read at rev can be answered.
func (s snapshot) checkRevision(rev int64) error {
	switch {
	case rev > s.head.rev:
		return ErrFutureRevision
	case rev > 0 && rev < s.head.compacted:
		return ErrCompacted
	}
	return nil
}

func (s snapshot) read(r Read) (*ReadResult, error) {
	if err := s.checkRevision(r.Revision); err != nil {
		return nil, err
	}
	out := &ReadResult{Revision: s.head.rev}
	err := s.each(r.Range, func(key []byte, e entry) error {
		if r.Revision > 0 {
			var err error
			if e, err = s.asOf(e, r.Revision); err != nil {
				return err
			}
		}
		if !e.live() {
			return nil
		}
		out.Count++
		if r.CountOnly || r.Limit > 0 && int64(len(out.KVs)) >= r.Limit {
			return nil
		}
		kv, err := s.keyValue(key, e, r.KeysOnly)
		out.KVs = append(out.KVs, kv)
		return err
	})
	if err != nil {
		return nil, err
	}
	out.More = !r.CountOnly && int64(len(out.KVs)) < out.Count
	return out, nil
}

// each calls f for every key of the range that cur knows, deleted ones
// included. key is valid during the call only.
func (s snapshot) each(r Range, f func(key []byte, e entry) error) error {
	if r.single() {
		e, err := s.entry(r.Key)
		if err != nil || e.at == (pos{}) {
			return err
		}
		return f(r.Key, e)
	}
	c := s.cursor(bucketCur)
	for k, v := c.seek(r.Key); k != nil && r.before(k); k, v = c.next() {
		e, err := openEntry(k, v)
		if err != nil {
			return err
		}
		if err := f(k, e); err != nil {
			return err
		}
	}
	return nil
}

// entry returns what cur says of key; the zero entry when it says nothing.
func (s snapshot) entry(key []byte) (entry, error) {
	sealed := s.get(bucketCur, key)
	if sealed == nil {
		return entry{}, nil
	}
	return openEntry(key, sealed)
}

func openEntry(key, sealed []byte) (entry, error) {
	body, err := unseal(bucketCur, key, sealed)
	if err != nil {
		return entry{}, err
	}
	e, err := decodeEntry(body)
	if err != nil {
		return entry{}, fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	return e, nil
}

// asOf walks back to what the key was at rev.
func (s snapshot) asOf(e entry, rev int64) (entry, error) {
	for e.at.rev > rev {
		r, err := s.record(e.at)
		if err != nil {
			return entry{}, err
		}
		if r.prev == (pos{}) {
			return entry{}, nil
		}
		prev, found, err := s.lookup(r.prev)
		if err != nil {
			return entry{}, err
		}
		if !found { // a deletion, and compacted
			return entry{}, s.missing(r.prev)
		}
		e = entry{at: r.prev, create: prev.create, version: prev.version, lease: prev.lease}
	}
	return e, nil
}

// missing explains a record that is not there: compaction takes only what is
// older than the compacted revision.
func (s snapshot) missing(p pos) error {
	if p.rev < s.head.compacted {
		return nil
	}
	return fmt.Errorf("%w: log record %d/%d is missing", ErrCorrupt, p.rev, p.sub)
}

// lookup returns the record at p, valid as long as the transaction.
func (s snapshot) lookup(p pos) (r record, found bool, err error) {
	key := p.bytes()
	sealed := s.get(bucketLog, key)
	if sealed == nil {
		return record{}, false, nil
	}
	r, err = openRecord(key, sealed)
	return r, err == nil, err
}

// record returns the record at p, which must be there.
func (s snapshot) record(p pos) (record, error) {
	r, found, err := s.lookup(p)
	if err == nil && !found {
		return record{}, fmt.Errorf("%w: log record %d/%d is missing", ErrCorrupt, p.rev, p.sub)
	}
	return r, err
}

func openRecord(key, sealed []byte) (record, error) {
	body, err := unseal(bucketLog, key, sealed)
	if err != nil {
		return record{}, err
	}
	r, err := decodeRecord(body)
	if err != nil {
		return record{}, fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	return r, nil
}

// keyValue builds the answer for a live entry.
func (s snapshot) keyValue(key []byte, e entry, keysOnly bool) (*KeyValue, error) {
	kv := &KeyValue{
		Key: bytes.Clone(key), ModRevision: e.at.rev, CreateRevision: e.create, Version: e.version, Lease: e.lease,
	}
	if keysOnly {
		return kv, nil
	}
	r, err := s.record(e.at)
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(r.key, key) {
		return nil, fmt.Errorf("%w: cur leads %q to the record of %q", ErrCorrupt, key, r.key)
	}
	kv.Value = append(make([]byte, 0, len(r.value)), r.value...)
	return kv, nil
}
