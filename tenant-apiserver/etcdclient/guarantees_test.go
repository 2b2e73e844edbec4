package etcdclient_test

import (
	"context"
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
	w := &world{path: filepath.Join(t.TempDir(), "store.db")}
	w.open(t)
	defer func() { w.store.Close() }()
	const writers, readers, lives = 4, 16, 12
	recorder := &follower{w: w, t: t, key: "", steady: true}
	all := []*follower{recorder}
	for i := range readers {
		all = append(all, &follower{w: w, t: t, key: []string{"", "a/", "b/", "a/1"}[i%4], slow: i%3 == 0, restless: i%2 == 0})
	}
	var watching, writing, compacting sync.WaitGroup
	for _, r := range all {
		watching.Go(r.run)
	}
	for i := range writers {
		writing.Go(func() { w.write(t, i, lives*100) })
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
	w.final.Store(put(t, w.client().c.KV, "last", "x"))
	w.acked.Store(w.final.Load(), []change{{"last", "x"}})
	watching.Wait()
	if t.Failed() {
		return
	}
	h := newHistory(t, w, recorder)
	compacted, bookmarks, segments := 0, 0, 0
	for i, r := range all {
		for _, s := range r.segments {
			if err := h.explains(s); err != nil {
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
	t.Logf("%d revisions, %d watches, %d of them compacted, %d bookmarks", w.final.Load(), segments, compacted, bookmarks)
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
}

// life is a client between two closings of the store.
type life struct {
	c    *kubernetes.Client
	over <-chan struct{}
}

// change is one key of a write; value "" is a deletion.
type change struct{ key, value string }

func (w *world) open(t *testing.T) {
	s, err := store.Open(w.path, store.Options{HotBytes: 4 << 10, SweepSlice: 16, NoSync: true})
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
func (w *world) write(t *testing.T, id, n int) {
	for i := 0; i < n; i++ {
		l, value := w.client(), fmt.Sprintf("%d.%d", id, i)
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
			if c.value == "" {
				ops = append(ops, clientv3.OpDelete(c.key))
			} else {
				ops = append(ops, clientv3.OpPut(c.key, c.value))
			}
		}
		res, err := l.c.KV.Txn(t.Context()).Then(ops...).Commit()
		switch {
		case err == nil:
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
		if _, err := w.client().c.KV.Compact(t.Context(), rev); err != nil && status.Code(err) != codes.Unavailable {
			t.Errorf("compact at %d: %v", rev, err)
		}
	}
}

// follower follows a prefix, or a key, to the last revision, with as many
// watches as it takes.
type follower struct {
	w        *world
	t        *testing.T
	key      string
	steady   bool // never leaves by itself, never begins earlier than it must
	slow     bool
	restless bool // leaves and begins again, at all kinds of revisions

	seen       atomic.Int64 // everything up to it was given
	bookmarked int64
	segments   []segment
	lists      []listing
}

// segment is what one watch gave.
type segment struct {
	key       string
	from      int64
	responses [][]*clientv3.Event
	bookmarks []bookmark
}

// bookmark is a progress notice: all up to rev was given in the first so many responses.
type bookmark struct {
	rev   int64
	after int
}

func (r *follower) options() []clientv3.OpOption {
	if r.key == "a/1" {
		return nil
	}
	return []clientv3.OpOption{clientv3.WithPrefix()}
}

func (r *follower) run() {
	r.seen.Store(1)
	for from := int64(2); r.w.final.Load() == 0 || r.seen.Load() < r.w.final.Load(); from = r.next() {
		l := r.w.client()
		ctx, cancel := context.WithTimeout(r.t.Context(), time.Minute)
		again := r.follow(ctx, l, from)
		cancel()
		if !again {
			return
		}
	}
}

// next is where to resume: behind what was given, behind a bookmark, or anywhere before.
func (r *follower) next() int64 {
	if r.restless {
		switch rand.IntN(4) {
		case 0:
			return 1 + rand.Int64N(r.seen.Load()+1)
		case 1:
			return r.bookmarked + 1
		}
	}
	return r.seen.Load() + 1
}

// follow is one watch. false: nothing more can be tested.
func (r *follower) follow(ctx context.Context, l life, from int64) bool {
	s := segment{key: r.key, from: from}
	defer func() { r.segments = append(r.segments, s) }()
	from = max(from, 1)
	s.from = from
	opts := append(r.options(), clientv3.WithRev(from), clientv3.WithPrevKV(), clientv3.WithProgressNotify())
	for res := range l.c.Watch(ctx, r.key, opts...) {
		switch {
		case res.CompactRevision != 0:
			if from > r.w.target.Load() || r.steady {
				r.t.Errorf("from %d is refused as compacted at %d, asked for was %d", from, res.CompactRevision, r.w.target.Load())
			}
			return r.list(ctx, l)
		case res.Canceled: // the store was closed
			<-l.over
			return true
		case len(res.Events) == 0:
			s.bookmarks = append(s.bookmarks, bookmark{res.Header.Revision, len(s.responses)})
			r.bookmarked = res.Header.Revision
		default:
			s.responses = append(s.responses, res.Events)
		}
		if rev := max(r.seen.Load(), last(res)); rev >= from-1 {
			r.seen.Store(rev)
		}
		if final := r.w.final.Load(); final > 0 && r.seen.Load() >= final {
			return true
		}
		if r.slow {
			<-time.After(time.Duration(rand.IntN(2000)) * time.Microsecond)
		}
		if r.restless && rand.IntN(20) == 0 {
			return true
		}
	}
	if ctx.Err() != nil {
		r.t.Errorf("the watch of %q from %d has stopped at %d", r.key, from, r.seen.Load())
		return false
	}
	<-l.over // the client was closed
	return true
}

// last is the revision up to which a response has given everything.
func last(res clientv3.WatchResponse) int64 {
	if n := len(res.Events); n > 0 {
		return res.Events[n-1].Kv.ModRevision
	}
	return res.Header.Revision
}

// listing is a list made where a watch could not be resumed.
type listing struct {
	key string
	res *clientv3.GetResponse
}

func (r *follower) list(ctx context.Context, l life) bool {
	res, err := l.c.KV.Get(ctx, r.key, r.options()...)
	if status.Code(err) == codes.Unavailable {
		<-l.over
		return true
	}
	if err != nil {
		r.t.Errorf("list: %v", err)
		return false
	}
	r.lists = append(r.lists, listing{r.key, res})
	r.seen.Store(res.Header.Revision)
	r.bookmarked = res.Header.Revision
	return true
}
