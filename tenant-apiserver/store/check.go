package store

import (
	"bytes"
	"context"
	"fmt"
	"strings"
)

// maxProblems bounds a report: a file with more is not worth a longer list.
const maxProblems = 100

// Report is what a check found.
type Report struct {
	Stats
	// Keys live, Tombstones deleted and still in the history, Records in the
	// log, Leases: how many were looked at. Writes meanwhile may come in between.
	Keys, Tombstones, Records, Leases int64
	// ValueBytes is the sum of the live values, Largest the key of the longest.
	ValueBytes   int64
	Largest      string
	LargestBytes int64
	// Problems say what is damaged, in words; empty: nothing was found.
	Problems []string
}

// OK says whether no problem was found.
func (r Report) OK() bool { return len(r.Problems) == 0 }

// Check is one look through all of an open store, in steps, each in a read
// transaction of its own: every value's checksum and form, and that the log, the
// keys and the leases name each other, so that a page that lost entries is
// noticed too. It is used by one goroutine.
type Check struct {
	s      *Store
	report Report
	bucket int    // of counted
	after  []byte // the last key looked at
	last   int64  // revision of the last log record looked at
}

// NewCheck begins a check at the first key.
func (s *Store) NewCheck() *Check { return &Check{s: s} }

// Step looks at the next n entries at most; done is true after the last one.
// Damage puts the store out of service (see [Store.Failed]) and is an error that
// wraps ErrCorrupt; other errors say that the check cannot go on.
func (c *Check) Step(ctx context.Context, n int) (done bool, err error) {
	err = c.s.view(ctx, func(snap snapshot) error {
		if err := c.step(snap, n); err != nil {
			return err
		}
		if len(c.report.Problems) > 0 {
			return fmt.Errorf("%w: %s", ErrCorrupt, c.report.Problems[0])
		}
		return nil
	})
	return c.bucket == len(counted), err
}

// Report returns what was found so far.
func (c *Check) Report() Report { return c.report }

// CheckNow runs a whole check without pause.
func (s *Store) CheckNow(ctx context.Context) (Report, error) {
	c := s.NewCheck()
	for {
		done, err := c.Step(ctx, sliceEntries)
		if err != nil || done {
			return c.Report(), err
		}
	}
}

// sliceEntries bounds one read transaction of a check that does not pause.
const sliceEntries = 4096

// step looks at n entries of one snapshot.
func (c *Check) step(snap snapshot, n int) error {
	c.report.Stats = statsOf(snap)
	for n > 0 && c.bucket < len(counted) && len(c.report.Problems) < maxProblems {
		name := counted[c.bucket]
		cursor := snap.cursor(name)
		k, v := c.seek(cursor)
		for ; k != nil && n > 0; k, v = cursor.next() {
			c.entry(snap, name, k, v)
			c.after = append(c.after[:0], k...)
			n--
		}
		if k == nil {
			c.endBucket(snap, name)
			c.bucket, c.after = c.bucket+1, nil
		}
	}
	return nil
}

func (c *Check) seek(cursor *cursor) (k, v []byte) {
	k, v = cursor.seek(c.after)
	if c.after != nil && bytes.Equal(k, c.after) {
		return cursor.next()
	}
	return k, v
}

func (c *Check) problem(format string, args ...any) {
	if len(c.report.Problems) < maxProblems {
		c.report.Problems = append(c.report.Problems, plain(fmt.Sprintf(format, args...)))
	}
}

// plain leaves out what is said of every problem.
func plain(problem string) string {
	return strings.ReplaceAll(problem, ErrCorrupt.Error()+": ", "")
}

// entry checks one entry by itself, and then against the others.
func (c *Check) entry(snap snapshot, bucket bucketID, key, sealed []byte) {
	err := checkValue(bucket, key, sealed)
	if err == nil {
		switch bucket {
		case bucketCur:
			err = c.key(snap, key, sealed)
		case bucketLog:
			err = c.record(snap, key, sealed)
		case bucketLease:
			c.report.Leases++
			err = checkLease(snap, key)
		case bucketDue:
			err = checkDue(snap, key)
		case bucketHeld:
			err = checkHeld(snap, key)
		}
	}
	if err != nil {
		c.problem("%v", err)
	}
}

// key wants the record that cur leads to, saying the same.
func (c *Check) key(snap snapshot, key, sealed []byte) error {
	e, err := openEntry(key, sealed)
	if err != nil {
		return err
	}
	r, err := snap.record(e.at)
	if err != nil {
		return fmt.Errorf("key %q: %w", key, err)
	}
	if !bytes.Equal(r.key, key) || r.deleted == e.live() || r.create != e.create || r.version != e.version || r.lease != e.lease {
		return fmt.Errorf("%w: key %q and its record %d/%d disagree", ErrCorrupt, key, e.at.rev, e.at.sub)
	}
	if !e.live() {
		c.report.Tombstones++
		return nil
	}
	c.report.Keys++
	c.report.ValueBytes += int64(len(r.value))
	if n := int64(len(r.value)); n > c.report.LargestBytes {
		c.report.Largest, c.report.LargestBytes = string(key), n
	}
	if e.lease != 0 && snap.get(bucketHeld, append(heldPrefix(e.lease), key...)) == nil {
		return fmt.Errorf("%w: key %q is not in the index of its lease", ErrCorrupt, key)
	}
	return nil
}

// record wants a log record to be known to its key, and the ones before it to
// be there, for the key and in the log.
func (c *Check) record(snap snapshot, place, sealed []byte) error {
	c.report.Records++
	at, err := decodePos(place)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	if next := c.contiguous(snap); at.rev > next {
		c.problem("%v: log records of the revisions %d to %d are missing", ErrCorrupt, next, at.rev-1)
	}
	c.last = at.rev
	if at.rev > snap.head.rev {
		return fmt.Errorf("%w: the log is ahead of its head", ErrCorrupt)
	}
	r, err := openRecord(place, sealed)
	if err != nil {
		return err
	}
	e, err := snap.entry(r.key)
	if err != nil {
		return err
	}
	if at.rev >= snap.head.compacted && (e.at.rev < at.rev || e.at.rev == at.rev && e.at.sub < at.sub) {
		return fmt.Errorf("%w: log record %d/%d is not known to its key %q", ErrCorrupt, at.rev, at.sub, r.key)
	}
	if r.prev == (pos{}) {
		return nil
	}
	_, found, err := snap.lookup(r.prev)
	if err == nil && !found {
		err = snap.missing(r.prev)
	}
	return err
}

func checkLease(snap snapshot, key []byte) error {
	l, err := readLease(snap, idOf(key))
	if err == nil && snap.get(bucketDue, dueKey(idOf(key), l)) == nil {
		err = fmt.Errorf("%w: lease %d would never end", ErrCorrupt, idOf(key))
	}
	return err
}

func checkDue(snap snapshot, key []byte) error {
	if len(key) != 16 {
		return fmt.Errorf("%w: due/%x", ErrCorrupt, key)
	}
	l, err := readLease(snap, idOf(key[8:]))
	if err != nil || l.deadline != idOf(key) {
		return fmt.Errorf("%w: lease %d is due at a time that is not its end", ErrCorrupt, idOf(key[8:]))
	}
	return nil
}

func checkHeld(snap snapshot, key []byte) error {
	if len(key) <= 8 {
		return fmt.Errorf("%w: held/%x", ErrCorrupt, key)
	}
	e, err := snap.entry(key[8:])
	if err != nil {
		return err
	}
	if _, leaseErr := readLease(snap, idOf(key)); leaseErr != nil || !e.live() || e.lease != idOf(key) {
		return fmt.Errorf("%w: the index of lease %d names key %q, which does not hang on it", ErrCorrupt, idOf(key), key[8:])
	}
	return nil
}

// endBucket checks what only the end of a bucket can tell.
func (c *Check) endBucket(snap snapshot, name bucketID) {
	if next := c.contiguous(snap); name == bucketLog && next <= snap.head.rev {
		c.problem("%v: log records of the revisions %d to %d are missing", ErrCorrupt, next, snap.head.rev)
	}
}

// contiguous returns the revision that must come next in the log: compaction
// takes none above the compacted one, and the first revision writes nothing.
func (c *Check) contiguous(snap snapshot) int64 {
	return max(c.last, snap.head.compacted, 1) + 1
}

func statsOf(snap snapshot) Stats {
	return Stats{FileBytes: snap.tx.Size(), UsedBytes: snap.data, Revision: snap.head.rev, Compacted: snap.head.compacted, ID: snap.head.id}
}
