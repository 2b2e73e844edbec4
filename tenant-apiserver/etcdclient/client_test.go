package etcdclient_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"runtime/pprof"
	"strings"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"sublet.dev/tenant-apiserver/etcdclient"
	"sublet.dev/tenant-apiserver/store"
)

// next takes one response of a watch, or fails.
func next(t *testing.T, w clientv3.WatchChan) clientv3.WatchResponse {
	t.Helper()
	select {
	case r, ok := <-w:
		if !ok {
			t.Fatal("the watch ended")
		}
		return r
	case <-time.After(time.Minute):
		t.Fatal("nothing came")
	}
	panic("unreachable")
}

// ended waits for the end of a watch, after at most one more response.
func ended(t *testing.T, w clientv3.WatchChan) {
	t.Helper()
	timeout := time.After(time.Minute)
	for range 2 {
		select {
		case _, ok := <-w:
			if !ok {
				return
			}
		case <-timeout:
			t.Fatal("the watch did not end")
		}
	}
	t.Fatal("the watch goes on")
}

func put(t *testing.T, kv clientv3.KV, key, value string, opts ...clientv3.OpOption) int64 {
	t.Helper()
	r, err := kv.Put(t.Context(), key, value, opts...)
	if err != nil {
		t.Fatal(err)
	}
	return r.Header.Revision
}

func TestKV(t *testing.T) {
	c := etcdclient.New(openStore(t))
	ctx := t.Context()
	put(t, c.KV, "a", "1")
	put(t, c.KV, "a", "2")
	put(t, c.KV, "ab", "3")
	last := put(t, c.KV, "b", "4")
	got, err := c.KV.Get(ctx, "a", clientv3.WithPrefix(), clientv3.WithLimit(1))
	if err != nil || got.Count != 2 || !got.More || len(got.Kvs) != 1 || string(got.Kvs[0].Value) != "2" || got.Kvs[0].Version != 2 || got.Header.Revision != last {
		t.Errorf("%v, %v", got, err)
	}
	old, err := c.KV.Get(ctx, "a", clientv3.WithRev(2))
	if err != nil || string(old.Kvs[0].Value) != "1" || old.Header.Revision != last {
		t.Errorf("%v, %v", old, err)
	}
	all, err := c.KV.Get(ctx, "", clientv3.WithPrefix(), clientv3.WithCountOnly())
	if err != nil || all.Count != 3 || len(all.Kvs) != 0 {
		t.Errorf("%v, %v", all, err)
	}
	txn, err := c.KV.Txn(ctx).If(clientv3.Compare(clientv3.Value("a"), "=", "2"), clientv3.Compare(clientv3.CreateRevision("zz"), "=", 0)).
		Then(clientv3.OpPut("a", "5", clientv3.WithPrevKV()), clientv3.OpGet("a"), clientv3.OpDelete("b", clientv3.WithPrevKV())).Commit()
	if err != nil || !txn.Succeeded || string(txn.Responses[0].GetResponsePut().PrevKv.Value) != "2" ||
		string(txn.Responses[1].GetResponseRange().Kvs[0].Value) != "5" || txn.Responses[2].GetResponseDeleteRange().Deleted != 1 {
		t.Errorf("%v, %v", txn, err)
	}
	del, err := c.KV.Delete(ctx, "nothing")
	if err != nil || del.Deleted != 0 || del.Header.Revision != txn.Header.Revision {
		t.Errorf("deleting nothing: %v, %v", del, err)
	}
}

// TestErrors wants etcd's own words for what upstream tells apart.
func TestErrors(t *testing.T) {
	s := openStore(t)
	c := etcdclient.New(s)
	ctx := t.Context()
	put(t, c.KV, "a", "1")
	rev := put(t, c.KV, "a", "2")
	if _, err := c.KV.Compact(ctx, rev); err != nil {
		t.Fatal(err)
	}
	get := func(opts ...clientv3.OpOption) error { _, err := c.KV.Get(ctx, "a", opts...); return err }
	write := func(key, value string, opts ...clientv3.OpOption) error {
		_, err := c.KV.Put(ctx, key, value, opts...)
		return err
	}
	gone, cancel := context.WithCancel(ctx)
	cancel()
	for name, test := range map[string]struct{ got, want error }{
		"compacted":     {get(clientv3.WithRev(rev - 1)), rpctypes.ErrCompacted},
		"future":        {get(clientv3.WithRev(rev + 1)), rpctypes.ErrFutureRev},
		"empty key":     {write("", "x"), rpctypes.ErrEmptyKey},
		"too large":     {write("k", strings.Repeat("x", 2<<20)), rpctypes.ErrRequestTooLarge},
		"unknown lease": {write("k", "x", clientv3.WithLease(5)), rpctypes.ErrLeaseNotFound},
		"compact again": {func() error { _, err := c.KV.Compact(ctx, rev); return err }(), rpctypes.ErrCompacted},
		"cancelled":     {func() error { _, err := c.KV.Get(gone, "a"); return err }(), context.Canceled},
	} {
		if !errors.Is(test.got, test.want) {
			t.Errorf("%s: %v, want %v", name, test.got, test.want)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := get(); status.Code(err) != codes.Unavailable {
		t.Errorf("closed store: %v", err)
	}
}

// TestUnimplemented wants a refusal for everything that is not done as asked.
func TestUnimplemented(t *testing.T) {
	c := etcdclient.New(openStore(t))
	ctx := t.Context()
	put(t, c.KV, "a", "1")
	errs := map[string]error{}
	_, errs["sort"] = c.KV.Get(ctx, "a", clientv3.WithPrefix(), clientv3.WithSort(clientv3.SortByVersion, clientv3.SortDescend))
	_, errs["filter"] = c.KV.Get(ctx, "a", clientv3.WithMinModRev(1))
	_, errs["keep value"] = c.KV.Put(ctx, "a", "", clientv3.WithIgnoreValue())
	_, errs["keep lease"] = c.KV.Put(ctx, "a", "2", clientv3.WithIgnoreLease())
	_, errs["nested"] = c.KV.Txn(ctx).Then(clientv3.OpTxn(nil, []clientv3.Op{clientv3.OpGet("a")}, nil)).Commit()
	_, errs["range comparison"] = c.KV.Txn(ctx).If(clientv3.Compare(clientv3.Version("a").WithPrefix(), "=", 1)).Commit()
	_, errs["defragment"] = c.Defragment(ctx, "")
	_, errs["hash"] = c.HashKV(ctx, "", 0)
	_, errs["move leader"] = c.MoveLeader(ctx, 1)
	_, errs["downgrade"] = c.Downgrade(ctx, clientv3.DowngradeEnable, "3.6")
	for what, err := range errs {
		if status.Code(err) != codes.Unimplemented {
			t.Errorf("%s: %v", what, err)
		}
	}
	if a, err := c.AlarmList(ctx); err != nil || len(a.Alarms) != 0 {
		t.Errorf("alarms: %v, %v", a, err)
	}
	if st, err := c.Status(ctx, ""); err != nil || st.Version != etcdclient.Version || st.DbSize == 0 {
		t.Errorf("status: %v, %v", st, err)
	}
}

func TestLease(t *testing.T) {
	c := etcdclient.New(openStore(t))
	defer c.Close()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	g, err := c.Grant(ctx, 3600)
	if err != nil {
		t.Fatal(err)
	}
	put(t, c.KV, "k", "v", clientv3.WithLease(g.ID))
	if ttl, err := c.TimeToLive(ctx, g.ID, clientv3.WithAttachedKeys()); err != nil || ttl.GrantedTTL != 3600 || len(ttl.Keys) != 1 {
		t.Errorf("%v, %v", ttl, err)
	}
	if ka, err := c.KeepAliveOnce(ctx, g.ID); err != nil || ka.TTL != 3600 {
		t.Errorf("%v, %v", ka, err)
	}
	alive, err := c.KeepAlive(ctx, g.ID)
	if err != nil {
		t.Fatal(err)
	}
	if ka := <-alive; ka == nil || ka.TTL != 3600 {
		t.Errorf("keep alive: %v", ka)
	}
	if all, err := c.Leases(ctx); err != nil || len(all.Leases) != 1 {
		t.Errorf("%v, %v", all, err)
	}
	if _, err := c.Revoke(ctx, g.ID); err != nil {
		t.Fatal(err)
	}
	if got, err := c.KV.Get(ctx, "k"); err != nil || got.Count != 0 {
		t.Errorf("%v, %v", got, err)
	}
	if ttl, err := c.TimeToLive(ctx, g.ID); err != nil || ttl.TTL != -1 {
		t.Errorf("%v, %v", ttl, err)
	}
	if _, err := c.KeepAliveOnce(ctx, g.ID); !errors.Is(err, rpctypes.ErrLeaseNotFound) {
		t.Errorf("keep alive of a revoked lease: %v", err)
	}
}

func TestWatch(t *testing.T) {
	c := etcdclient.New(openStore(t))
	defer c.Close()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	put(t, c.KV, "k/1", "a")
	w := c.Watch(ctx, "k/", clientv3.WithPrefix(), clientv3.WithRev(2), clientv3.WithPrevKV(), clientv3.WithCreatedNotify())
	if r := next(t, w); !r.Created {
		t.Errorf("%+v", r)
	}
	if r := next(t, w); len(r.Events) != 1 || !r.Events[0].IsCreate() || r.Events[0].PrevKv != nil {
		t.Errorf("%+v", r)
	}
	puts := c.Watch(ctx, "k/1", clientv3.WithRev(2), clientv3.WithFilterDelete())
	deletes := c.Watch(ctx, "k/1", clientv3.WithRev(2), clientv3.WithFilterPut())
	if _, err := c.KV.Delete(ctx, "k/1"); err != nil {
		t.Fatal(err)
	}
	if r := next(t, w); r.Events[0].Type != clientv3.EventTypeDelete || string(r.Events[0].PrevKv.Value) != "a" || r.Events[0].Kv.ModRevision != 3 {
		t.Errorf("%+v", r)
	}
	if r := next(t, puts); len(r.Events) != 1 || r.Events[0].Type != clientv3.EventTypePut {
		t.Errorf("%+v", r)
	}
	if r := next(t, deletes); len(r.Events) != 1 || r.Events[0].Type != clientv3.EventTypeDelete || r.Events[0].PrevKv != nil {
		t.Errorf("%+v", r)
	}
	cancel()
	ended(t, w)
}

// TestWatchErrors wants an error as the last response, and then the end.
func TestWatchErrors(t *testing.T) {
	s := openStore(t)
	c := etcdclient.New(s)
	put(t, c.KV, "k", "1")
	rev := put(t, c.KV, "k", "2")
	if _, err := c.KV.Compact(t.Context(), rev); err != nil {
		t.Fatal(err)
	}
	old := c.Watch(t.Context(), "k", clientv3.WithRev(2))
	if r := next(t, old); !errors.Is(r.Err(), rpctypes.ErrCompacted) || r.CompactRevision != rev {
		t.Errorf("%+v: %v", r, r.Err())
	}
	ended(t, old)
	bad := c.Watch(t.Context(), "")
	if r := next(t, bad); r.Err() == nil {
		t.Errorf("%+v", r)
	}
	ended(t, bad)
	live := c.Watch(t.Context(), "k")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if r := next(t, live); r.Err() == nil || !strings.Contains(r.Err().Error(), "closed") {
		t.Errorf("%+v", r)
	}
	ended(t, live)
}

// TestProgress wants a notice on exactly the watches of the stream, after all
// events that came before it.
func TestProgress(t *testing.T) {
	c := etcdclient.New(openStore(t))
	defer c.Close()
	ours := metadata.AppendToOutgoingContext(t.Context(), "stream", "ours")
	w := c.Watch(ours, "k/", clientv3.WithPrefix())
	other := c.Watch(t.Context(), "k/", clientv3.WithPrefix())
	future := c.Watch(ours, "k/", clientv3.WithPrefix(), clientv3.WithRev(1000))
	var rev int64
	for i := range 20 {
		put(t, c.KV, fmt.Sprint("k/", i), "v")
		rev = put(t, c.KV, fmt.Sprint("elsewhere/", i), "v")
	}
	if err := c.RequestProgress(metadata.AppendToOutgoingContext(t.Context(), "stream", "ours")); err != nil {
		t.Fatal(err)
	}
	last, events := int64(0), 0
	for {
		r := next(t, w)
		if r.IsProgressNotify() {
			if r.Header.Revision != rev {
				t.Errorf("progress %d at revision %d", r.Header.Revision, rev)
			}
			break
		}
		last, events = r.Events[len(r.Events)-1].Kv.ModRevision, events+len(r.Events)
	}
	if last != rev-1 || events != 20 {
		t.Errorf("%d events up to %d came before the notice of %d", events, last, rev)
	}
	put(t, c.KV, "k/end", "v")
	for done := false; !done; {
		r := next(t, other)
		if r.IsProgressNotify() {
			t.Error("a notice came on another stream")
		}
		for _, e := range r.Events {
			done = done || string(e.Kv.Key) == "k/end"
		}
	}
	select {
	case r := <-future:
		t.Errorf("a watch of the future was told %+v", r)
	default:
	}
}

// TestCloseEndsWatches closes a client whose watchers nobody reads: they end,
// the store stays open, and no goroutine is left.
func TestCloseEndsWatches(t *testing.T) {
	s := openStore(t)
	c, another := etcdclient.New(s), etcdclient.New(s)
	var all []clientv3.WatchChan
	for range 10 {
		all = append(all, c.Watch(t.Context(), "k", clientv3.WithProgressNotify()))
	}
	put(t, c.KV, "k", "v")
	c.Close()
	for _, w := range all {
		ended(t, w)
	}
	ended(t, c.Watch(t.Context(), "k"))
	put(t, another.KV, "k", "v")
	var stacks strings.Builder
	pprof.Lookup("goroutine").WriteTo(&stacks, 2)
	if n := strings.Count(stacks.String(), "etcdclient.(*watch).run"); n > 0 {
		t.Errorf("%d watches are left", n)
	}
}

// BenchmarkWrite creates objects of 1 KiB from some writers, on the disk of the
// temporary folder.
func BenchmarkWrite(b *testing.B) {
	for _, writers := range []int{1, 16, 64} {
		b.Run(fmt.Sprint(writers), func(b *testing.B) {
			s, err := store.Open(filepath.Join(b.TempDir(), "store.db"), store.Options{})
			if err != nil {
				b.Fatal(err)
			}
			defer s.Close()
			c, value := etcdclient.New(s), strings.Repeat("x", 1024)
			b.SetParallelism(writers)
			b.ResetTimer()
			b.RunParallel(func(p *testing.PB) {
				for p.Next() {
					key := fmt.Sprintf("/registry/pods/ns/%p/%d", p, time.Now().UnixNano())
					if _, err := c.KV.Put(context.Background(), key, value); err != nil {
						b.Error(err)
					}
				}
			})
		})
	}
}
