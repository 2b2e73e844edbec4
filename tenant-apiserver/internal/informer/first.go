package informer

import (
	"context"
	"fmt"
	"slices"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// first waits for the first object below some prefixes.
type first struct {
	prefixes []string
	except   map[string]bool
	do       func()
	checked  bool // for what was there before the watch
}

// OnFirst calls do once, as soon as the store holds a key that begins with one of
// the prefixes, each of which ends in "/", other than those in except. do is called
// by the goroutine that feeds informers and must not wait. The factory has to be
// started for it.
func (f *Factory) OnFirst(prefixes, except []string, do func()) {
	w := &first{prefixes: prefixes, except: map[string]bool{}, do: do}
	for _, key := range except {
		w.except[key] = true
	}
	f.feed.mu.Lock()
	f.feed.firsts = append(f.feed.firsts, w)
	f.feed.mu.Unlock()
	f.feed.signal()
}

// lookForFirsts looks for keys that were there before the feed's watch.
func (f *feed) lookForFirsts(ctx context.Context) error {
	for _, w := range f.unchecked() {
		for _, prefix := range w.prefixes {
			r, err := f.source.Get(ctx, prefix, clientv3.WithPrefix(), clientv3.WithKeysOnly(), clientv3.WithLimit(int64(len(w.except)+1)))
			if err != nil {
				return fmt.Errorf("look into %s: %w", prefix, err)
			}
			for _, kv := range r.Kvs {
				f.fire(w, string(kv.Key))
			}
		}
		w.checked = true
	}
	return nil
}

// unchecked returns those that do not know yet what was there before the watch.
func (f *feed) unchecked() []*first {
	f.mu.Lock()
	defer f.mu.Unlock()
	var found []*first
	for _, w := range f.firsts {
		if !w.checked {
			found = append(found, w)
		}
	}
	return found
}

// seen tells those who wait for a key below prefix.
func (f *feed) seen(prefix, key string) {
	f.mu.Lock()
	waiting := slices.Clone(f.firsts)
	f.mu.Unlock()
	for _, w := range waiting {
		if slices.Contains(w.prefixes, prefix) {
			f.fire(w, key)
		}
	}
}

// fire calls w, unless the key does not count or it has been called.
func (f *feed) fire(w *first, key string) {
	if w.except[key] {
		return
	}
	f.mu.Lock()
	at := slices.Index(f.firsts, w)
	if at >= 0 {
		f.firsts = slices.Delete(f.firsts, at, at+1)
	}
	f.mu.Unlock()
	if at >= 0 {
		w.do()
	}
}
