package store

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"testing"
	"time"
)

// run is one random life of a store beside its model.
type run struct {
	*rand.Rand
	t    *testing.T
	path string
	o    Options
	s    *Store
	m    *model
}

var alphabet = []string{"a", "a/", "a/b", "a/b/c", "a0", "ab", "b\xff", "b\xff\xff", "b\xff\x01", "c", "\x00", "\xff"}

func (r *run) key() []byte { return []byte(alphabet[r.IntN(len(alphabet))]) }

func (r *run) keys() Range {
	switch r.IntN(4) {
	case 0:
		return Range{Key: r.key()}
	case 1:
		return Prefix(r.key())
	case 2:
		return Range{Key: r.key(), End: openEnd}
	}
	return Range{Key: r.key(), End: r.key()}
}

func (r *run) revision() int64 {
	if r.IntN(2) == 0 {
		return 0
	}
	return 1 + r.Int64N(r.m.rev+2)
}

func (r *run) lease() int64 {
	if r.IntN(3) > 0 {
		return 0
	}
	return 1 + r.Int64N(4)
}

func (r *run) read() Read {
	return Read{
		Range: r.keys(), Revision: r.revision(), Limit: r.Int64N(4),
		KeysOnly: r.IntN(4) == 0, CountOnly: r.IntN(4) == 0,
	}
}

func (r *run) op() Op {
	switch r.IntN(5) {
	case 0:
		read := r.read()
		return Op{Read: &read}
	case 1:
		keys := r.keys()
		return Op{Delete: &keys}
	}
	return Op{Put: &Put{Key: r.key(), Value: fmt.Appendf(nil, "%x", r.Uint64()), Lease: r.lease()}}
}

func (r *run) txn() Txn {
	var t Txn
	for range r.IntN(3) {
		c := Compare{Key: r.key(), Target: Target(r.IntN(5)), Relation: Relation(r.IntN(4)), Number: r.Int64N(r.m.rev + 2), Value: r.key()}
		if kv := r.m.get(c.Key); kv != nil && r.IntN(2) == 0 {
			c = Compare{Key: c.Key, Target: ModRevision, Number: kv.ModRevision}
		}
		t.If = append(t.If, c)
	}
	for range 1 + r.IntN(3) {
		t.Then, t.Else = append(t.Then, r.op()), append(t.Else, r.op())
	}
	return t
}

// step does one random thing to both.
func (r *run) step() {
	switch n := r.IntN(100); {
	case n < 55:
		r.doTxn(r.txn())
	case n < 75:
		read := r.read()
		want, wantErr := r.m.read(read)
		got, err := r.s.Read(r.t.Context(), read)
		r.same(fmt.Sprintf("read %+v", read), got, err, want, wantErr)
	case n < 82:
		r.watch(1 + r.Int64N(r.m.rev+1))
	case n < 88:
		r.grantOrRevoke(1 + r.Int64N(4))
	case n < 92:
		r.clock().advance(time.Duration(r.IntN(30)) * time.Second)
		r.m.expire()
		r.settle()
	case n < 96:
		rev := 1 + r.Int64N(r.m.rev+1)
		_, err := r.s.Compact(r.t.Context(), rev)
		var want error
		if rev <= r.m.compacted {
			want = ErrCompacted
		} else if rev > r.m.rev {
			want = ErrFutureRevision
		} else {
			r.m.compacted = rev
		}
		if !errors.Is(err, want) {
			r.t.Fatalf("compact %d: %v, want %v", rev, err, want)
		}
	case n < 98:
		if err := r.s.flush(r.t.Context()); err != nil {
			r.t.Fatal(err)
		}
	default:
		verify(r.t, r.s)
		checkData(r.t, r.s)
		crash := r.IntN(2) == 0
		if crash {
			r.path = crashed(r.t, r.path)
		}
		if err := r.s.Close(); err != nil {
			r.t.Fatal(err)
		}
		r.s = openAt(r.t, r.path, r.o)
		r.settle()
	}
}

func (r *run) clock() *fakeClock { return r.m.clock }

// settle has the writer pass once, so that it has seen the clock.
func (r *run) settle() {
	if _, err := r.s.Txn(r.t.Context(), Txn{}); err != nil {
		r.t.Fatal(err)
	}
}

func (r *run) doTxn(t Txn) {
	got, err := r.s.Txn(r.t.Context(), t)
	if _, illegal := t.size(); illegal != nil {
		if !errors.Is(err, illegal) {
			r.t.Fatalf("%+v: %v, want %v", t, err, illegal)
		}
		return
	}
	want, wantErr := r.m.txn(t)
	r.same(fmt.Sprintf("txn %+v", t), got, err, want, wantErr)
}

func (r *run) grantOrRevoke(id int64) {
	if _, ok := r.m.leases[id]; ok {
		if r.IntN(2) == 0 {
			l := r.m.leases[id]
			l.deadline = deadline(r.clock().Now(), l.ttl)
			r.m.leases[id] = l
			if _, err := r.s.Renew(r.t.Context(), id); err != nil {
				r.t.Fatal(err)
			}
			return
		}
		r.m.end(id)
		if rev, err := r.s.Revoke(r.t.Context(), id); err != nil || rev != r.m.rev {
			r.t.Fatalf("revoke %d: %d, %v, want %d", id, rev, err, r.m.rev)
		}
		return
	}
	ttl := 1 + r.Int64N(60)
	r.m.leases[id] = lease{ttl: ttl, deadline: deadline(r.clock().Now(), ttl)}
	if _, err := r.s.Grant(r.t.Context(), id, ttl); err != nil {
		r.t.Fatal(err)
	}
}

// watch compares everything from a revision on with history.
func (r *run) watch(from int64) {
	keys := r.keys()
	c, err := r.s.Watch(keys, from)
	if err != nil {
		r.t.Fatal(err)
	}
	defer c.Close()
	var got []Event
	for {
		b, _, err := c.Poll(r.t.Context())
		if from <= r.m.compacted {
			if !errors.Is(err, ErrCompacted) {
				r.t.Fatalf("watch from %d, compacted %d: %v", from, r.m.compacted, err)
			}
			return
		}
		if err != nil {
			r.t.Fatal(err)
		}
		if got = append(got, b.Events...); len(b.Events) == 0 {
			break
		}
	}
	var want []Event
	for _, e := range r.m.history {
		if e.revision() >= from && keys.Contains(e.KV.Key) {
			want = append(want, e)
		}
	}
	if g, w := show(got), show(want); g != w {
		r.t.Fatalf("watch %q from %d\n got %s\nwant %s", keys, from, g, w)
	}
}

func (r *run) same(what string, got any, err error, want any, wantErr error) {
	r.t.Helper()
	if !errors.Is(err, wantErr) || (err == nil) != (wantErr == nil) {
		r.t.Fatalf("%s: error %v, want %v", what, err, wantErr)
	}
	if err != nil {
		return
	}
	if g, w := show(got), show(want); g != w {
		r.t.Fatalf("%s\n got %s\nwant %s", what, g, w)
	}
}

// show prints a result with everything that it points at.
func show(v any) string {
	switch v := v.(type) {
	case *KeyValue:
		if v == nil {
			return "-"
		}
		return fmt.Sprintf("%q=%q@%d+%d#%d~%d", v.Key, v.Value, v.ModRevision, v.CreateRevision, v.Version, v.Lease)
	case []*KeyValue:
		s := ""
		for _, kv := range v {
			s += " " + show(kv)
		}
		return s
	case []Event:
		s := ""
		for _, e := range v {
			s += fmt.Sprintf(" {%v %s was %s}", e.Deleted, show(e.KV), show(e.Prev))
		}
		return s
	case *ReadResult:
		if v == nil {
			return "-"
		}
		return fmt.Sprintf("[%s] of %d more %v at %d", show(v.KVs), v.Count, v.More, v.Revision)
	case *TxnResult:
		s := fmt.Sprintf("%v at %d:", v.Succeeded, v.Revision)
		for _, r := range v.Results {
			s += fmt.Sprintf(" (%s |%s)", show(r.Read), show(r.Prev))
		}
		return s
	}
	return fmt.Sprint(v)
}

// TestModel lives many random lives, with crashes in between. Ring, sweep, layers
// and batches are made small, so that their edges are met all the time.
func TestModel(t *testing.T) {
	for seed := range uint64(30) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			clock := newFakeClock()
			r := &run{
				Rand: rand.New(rand.NewPCG(seed, 2)), t: t, m: newModel(clock),
				path: filepath.Join(t.TempDir(), "store.db"),
				o: Options{
					NoSync: true, Clock: clock, HotBytes: 1 + int(seed)*300, SweepSlice: 1 + int(seed)%5,
					pace: pace{layerBytes: 1 + int(seed%4)*700, backlogBytes: 2000, layerAge: time.Minute, retry: time.Second},
				},
			}
			r.s = openAt(t, r.path, r.o)
			for range 300 {
				r.step()
			}
		})
	}
}
