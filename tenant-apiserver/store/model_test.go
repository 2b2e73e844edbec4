package store

import (
	"bytes"
	"cmp"
	"slices"
)

// model is the store as one would explain it: a list of everything that ever
// happened, looked through from the start for each question.
type model struct {
	clock     *fakeClock
	rev       int64
	compacted int64
	history   []Event
	leases    map[int64]lease
}

func newModel(c *fakeClock) *model { return &model{clock: c, rev: 1, leases: map[int64]lease{}} }

// at returns the keys as of a revision, in order.
func (m *model) at(rev int64) []*KeyValue {
	keys := map[string]*KeyValue{}
	for _, e := range m.history {
		if e.revision() > rev {
			break
		}
		keys[string(e.KV.Key)] = e.KV
		if e.Deleted {
			delete(keys, string(e.KV.Key))
		}
	}
	var out []*KeyValue
	for _, kv := range keys {
		out = append(out, kv)
	}
	slices.SortFunc(out, func(a, b *KeyValue) int { return bytes.Compare(a.Key, b.Key) })
	return out
}

func (m *model) get(key []byte) *KeyValue {
	for i := len(m.history) - 1; i >= 0; i-- {
		if e := m.history[i]; bytes.Equal(e.KV.Key, key) {
			if e.Deleted {
				return nil
			}
			return e.KV
		}
	}
	return nil
}

func (m *model) read(r Read) (*ReadResult, error) {
	rev := cmp.Or(r.Revision, m.rev)
	switch {
	case rev > m.rev:
		return nil, ErrFutureRevision
	case r.Revision > 0 && rev < m.compacted:
		return nil, ErrCompacted
	}
	out := &ReadResult{Revision: m.rev}
	for _, kv := range m.at(rev) {
		if !r.Contains(kv.Key) {
			continue
		}
		out.Count++
		if r.CountOnly {
			continue
		}
		if r.Limit > 0 && int64(len(out.KVs)) == r.Limit {
			out.More = true
			continue
		}
		if r.KeysOnly {
			bare := *kv
			bare.Value = nil
			kv = &bare
		}
		out.KVs = append(out.KVs, kv)
	}
	return out, nil
}

func (m *model) txn(t Txn) (*TxnResult, error) {
	out := &TxnResult{Succeeded: true}
	for _, c := range t.If {
		var have entry
		kv := m.get(c.Key)
		if kv != nil {
			have = entry{at: pos{rev: kv.ModRevision}, create: kv.CreateRevision, version: kv.Version, lease: kv.Lease}
		}
		outcome := cmp.Compare(have.number(c.Target), c.Number)
		if c.Target == Value && kv != nil {
			outcome = bytes.Compare(kv.Value, c.Value)
		}
		out.Succeeded = out.Succeeded && !(c.Target == Value && kv == nil) && c.Relation.of(outcome)
	}
	ops := t.Then
	if !out.Succeeded {
		ops = t.Else
	}
	for _, op := range ops {
		if op.Put != nil && op.Put.Lease != 0 {
			if _, ok := m.leases[op.Put.Lease]; !ok {
				return nil, ErrLeaseNotFound
			}
		}
		if op.Read != nil {
			if _, err := m.read(*op.Read); err != nil {
				return nil, err
			}
		}
	}
	next := m.rev + 1
	for _, op := range ops {
		out.Results = append(out.Results, m.apply(op, next))
	}
	if n := len(m.history); n > 0 && m.history[n-1].revision() == next {
		m.rev = next
	}
	out.Revision = m.rev
	return out, nil
}

func (m *model) apply(op Op, rev int64) OpResult {
	switch {
	case op.Read != nil:
		res, _ := m.read(*op.Read)
		if op.Read.Revision == 0 {
			old := m.rev
			m.rev = rev // a transaction reads what it wrote
			res, _ = m.read(*op.Read)
			m.rev = old
			res.Revision = old
		}
		return OpResult{Read: res}
	case op.Put != nil:
		prev := m.get(op.Put.Key)
		kv := &KeyValue{Key: op.Put.Key, Value: op.Put.Value, Lease: op.Put.Lease, ModRevision: rev, CreateRevision: rev, Version: 1}
		res := OpResult{}
		if prev != nil {
			kv.CreateRevision, kv.Version, res.Prev = prev.CreateRevision, prev.Version+1, []*KeyValue{prev}
		}
		m.history = append(m.history, Event{KV: kv, Prev: prev})
		return res
	default:
		return OpResult{Prev: m.delete(*op.Delete, rev)}
	}
}

func (m *model) delete(r Range, rev int64) []*KeyValue {
	var prev []*KeyValue
	for _, kv := range m.at(1 << 62) {
		if r.Contains(kv.Key) {
			m.history = append(m.history, Event{Deleted: true, KV: &KeyValue{Key: kv.Key, ModRevision: rev}, Prev: kv})
			prev = append(prev, kv)
		}
	}
	return prev
}

func (m *model) end(id int64) {
	for _, kv := range m.at(m.rev) {
		if kv.Lease == id {
			m.delete(Range{Key: kv.Key}, m.rev+1)
		}
	}
	if n := len(m.history); n > 0 && m.history[n-1].revision() > m.rev {
		m.rev++
	}
	delete(m.leases, id)
}

func (m *model) expire() {
	for {
		first, deadline := int64(0), m.clock.Now().UnixNano()
		for id, l := range m.leases {
			if l.deadline < deadline || l.deadline == deadline && (first == 0 || id < first) {
				first, deadline = id, l.deadline
			}
		}
		if first == 0 {
			return
		}
		m.end(first)
	}
}
