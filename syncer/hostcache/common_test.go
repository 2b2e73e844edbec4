package hostcache

import (
	"context"
	"runtime"
	"sync/atomic"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"
)

// counted is the kind of hosts, and counts the watches that begin and those that run.
func (h *hosts) counted(begun, running *atomic.Int64) Kind {
	k := h.kind()
	plain := k.Source
	k.Source = func(namespace string) cache.ListerWatcher {
		lw := plain(namespace)
		return &cache.ListWatch{
			ListWithContextFunc: cache.ToListerWithContext(lw).ListWithContext,
			WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
				w, err := cache.ToWatcherWithContext(lw).WatchWithContext(ctx, o)
				if err != nil {
					return nil, err
				}
				begun.Add(1)
				running.Add(1)
				return &countedWatch{Interface: w, running: running}, nil
			},
		}
	}
	return k
}

type countedWatch struct {
	watch.Interface
	running *atomic.Int64
	stopped atomic.Bool
}

func (w *countedWatch) Stop() {
	if w.stopped.CompareAndSwap(false, true) {
		w.running.Add(-1)
	}
	w.Interface.Stop()
}

// show has somebody told of what a place holds.
func show(t *testing.T, c *Cache, k Kind, namespace string) (*Common, *log, cache.InformerSynced) {
	t.Helper()
	shown, err := c.Common(t.Context(), k, namespace)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(shown.Leave)
	told := &log{}
	registration, err := shown.AddEventHandler(told)
	if err != nil {
		t.Fatal(err)
	}
	return shown, told, registration.HasSynced
}

// TestCommon: who is shown the same has one watch together, which ends with the last of
// them. Who has left is told nothing, and another place is another's.
func TestCommon(t *testing.T) {
	h, c := newHosts(), New()
	h.in("shop").Add(object("shop", "one"))
	h.in("other").Add(object("other", "far"))
	var begun, running atomic.Int64
	kind := h.counted(&begun, &running)
	before := runtime.NumGoroutine()
	first, toFirst, firstSynced := show(t, c, kind, "shop")
	eventually(t, "one", func() bool { return firstSynced() && toFirst.has("add one") })
	second, toSecond, secondSynced := show(t, c, kind, "shop")
	other, toOther, otherSynced := show(t, c, kind, "other")
	eventually(t, "what each is shown", func() bool {
		return secondSynced() && otherSynced() && toSecond.has("add one") && toOther.has("add far")
	})
	if got := c.Stats(); got != (Stats{Commons: 2}) || begun.Load() != 2 {
		t.Errorf("%+v, %d watches", got, begun.Load())
	}
	other.Leave()
	h.in("shop").Add(object("shop", "two"))
	eventually(t, "two", func() bool { return toFirst.has("add one", "add two") && toSecond.has("add one", "add two") })
	first.Leave()
	first.Leave()
	h.in("shop").Delete(object("shop", "one"))
	eventually(t, "the end of one", func() bool { return toSecond.has("add one", "add two", "delete one") })
	if !toFirst.has("add one", "add two") || !toOther.has("add far") || running.Load() != 1 {
		t.Errorf("who left was told %v and %v, %d watches run", toFirst.lines, toOther.lines, running.Load())
	}
	second.Leave()
	if got := c.Stats(); got != (Stats{}) || running.Load() != 0 {
		t.Errorf("after the last has left: %+v, %d watches run", got, running.Load())
	}
	eventually(t, "the end of all goroutines", func() bool { return runtime.NumGoroutine() <= before })

	h.in("shop").Delete(object("shop", "two"))
	h.in("shop").Add(object("shop", "three"))
	again, toAgain, synced := show(t, c, kind, "shop")
	eventually(t, "what there is by now", func() bool { return synced() && toAgain.has("add three") && len(again.GetStore().List()) == 1 })
}

// TestCommonEndures: it does not end with the context of who asked for it first.
func TestCommonEndures(t *testing.T) {
	h, c := newHosts(), New()
	ctx, cancel := context.WithCancel(t.Context())
	first, err := c.Common(ctx, h.kind(), "shop")
	if err != nil {
		t.Fatal(err)
	}
	_, told, synced := show(t, c, h.kind(), "shop")
	cancel()
	first.Leave()
	eventually(t, "a list", synced)
	h.in("shop").Add(object("shop", "one"))
	eventually(t, "one", func() bool { return told.has("add one") })
}
