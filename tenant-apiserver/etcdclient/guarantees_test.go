package etcdclient_test

import (
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/kubernetes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"sublet.dev/tenant-apiserver/etcdclient"
	"sublet.dev/tenant-apiserver/store"
)

// TestWatchGuarantees holds watches against what etcd promises of them
// (https://etcd.io/docs/v3.7/learning/api_guarantees/): ordered, unique, reliable,
// atomic, resumable, bookmarkable. Writers, a compaction and watchers of all
// kinds run at the same time, while the store is closed and opened again below
// them in the midst of writes. What was seen is compared afterwards (history_test.go).
func TestWatchGuarantees(t *testing.T) {
	w := &world{path: filepath.Join(t.TempDir(), "store.db"), options: store.Options{NoSync: true}}
	w.open(t)
	defer func() { w.store.Close() }()
	const writers, lives = 4, 12
	all := followers(t, w)
	recorder := all[0]
	var watching, writing, compacting sync.WaitGroup
	for _, r := range all {
		watching.Go(r.run)
	}
	for i := range writers {
		writing.Go(func() { w.write(t, fmt.Sprint(i), lives*100) })
	}
	stop := make(chan struct{})
	compacting.Go(func() { w.compact(t, recorder, stop) })
	for life := 1; life < lives; life++ {
		w.await(t, "writes in each life", func() bool { return w.writes.Load() >= int64(life*writers*90) })
		w.reopen(t)
	}
	writing.Wait()
	close(stop)
	compacting.Wait()
	w.finish(t)
	watching.Wait()
	w.judge(t, all)
}

// followers are watchers of all kinds. The first sees everything, and is what the
// others are compared with.
func followers(t *testing.T, w *world) []*follower {
	all := []*follower{{w: w, t: t, steady: true}}
	for i := range 16 {
		all = append(all, &follower{w: w, t: t, id: i + 1, key: []string{"", "a/", "b/", "a/1"}[i%4], slow: i%3 == 0, restless: i%2 == 0})
	}
	return all
}

// finish makes the last write, after which the watchers leave.
func (w *world) finish(t *testing.T) {
	rev := put(t, w.client().c.KV, "last", "x")
	w.acked.Store(rev, []change{{"last", "x"}})
	w.final.Store(rev)
}

// judge compares what all have seen.
func (w *world) judge(t *testing.T, all []*follower) {
	t.Helper()
	if t.Failed() {
		return
	}
	h := newHistory(t, w, all[0])
	compacted, bookmarks, segments := 0, 0, 0
	for i, r := range all {
		for _, s := range r.segments {
			if err := h.explains(*s); err != nil {
				t.Errorf("watcher %d of %q, from %d: %v", i, r.key, s.from, err)
			}
			bookmarks += len(s.bookmarks)
		}
		for _, l := range r.lists {
			if err := h.explainsList(l); err != nil {
				t.Errorf("watcher %d of %q: %v", i, r.key, err)
			}
		}
		compacted, segments = compacted+len(r.lists), segments+len(r.segments)
	}
	t.Logf("%d revisions, %d watches, %d of them compacted, %d bookmarks, %d writes cut off",
		w.final.Load(), segments, compacted, bookmarks, w.unknown.Load())
	if compacted == 0 || bookmarks == 0 || w.unknown.Load() == 0 {
		t.Errorf("%d compacted watches, %d bookmarks, %d writes cut off: each has to be met", compacted, bookmarks, w.unknown.Load())
	}
}

// world is a store that is closed and opened again, and what was written to it.
type world struct {
	path  string
	store *store.Store

	mu   sync.RWMutex // held for writing while the store is not open
	now  life
	done chan struct{} // closed at the end of the present life

	writes  atomic.Int64 // acknowledged
	acked   sync.Map     // revision -> []change
	maybe   sync.Map     // value -> []change: of writes whose outcome is not known
	unknown atomic.Int64
	target  atomic.Int64 // of the compactions so far
	final   atomic.Int64 // the last revision, once it is known

	options store.Options
	note    func(record) // told of everything as it happens; nil: nobody
}

// tell notes what happened.
func (w *world) tell(r record) {
	if w.note != nil {
		w.note(r)
	}
}

// life is a client between two closings of the store.
type life struct {
	c    *kubernetes.Client
	over <-chan struct{}
}

// change is one key of a write; value "" is a deletion.
type change struct{ Key, Value string }

func (w *world) open(t *testing.T) {
	o := w.options
	o.HotBytes, o.SweepSlice = 4<<10, 16
	s, err := store.Open(w.path, o)
	if err != nil {
		t.Fatal(err)
	}
	w.store, w.done = s, make(chan struct{})
	w.now = life{etcdclient.New(s, etcdclient.WithProgressInterval(3*time.Millisecond)), w.done}
}

// reopen closes the store while it is in use.
func (w *world) reopen(t *testing.T) {
	err := w.store.Close()
	w.mu.Lock()
	defer w.mu.Unlock()
	if err != nil {
		t.Error(err)
	}
	w.now.c.Close()
	close(w.done)
	w.open(t)
}

func (w *world) client() life {
	w.mu.RLock()
	defer w.mu.RUnlock()
	return w.now
}

// await polls, for what nobody signals.
func (w *world) await(t *testing.T, what string, is func() bool) {
	t.Helper()
	timeout := time.After(time.Minute)
	for !is() {
		select {
		case <-timeout:
			t.Fatalf("%s: did not come", what)
		case <-time.After(time.Millisecond):
		}
	}
}

// write makes n changes: puts, deletions, and transactions of both prefixes.
func (w *world) write(t *testing.T, id string, n int) {
	for i := 0; i < n; i++ {
		l, value := w.client(), fmt.Sprintf("%s.%d", id, i)
		key := fmt.Sprint(rand.IntN(8))
		all := []change{{"a/" + key, value}}
		switch i % 5 {
		case 3:
			all = []change{{"a/" + key, value}, {"b/" + key, value}, {fmt.Sprint("c/", id), value}}
		case 4: // its value is told by the put beside it
			all = []change{{"b/" + key, ""}, {fmt.Sprint("c/", id), value}}
		}
		var ops []clientv3.Op
		for _, c := range all {
			if c.Value == "" {
				ops = append(ops, clientv3.OpDelete(c.Key))
			} else {
				ops = append(ops, clientv3.OpPut(c.Key, c.Value))
			}
		}
		w.tell(record{Tried: all})
		res, err := l.c.KV.Txn(t.Context()).Then(ops...).Commit()
		switch {
		case err == nil:
			w.tell(record{Tried: all, Acked: res.Header.Revision})
			w.acked.Store(res.Header.Revision, all)
			w.writes.Add(1)
		case status.Code(err) == codes.Unavailable:
			w.maybe.Store(value, all)
			w.unknown.Add(1)
			<-l.over
		default:
			t.Errorf("write: %v", err)
			return
		}
	}
}

// compact compacts again and again, but leaves the recorder what it has not seen.
func (w *world) compact(t *testing.T, recorder *follower, stop <-chan struct{}) {
	for {
		select {
		case <-stop:
			return
		case <-time.After(5 * time.Millisecond):
		}
		rev := recorder.seen.Load() - rand.Int64N(50)
		if rev <= w.target.Load() {
			continue
		}
		w.target.Store(rev)
		w.tell(record{Compact: rev})
		if _, err := w.client().c.KV.Compact(t.Context(), rev); err != nil && status.Code(err) != codes.Unavailable {
			t.Errorf("compact at %d: %v", rev, err)
		}
	}
}
