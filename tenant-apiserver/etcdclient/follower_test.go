package etcdclient_test

import (
	"context"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// follower follows a prefix, or a key, to the last revision, with as many
// watches as it takes.
type follower struct {
	w        *world
	t        *testing.T
	id       int
	key      string
	steady   bool // never leaves by itself, never begins earlier than it must
	slow     bool
	restless bool // leaves and begins again, at all kinds of revisions

	seen       atomic.Int64 // everything up to it was given
	bookmarked int64
	segments   []*segment
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
	r.seen.CompareAndSwap(0, 1) // where an empty store is
	for from := r.seen.Load() + 1; r.w.final.Load() == 0 || r.seen.Load() < r.w.final.Load(); from = r.next() {
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
	from = max(from, 1)
	r.begin(from)
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
		}
		r.take(res)
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

// begin and take keep what a watch gives.
func (r *follower) begin(from int64) {
	r.segments = append(r.segments, &segment{key: r.key, from: from})
	r.w.tell(record{Watcher: r.id, From: from})
}

func (r *follower) take(res clientv3.WatchResponse) {
	s := r.segments[len(r.segments)-1]
	if len(res.Events) == 0 {
		s.bookmarks = append(s.bookmarks, bookmark{res.Header.Revision, len(s.responses)})
		r.bookmarked = res.Header.Revision
	} else {
		s.responses = append(s.responses, res.Events)
	}
	if rev := max(r.seen.Load(), last(res)); rev >= s.from-1 {
		r.seen.Store(rev)
	}
	r.w.tell(record{Watcher: r.id, Revision: res.Header.Revision, Events: res.Events})
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
	r.adopt(res)
	return true
}

// adopt goes on from a list.
func (r *follower) adopt(res *clientv3.GetResponse) {
	r.lists = append(r.lists, listing{r.key, res})
	r.seen.Store(res.Header.Revision)
	r.bookmarked = res.Header.Revision
	r.w.tell(record{Watcher: r.id, List: res})
}
