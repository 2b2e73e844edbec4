package etcdclient

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/metadata"

	"sublet.dev/tenant-apiserver/store"
)

// watcher is etcd's Watcher over a store.
type watcher struct {
	s        *store.Store
	interval time.Duration

	mu      sync.Mutex
	closed  bool
	watches map[*watch]struct{}
	running sync.WaitGroup
}

var _ clientv3.Watcher = (*watcher)(nil)

func newWatcher(s *store.Store) *watcher {
	return &watcher{s: s, interval: defaultProgressInterval, watches: map[*watch]struct{}{}}
}

// watch is one call of Watch.
type watch struct {
	op       clientv3.Op
	cancel   context.CancelFunc
	stream   string        // names the watches that RequestProgress speaks to
	progress chan struct{} // a progress notice is wanted
	interval time.Duration // of notices that nobody asked for; 0: none
	out      chan clientv3.WatchResponse
}

// Watch implements clientv3.Watcher: it has begun when it returns. The channel
// is closed when ctx ends, when the client is closed, and after an error, which
// is the last response.
func (w *watcher) Watch(ctx context.Context, key string, opts ...clientv3.OpOption) clientv3.WatchChan {
	op := clientv3.OpWatch(key, opts...)
	ctx, cancel := context.WithCancel(ctx)
	one := &watch{
		op: op, cancel: cancel, stream: streamOf(ctx),
		progress: make(chan struct{}, 1), out: make(chan clientv3.WatchResponse),
	}
	if op.IsProgressNotify() {
		one.interval = w.interval
	}
	if !w.add(one) {
		cancel()
		close(one.out)
		return one.out
	}
	cursor, err := w.s.Watch(store.Range{Key: op.KeyBytes(), End: op.RangeBytes()}, op.Rev())
	go func() {
		defer w.remove(one)
		defer close(one.out)
		defer cancel()
		if err != nil {
			one.send(ctx, failure(err, 0))
			return
		}
		defer cursor.Close()
		one.run(ctx, cursor)
	}()
	return one.out
}

func (w *watcher) add(one *watch) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return false
	}
	w.watches[one] = struct{}{}
	w.running.Add(1)
	return true
}

func (w *watcher) remove(one *watch) {
	w.mu.Lock()
	delete(w.watches, one)
	w.mu.Unlock()
	w.running.Done()
}

// RequestProgress asks for a progress notice on every watch whose context
// carries the same outgoing metadata: with etcd those share a stream. It does
// not wait for the notices.
func (w *watcher) RequestProgress(ctx context.Context) error {
	stream := streamOf(ctx)
	w.mu.Lock()
	defer w.mu.Unlock()
	for one := range w.watches {
		if one.stream == stream {
			select {
			case one.progress <- struct{}{}:
			default: // one is on its way
			}
		}
	}
	return ctx.Err()
}

// streamOf names the stream that etcd's client would use for ctx.
func streamOf(ctx context.Context) string {
	md, ok := metadata.FromOutgoingContext(ctx)
	if !ok {
		return ""
	}
	var name []byte
	for _, key := range slices.Sorted(maps.Keys(md)) {
		name = fmt.Appendf(name, "%q=%q ", key, md[key])
	}
	return string(name)
}

// Close ends all watches and waits until their channels are closed.
func (w *watcher) Close() error {
	w.mu.Lock()
	w.closed = true
	for one := range w.watches {
		one.cancel()
	}
	w.mu.Unlock()
	w.running.Wait()
	return nil
}

// run delivers until ctx ends or the cursor does.
func (w *watch) run(ctx context.Context, cursor *store.Cursor) {
	if w.op.IsCreatedNotify() && !w.send(ctx, clientv3.WatchResponse{Header: header(0), Created: true}) {
		return
	}
	var tick <-chan time.Time
	if w.interval > 0 {
		ticker := time.NewTicker(w.interval)
		defer ticker.Stop()
		tick = ticker.C
	}
	if err := w.deliver(ctx, cursor, tick); err != nil && ctx.Err() == nil {
		w.send(ctx, failure(err, cursor.Compacted()))
	}
}

// deliver sends events as they come, and a progress notice when one is wanted
// and everything before it was sent.
func (w *watch) deliver(ctx context.Context, cursor *store.Cursor, tick <-chan time.Time) error {
	wanted := false
	for {
		batch, wake, err := cursor.Poll(ctx)
		if err != nil {
			return err
		}
		if events := w.events(batch.Events); len(events) > 0 {
			if !w.send(ctx, clientv3.WatchResponse{Header: header(batch.Revision), Events: events}) {
				return nil
			}
		}
		if len(batch.Events) > 0 {
			continue
		}
		// A watch from a later revision has no progress to tell of before it.
		if wanted && batch.Revision >= w.op.Rev()-1 {
			if !w.send(ctx, clientv3.WatchResponse{Header: header(batch.Revision)}) {
				return nil
			}
			wanted = false
		}
		select {
		case <-ctx.Done():
			return nil
		case <-wake:
		case <-w.progress:
			wanted = true
		case <-tick:
			wanted = true
		}
	}
}

// send says whether the response was taken.
func (w *watch) send(ctx context.Context, r clientv3.WatchResponse) bool {
	select {
	case w.out <- r:
		return true
	case <-ctx.Done():
		return false
	}
}

func (w *watch) events(in []store.Event) []*clientv3.Event {
	out := make([]*clientv3.Event, 0, len(in))
	for _, e := range in {
		if e.Deleted && w.op.IsFilterDelete() || !e.Deleted && w.op.IsFilterPut() {
			continue
		}
		ev := &clientv3.Event{Type: clientv3.EventTypePut, Kv: keyValue(e.KV)}
		if e.Deleted {
			ev.Type = clientv3.EventTypeDelete
		}
		if w.op.IsPrevKV() && e.Prev != nil {
			ev.PrevKv = keyValue(e.Prev)
		}
		out = append(out, ev)
	}
	return out
}

// failure is the last response of a watch that did not end by itself.
func failure(err error, compacted int64) clientv3.WatchResponse {
	r := clientv3.WatchResponse{Header: header(0), Canceled: true, CancelReason: grpcError(err).Error()}
	if errors.Is(err, store.ErrCompacted) {
		r.CompactRevision = compacted
	}
	return r
}
