package informer

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"k8s.io/apimachinery/pkg/util/wait"
)

const (
	// listPage bounds the values that a list has in memory at a time.
	listPage = 500
	// retryFirst and retryMost bound the pause after a watch was lost.
	retryFirst = 50 * time.Millisecond
	retryMost  = 5 * time.Second
)

var errWatchEnded = errors.New("the watch of the store ended")

// feed reads the changes of the store and hands them to the informers that have
// joined. It has one goroutine.
type feed struct {
	life   context.Context
	source Source
	root   string
	log    *slog.Logger

	listeners sync.WaitGroup // the goroutines that call handlers
	joined    chan struct{}  // a token: someone has joined

	mu      sync.Mutex
	members map[string][]*Informer // by the prefix of their keys
	waiting []*Informer            // joined and not listed yet
	firsts  []*first
}

func newFeed(life context.Context, c Config) *feed {
	return &feed{
		life: life, source: c.Source, root: c.Root, log: c.Logger,
		joined: make(chan struct{}, 1), members: map[string][]*Informer{},
	}
}

// join has i listed, and then told of changes.
func (f *feed) join(i *Informer) {
	f.mu.Lock()
	f.waiting = append(f.waiting, i)
	f.mu.Unlock()
	f.signal()
}

// signal has the feed look for who has joined.
func (f *feed) signal() {
	select {
	case f.joined <- struct{}{}:
	default:
	}
}

// leave ends that. What is on its way is still applied.
func (f *feed) leave(i *Informer) {
	f.mu.Lock()
	defer f.mu.Unlock()
	isIt := func(other *Informer) bool { return other == i }
	f.waiting = slices.DeleteFunc(f.waiting, isIt)
	f.members[i.kind.Prefix] = slices.DeleteFunc(f.members[i.kind.Prefix], isIt)
}

// run follows the store until life ends, beginning anew when the watch is lost.
func (f *feed) run() {
	pause := wait.Backoff{Duration: retryFirst, Factor: 2, Jitter: 0.1, Steps: 10, Cap: retryMost}
	for {
		begun := time.Now()
		err := f.follow()
		if f.life.Err() != nil {
			return
		}
		f.report(err)
		if time.Since(begun) > retryMost {
			pause = wait.Backoff{Duration: retryFirst, Factor: 2, Jitter: 0.1, Steps: 10, Cap: retryMost}
		}
		select {
		case <-time.After(pause.Step()):
		case <-f.life.Done():
			return
		}
	}
}

// report tells the informers' error handlers, or the log, that the watch was lost.
func (f *feed) report(err error) {
	f.log.Debug("informers begin anew", "because", err)
	f.mu.Lock()
	members := slices.Concat(slices.Collect(maps.Values(f.members))...)
	f.mu.Unlock()
	for _, i := range members {
		i.failed(f.life, err)
	}
}

// follow watches from the present on: all who have joined are listed, then told of
// what changes. It returns when the watch is lost.
func (f *feed) follow() error {
	ctx, cancel := context.WithCancel(f.life)
	defer cancel()
	now, err := f.source.Get(ctx, f.root, clientv3.WithCountOnly())
	if err != nil {
		return fmt.Errorf("read the revision: %w", err)
	}
	// Each list is at this revision or a later one, so that nothing falls between.
	changes := f.source.Watch(ctx, f.root, clientv3.WithPrefix(), clientv3.WithRev(now.Header.Revision+1))
	f.everybodyAgain()
	for {
		if err := f.admit(ctx); err != nil {
			return err
		}
		if err := f.lookForFirsts(ctx); err != nil {
			return err
		}
		select {
		case r, ok := <-changes:
			if !ok {
				return errWatchEnded
			}
			if err := r.Err(); err != nil {
				return fmt.Errorf("watch: %w", err)
			}
			for _, e := range r.Events {
				f.hand(e)
			}
		case <-f.joined:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// everybodyAgain has all members listed again.
func (f *feed) everybodyAgain() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, w := range f.firsts {
		w.checked = false
	}
	for prefix, members := range f.members {
		f.waiting = append(f.waiting, members...)
		delete(f.members, prefix)
	}
}

// admit lists those who wait, and makes them members.
func (f *feed) admit(ctx context.Context) error {
	for {
		f.mu.Lock()
		if len(f.waiting) == 0 {
			f.mu.Unlock()
			return nil
		}
		i := f.waiting[0]
		f.mu.Unlock()
		entries, rev, err := f.list(ctx, i.kind.Prefix)
		if err != nil {
			return fmt.Errorf("list %s: %w", i.kind.Prefix, err)
		}
		i.replace(ctx, entries, rev)
		f.promote(i)
	}
}

// promote makes a member of i, if it has not left meanwhile.
func (f *feed) promote(i *Informer) {
	f.mu.Lock()
	defer f.mu.Unlock()
	at := slices.Index(f.waiting, i)
	if at < 0 {
		return
	}
	f.waiting = slices.Delete(f.waiting, at, at+1)
	f.members[i.kind.Prefix] = append(f.members[i.kind.Prefix], i)
}

// entry is one key of the store with its value.
type entry struct {
	key   string
	value []byte
	rev   int64
}

// list reads all keys with a prefix at one revision.
func (f *feed) list(ctx context.Context, prefix string) ([]entry, int64, error) {
	var entries []entry
	end, from, rev := clientv3.GetPrefixRangeEnd(prefix), prefix, int64(0)
	for {
		r, err := f.source.Get(ctx, from, clientv3.WithRange(end), clientv3.WithLimit(listPage), clientv3.WithRev(rev))
		if err != nil {
			return nil, 0, err
		}
		if rev == 0 {
			rev = r.Header.Revision
		}
		for _, kv := range r.Kvs {
			entries = append(entries, entry{string(kv.Key), kv.Value, kv.ModRevision})
		}
		if !r.More || len(r.Kvs) == 0 {
			return entries, rev, nil
		}
		from = string(r.Kvs[len(r.Kvs)-1].Key) + "\x00"
	}
}

// hand gives a change to the members whose prefix its key has.
func (f *feed) hand(e *clientv3.Event) {
	key := string(e.Kv.Key)
	for at := len(f.root); at < len(key); at++ {
		if key[at] != '/' {
			continue
		}
		gone := e.Type == clientv3.EventTypeDelete
		for _, i := range f.of(key[:at+1]) {
			i.apply(f.life, entry{key, e.Kv.Value, e.Kv.ModRevision}, gone)
		}
		if !gone {
			f.seen(key[:at+1], key)
		}
	}
}

func (f *feed) of(prefix string) []*Informer {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.members[prefix])
}

// name is what the cache calls the object at key: NAMESPACE/NAME or NAME.
func (k Kind) name(key string) string { return strings.TrimPrefix(key, k.Prefix) }
