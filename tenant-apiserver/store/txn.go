package store

import (
	"bytes"
	"cmp"
	"context"
)

// Txn runs a transaction and returns when it is on disk. Conditions that do not
// hold are no error: Else is run. Errors, with nothing changed: ErrEmptyKey,
// ErrTooLarge, ErrDuplicateKey, ErrLeaseNotFound, ErrCompacted,
// ErrFutureRevision, ErrNoSpace, ErrQuota. The error of ctx, and ErrFailed, leave open
// whether the transaction took effect.
func (s *Store) Txn(ctx context.Context, t Txn) (*TxnResult, error) {
	size, err := t.size()
	if err != nil {
		return nil, err
	}
	if size > s.o.MaxRequestBytes {
		return nil, ErrTooLarge
	}
	var out *TxnResult
	err = s.submit(ctx, size+max(len(t.Then), len(t.Else))*opOverhead, func(g *group) (err error) {
		out, err = g.txn(t)
		return err
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// txn evaluates a transaction. What can refuse it is looked at before the first
// write.
func (g *group) txn(t Txn) (*TxnResult, error) {
	out := &TxnResult{Succeeded: true}
	for _, c := range t.If {
		holds, err := g.holds(c)
		if g.check(err) {
			return nil, err
		}
		out.Succeeded = out.Succeeded && holds
	}
	ops := t.Then
	if !out.Succeeded {
		ops = t.Else
	}
	need := int64(0)
	for _, op := range ops {
		if err := g.allowed(op); err != nil {
			return nil, err
		}
		if op.Put != nil {
			need += putBytes(op.Put)
		}
	}
	if need > 0 {
		if err := g.admit(need); err != nil {
			return nil, err
		}
	}
	w := g.begins()
	out.Results = make([]OpResult, len(ops))
	for i, op := range ops {
		out.Results[i] = w.op(op)
	}
	w.ends()
	out.Revision = g.head.rev
	return out, g.err
}

// holds evaluates one condition.
func (g *group) holds(c Compare) (bool, error) {
	e, err := g.entry(c.Key)
	if err != nil {
		return false, err
	}
	if c.Target == Value {
		if !e.live() {
			return false, nil
		}
		r, err := g.record(e.at)
		return c.Relation.of(bytes.Compare(r.value, c.Value)), err
	}
	if !e.live() {
		e = entry{}
	}
	return c.Relation.of(cmp.Compare(e.number(c.Target), c.Number)), nil
}

func (e entry) number(t Target) int64 {
	switch t {
	case ModRevision:
		return e.at.rev
	case CreateRevision:
		return e.create
	case Version:
		return e.version
	case Lease:
		return e.lease
	}
	return 0
}

// of says whether the relation admits the outcome of a comparison.
func (r Relation) of(outcome int) bool {
	switch r {
	case Equal:
		return outcome == 0
	case NotEqual:
		return outcome != 0
	case Greater:
		return outcome > 0
	case Less:
		return outcome < 0
	}
	return false
}

// allowed says what would refuse an op.
func (g *group) allowed(op Op) error {
	switch {
	case op.Read != nil:
		return g.checkRevision(op.Read.Revision)
	case op.Put != nil && op.Put.Lease != 0:
		return g.checkLease(op.Put.Lease)
	}
	return nil
}

// writes is one transaction's share of a group: what it writes has one revision.
type writes struct {
	*group
	next pos
}

func (g *group) begins() *writes { return &writes{group: g, next: pos{rev: g.head.rev + 1}} }

// ends makes the revision count, when something was written under it.
func (w *writes) ends() {
	if w.next.sub > 0 {
		w.head.rev = w.next.rev
	}
}

func (w *writes) op(op Op) OpResult {
	switch {
	case op.Read != nil:
		read, err := w.read(*op.Read)
		w.check(err)
		return OpResult{Read: read}
	case op.Put != nil:
		return OpResult{Prev: w.putKey(*op.Put)}
	case op.Delete != nil:
		return OpResult{Prev: w.deleteRange(*op.Delete)}
	}
	return OpResult{}
}

// putKey writes one key and returns what it replaced.
func (w *writes) putKey(p Put) []*KeyValue {
	before, err := w.entry(p.Key)
	if w.check(err) {
		return nil
	}
	e := entry{create: before.create, version: before.version + 1, lease: p.Lease}
	if !before.live() {
		e.create = w.next.rev
	}
	kv := &KeyValue{
		Key: p.Key, Value: p.Value, Lease: p.Lease,
		ModRevision: w.next.rev, CreateRevision: e.create, Version: e.version,
	}
	return w.append(before, e, kv)
}

// deleteRange deletes the live keys of a range and returns what they were.
func (w *writes) deleteRange(r Range) []*KeyValue {
	type found struct {
		key []byte
		entry
	}
	var all []found // collected first: a cursor must not see its bucket change
	err := w.each(r, func(key []byte, e entry) error {
		if e.live() {
			all = append(all, found{bytes.Clone(key), e})
		}
		return nil
	})
	if w.check(err) {
		return nil
	}
	var prev []*KeyValue
	for _, f := range all {
		prev = append(prev, w.append(f.entry, entry{}, &KeyValue{Key: f.key, ModRevision: w.next.rev})...)
	}
	return prev
}

// append writes the record that turns before into e and notes the event. It
// returns the value before, none or one.
func (w *writes) append(before, e entry, kv *KeyValue) []*KeyValue {
	var prev []*KeyValue
	if before.live() {
		old, err := w.keyValue(kv.Key, before, false)
		if w.check(err) {
			return nil
		}
		prev = []*KeyValue{old}
	}
	e.at = w.next
	w.next.sub++
	r := record{
		deleted: !e.live(), create: e.create, version: e.version, lease: e.lease,
		prev: before.at, key: kv.Key, value: kv.Value,
	}
	var place [posLen]byte
	w.write(bucketLog, e.at.appendTo(place[:0]), absent, r.appendTo)
	w.write(bucketCur, kv.Key, before.sealedSize(), e.appendTo)
	w.hold(kv.Key, before.lease, e.lease)

	ev := Event{Deleted: !e.live(), KV: kv}
	if prev != nil {
		ev.Prev = prev[0]
	}
	w.events = append(w.events, ev)
	return prev
}
