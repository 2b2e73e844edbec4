package store

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"math"
	"time"
)

// MaxLeaseTTL is the longest time to live in seconds: etcd's limit.
const MaxLeaseTTL = 9_000_000_000

// LeaseInfo is what is known of a lease.
type LeaseInfo struct {
	ID int64
	// TTL is what was granted, Left what remains, in seconds and rounded down.
	TTL, Left int64
	// Keys that end with the lease, in order; only Store.Lease fills them in.
	Keys [][]byte
	// Revision is the store's at the time of the answer.
	Revision int64
}

// Grant makes a lease that ends after ttl seconds, restarts included; its keys
// are then deleted in one transaction. id 0: the store chooses. Errors:
// ErrLeaseTTL, ErrLeaseExists, ErrNoSpace, ErrQuota.
func (s *Store) Grant(ctx context.Context, id, ttl int64) (LeaseInfo, error) {
	if ttl <= 0 || ttl > MaxLeaseTTL || id < 0 {
		return LeaseInfo{}, ErrLeaseTTL
	}
	info := LeaseInfo{ID: id, TTL: ttl, Left: ttl}
	err := s.submit(ctx, 0, func(g *group) error {
		for info.ID == 0 || id == 0 && g.get(bucketLease, idBytes(info.ID)) != nil {
			info.ID = randomID()
		}
		if g.get(bucketLease, idBytes(info.ID)) != nil {
			return ErrLeaseExists
		}
		if err := g.admit(putOverhead); err != nil {
			return err
		}
		g.setLease(info.ID, lease{ttl: ttl, deadline: deadline(g.now, ttl)})
		info.Revision = g.head.rev
		return g.err
	})
	return info, err
}

// Renew starts the lease's time anew. Error: ErrLeaseNotFound.
func (s *Store) Renew(ctx context.Context, id int64) (LeaseInfo, error) {
	info := LeaseInfo{ID: id}
	err := s.submit(ctx, 0, func(g *group) error {
		l, err := g.findLease(id)
		if err != nil {
			return err
		}
		g.remove(bucketDue, dueKey(id, l))
		l.deadline = deadline(g.now, l.ttl)
		g.setLease(id, l)
		info.TTL, info.Left, info.Revision = l.ttl, l.ttl, g.head.rev
		return g.err
	})
	return info, err
}

// Revoke ends a lease now: its keys are deleted in one transaction, whose
// revision is returned. Error: ErrLeaseNotFound.
func (s *Store) Revoke(ctx context.Context, id int64) (revision int64, err error) {
	err = s.submit(ctx, 0, func(g *group) error {
		l, err := g.findLease(id)
		if err != nil {
			return err
		}
		g.endLease(id, l)
		revision = g.head.rev
		return g.err
	})
	return revision, err
}

// Lease describes a lease with its keys. Error: ErrLeaseNotFound.
func (s *Store) Lease(ctx context.Context, id int64) (LeaseInfo, error) {
	info := LeaseInfo{ID: id}
	now := s.o.Clock.Now()
	err := s.view(ctx, func(snap snapshot) error {
		l, err := readLease(snap, id)
		if err != nil {
			return err
		}
		info.TTL, info.Left, info.Revision = l.ttl, (l.deadline-now.UnixNano())/int64(time.Second), snap.head.rev
		info.Keys = heldKeys(snap, id)
		return nil
	})
	return info, err
}

// Leases returns the ids of all leases, in order, and the store's revision.
func (s *Store) Leases(ctx context.Context) (ids []int64, revision int64, err error) {
	err = s.view(ctx, func(snap snapshot) error {
		revision = snap.head.rev
		c := snap.cursor(bucketLease)
		for k, _ := c.seek(nil); k != nil; k, _ = c.next() {
			ids = append(ids, idOf(k))
		}
		return nil
	})
	return ids, revision, err
}

func randomID() int64 {
	var b [8]byte
	rand.Read(b[:]) // never fails: see crypto/rand
	return int64(binary.BigEndian.Uint64(b[:]) >> 1)
}

// deadline of a lease, kept within what unix nanoseconds can say.
func deadline(now time.Time, ttl int64) int64 {
	if ttl > (math.MaxInt64-now.UnixNano())/int64(time.Second) {
		return math.MaxInt64
	}
	return now.UnixNano() + ttl*int64(time.Second)
}

func readLease(s snapshot, id int64) (lease, error) {
	key := idBytes(id)
	sealed := s.get(bucketLease, key)
	if sealed == nil {
		return lease{}, ErrLeaseNotFound
	}
	body, err := unseal(bucketLease, key, sealed)
	if err != nil {
		return lease{}, err
	}
	l, err := decodeLease(body)
	if err != nil {
		return lease{}, fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	return l, nil
}

// findLease returns a lease that has not ended. One whose time is up is gone
// for all callers, although housekeeping may still have to remove it.
func (g *group) findLease(id int64) (lease, error) {
	l, err := readLease(g.snapshot, id)
	if err == nil && l.deadline <= g.now.UnixNano() {
		return lease{}, ErrLeaseNotFound
	}
	return l, err
}

func (g *group) checkLease(id int64) error {
	_, err := g.findLease(id)
	return err
}

// idOf reads what idBytes wrote.
func idOf(b []byte) int64 { return int64(binary.BigEndian.Uint64(b)) }

func dueKey(id int64, l lease) []byte { return append(idBytes(l.deadline), idBytes(id)...) }

func heldPrefix(id int64) []byte { return idBytes(id) }

// nothing is the value of an entry that is all key.
func nothing(b []byte) []byte { return b }

func (g *group) setLease(id int64, l lease) {
	g.put(bucketLease, idBytes(id), l.appendTo)
	g.put(bucketDue, dueKey(id, l), nothing)
}

// hold moves a key from one lease to another; 0 is none.
func (g *group) hold(key []byte, from, to int64) {
	if from == to {
		return
	}
	if from != 0 {
		g.remove(bucketHeld, append(heldPrefix(from), key...))
	}
	if to != 0 {
		g.put(bucketHeld, append(heldPrefix(to), key...), nothing)
	}
}

func heldKeys(s snapshot, id int64) [][]byte {
	var keys [][]byte
	prefix, c := heldPrefix(id), s.cursor(bucketHeld)
	for k, _ := c.seek(prefix); bytes.HasPrefix(k, prefix); k, _ = c.next() {
		keys = append(keys, bytes.Clone(k[len(prefix):]))
	}
	return keys
}

// endLease removes a lease and, under one revision, its keys.
func (g *group) endLease(id int64, l lease) {
	w := g.begins()
	for _, key := range heldKeys(g.snapshot, id) {
		w.deleteRange(Range{Key: key})
	}
	w.ends()
	g.remove(bucketLease, idBytes(id))
	g.remove(bucketDue, dueKey(id, l))
}

// expire ends the leases whose time is up, and notes when the next one's is.
func (g *group) expire() {
	for g.err == nil {
		first, _ := g.cursor(bucketDue).seek(nil)
		if len(first) != 16 {
			g.keep.due = 0
			return
		}
		at, id := idOf(first), idOf(first[8:])
		if at > g.now.UnixNano() {
			g.keep.due = at
			return
		}
		l, err := readLease(g.snapshot, id)
		if g.check(err) {
			return
		}
		g.endLease(id, l)
	}
}

// clampLeases starts leases anew that would last longer than they were granted
// for: the clock has been set back since.
func (g *group) clampLeases() error {
	type clamped struct {
		id int64
		lease
	}
	var all []clamped
	cursor := g.cursor(bucketLease)
	for k, _ := cursor.seek(nil); k != nil; k, _ = cursor.next() {
		l, err := readLease(g.snapshot, idOf(k))
		if err != nil {
			return err
		}
		if l.deadline > deadline(g.now, l.ttl) {
			all = append(all, clamped{idOf(k), l})
		}
	}
	for _, c := range all {
		g.remove(bucketDue, dueKey(c.id, c.lease))
		c.deadline = deadline(g.now, c.ttl)
		g.setLease(c.id, c.lease)
	}
	return nil
}
