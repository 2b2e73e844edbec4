package informer_test

import (
	"context"
	"maps"
	"math/rand/v2"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/tools/cache"

	"sublet.dev/tenant-apiserver/internal/informer"
)

// A handler gets what is there and then each change, with revisions as a client
// sees them; what is added later gets the same.
func TestHandlersSeeTheStore(t *testing.T) {
	w := newWorld(t, nil)
	one := w.put("a", "1")
	early, late := newRecord(t), newRecord(t)
	handle := add(t, w.maps(), early)
	if handle.HasSynced() || w.maps().HasSynced() {
		t.Error("synced before the start")
	}
	w.start()
	w.synced(handle)
	two := w.put("a", "2")
	three := w.put("b", "1")
	expect(t, early, "add a=1@"+one+" initial=true", "update a=1->2@"+two, "add b=1@"+three+" initial=false")
	w.synced(add(t, w.maps(), late))
	four := w.remove("a")
	expect(t, early, append(early.told()[:3:3], "delete a=2@"+four)...)
	until(t, "the late handler saw the deletion", func() bool { return len(late.told()) == 3 })
	if got := late.states(); !maps.Equal(got, map[string]string{"b": "1"}) {
		t.Errorf("the late handler has %v", got)
	}
	if got := w.maps().LastSyncResourceVersion(); got != four {
		t.Errorf("the informer is at %s, want %s", got, four)
	}
	if got := w.maps().GetStore().LastStoreSyncResourceVersion(); got != four {
		t.Errorf("the cache is at %s, want %s", got, four)
	}
	lister := w.factory.Core().V1().ConfigMaps().Lister()
	if m, err := lister.ConfigMaps("ns").Get("b"); err != nil || m.ResourceVersion != three {
		t.Errorf("the lister has %v, %v", m, err)
	}
	if got, err := lister.ConfigMaps("other").List(labels.Everything()); err != nil || len(got) != 0 {
		t.Errorf("another namespace has %v", got)
	}
}

// A watch that is lost is begun anew: handlers are told the difference, once.
func TestLostWatch(t *testing.T) {
	w := newWorld(t, nil)
	w.put("stays", "1")
	w.put("goes", "1")
	r := newRecord(t)
	var lost sync.WaitGroup
	lost.Add(1)
	var once sync.Once
	if err := w.maps().SetWatchErrorHandler(func(*cache.Reflector, error) { once.Do(lost.Done) }); err != nil {
		t.Fatal(err)
	}
	handle := add(t, w.maps(), r)
	w.start()
	w.synced(handle)
	w.source.cut()
	w.remove("goes")
	comes := w.put("comes", "1")
	lost.Wait()
	until(t, "the difference was told", func() bool { return len(r.told()) >= 4 })
	got := map[string]bool{}
	for _, call := range r.told()[2:] {
		got[call] = true
	}
	// The deletion is seen by the list, or by the watch when that was first.
	if !got["add comes=1@"+comes+" initial=false"] || len(got) != 2 {
		t.Errorf("told %q", r.told())
	}
	if want := map[string]string{"stays": "1", "comes": "1"}; !maps.Equal(r.states(), want) {
		t.Errorf("the handler has %v, want %v", r.states(), want)
	}
}

// A handler that does not return costs memory by the number of objects, not of
// changes, and sees the last state of each when it goes on.
func TestSlowHandlerIsToldLess(t *testing.T) {
	w := newWorld(t, nil)
	slow, quick := newRecord(t), newRecord(t)
	slow.hold = make(chan struct{})
	handles := []cache.ResourceEventHandlerRegistration{add(t, w.maps(), slow), add(t, w.maps(), quick)}
	w.start()
	w.synced(handles...)
	const changes = 6000
	for n := range changes {
		name := "m" + strconv.Itoa(n%10)
		if n%100 == 99 {
			w.remove(name)
			continue
		}
		w.put(name, strconv.Itoa(n))
	}
	w.put("last", "1")
	until(t, "the quick handler saw the end", func() bool { return quick.states()["last"] == "1" })
	close(slow.hold)
	until(t, "the slow handler saw the end", func() bool { return slow.states()["last"] == "1" })
	if !maps.Equal(slow.states(), quick.states()) {
		t.Errorf("the slow handler has %v, the quick one %v", slow.states(), quick.states())
	}
	if n := len(slow.told()); n > changes/2 {
		t.Errorf("the slow handler was told %d changes of %d", n, changes)
	}
	if n := len(quick.told()); n < changes/2 {
		t.Errorf("the quick handler was told %d changes of %d", n, changes)
	}
}

// A removed handler is not called any more, and can be waited for.
func TestRemoveHandler(t *testing.T) {
	w := newWorld(t, nil)
	gone, stays := newRecord(t), newRecord(t)
	handle, other := add(t, w.maps(), gone), add(t, w.maps(), stays)
	w.start()
	w.synced(handle, other)
	if err := cache.ShutDownEventHandler(w.maps(), handle); err != nil {
		t.Fatal(err)
	}
	if err := w.maps().RemoveEventHandler(handle); err != nil {
		t.Errorf("removing it again: %v", err)
	}
	w.put("a", "1")
	until(t, "the other handler was called", func() bool { return len(stays.told()) == 1 })
	if got := gone.told(); len(got) != 0 {
		t.Errorf("the removed handler was told %q", got)
	}
}

// Resyncs repeat what is there as updates of nothing.
func TestResync(t *testing.T) {
	w := newWorld(t, nil)
	w.put("a", "1")
	r := newRecord(t)
	handle, err := w.maps().AddEventHandlerWithResyncPeriod(r, time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	w.start()
	w.synced(handle)
	until(t, "the handler was told again, twice", func() bool { return len(r.told()) >= 3 })
	if got := r.told()[1]; got != "update a=1->1@"+r.told()[0][len("add a=1@"):len(r.told()[0])-len(" initial=true")] {
		t.Errorf("told %q", r.told()[:2])
	}
}

// What an object cannot be decoded from is left out, and told.
func TestUnreadableValue(t *testing.T) {
	w := newWorld(t, nil)
	w.put("good", "1")
	if _, err := w.kv.Put(t.Context(), keyOf("bad"), "nonsense"); err != nil {
		t.Fatal(err)
	}
	failed := make(chan error, 10)
	if err := w.maps().SetWatchErrorHandlerWithContext(func(_ context.Context, _ *cache.Reflector, err error) { failed <- err }); err != nil {
		t.Fatal(err)
	}
	r := newRecord(t)
	handle := add(t, w.maps(), r)
	w.start()
	w.synced(handle)
	if err := <-failed; err == nil {
		t.Error("no error was told")
	}
	if got := r.states(); !maps.Equal(got, map[string]string{"good": "1"}) {
		t.Errorf("the handler has %v", got)
	}
}

// Whatever happens, in whatever order, a handler's view ends as the store.
func TestRandom(t *testing.T) {
	for seed := range uint64(8) {
		t.Run(strconv.FormatUint(seed, 10), func(t *testing.T) {
			random := rand.New(rand.NewPCG(seed, 1))
			w := newWorld(t, nil)
			truth := map[string]string{}
			var records []*record
			for n := range 2000 {
				name := "m" + strconv.Itoa(random.IntN(20))
				switch p := random.IntN(100); {
				case p < 60:
					truth[name] = strconv.Itoa(n)
					w.put(name, truth[name])
				case p < 96:
					delete(truth, name)
					w.remove(name)
				case p < 98:
					w.source.cut()
				case len(records) < 6:
					r := newRecord(t)
					records = append(records, r)
					add(t, w.maps(), r)
					w.start()
				}
			}
			truth["end"] = "1"
			w.put("end", "1")
			for _, r := range records {
				until(t, "a handler has seen the end", func() bool { return maps.Equal(r.states(), truth) })
			}
			if len(records) == 0 || len(w.maps().GetStore().ListKeys()) != len(truth) {
				t.Errorf("%d handlers; the cache has %v, want %v", len(records), w.maps().GetStore().ListKeys(), truth)
			}
		})
	}
}

// An informer is of the type and the resource that upstream's factory has.
func TestForResource(t *testing.T) {
	everything := newWorld(t, func(c *informer.Config) {
		c.Resolve = func(gvk schema.GroupVersionKind) (informer.Kind, bool) { return informer.Kind{Prefix: root}, true }
	}).factory
	upstream := informers.NewSharedInformerFactory(nil, 0)
	known := 0
	for gvk := range scheme.Scheme.AllKnownTypes() {
		for _, resource := range []string{"pods", "configmaps", "endpoints", "endpointslices", "ingresses", "storageclasses", "networkpolicies", "priorityclasses", "deployments", "podschedulingcontexts"} {
			gvr := gvk.GroupVersion().WithResource(resource)
			theirs, theirErr := upstream.ForResource(gvr)
			ours, err := everything.ForResource(gvr)
			if (theirErr == nil) != (err == nil) {
				t.Errorf("%v: %v; upstream %v", gvr, err, theirErr)
				continue
			}
			if err == nil {
				known++
				_, _ = theirs.Lister(), ours.Lister()
			}
		}
	}
	if known == 0 {
		t.Error("no resource is known")
	}
	if _, err := newWorld(t, nil).factory.ForResource(corev1.SchemeGroupVersion.WithResource("pods")); err == nil {
		t.Error("a resource that the store does not hold has an informer")
	}
}

// A stopped informer takes no handlers, and a started one no settings.
func TestAfterStartAndStop(t *testing.T) {
	w := newWorld(t, nil)
	handle := add(t, w.maps(), newRecord(t))
	w.start()
	w.synced(handle)
	if err := w.maps().SetTransform(func(o any) (any, error) { return o, nil }); err == nil {
		t.Error("a started informer takes a transform")
	}
	if err := w.maps().SetWatchErrorHandler(func(*cache.Reflector, error) {}); err == nil {
		t.Error("a started informer takes a handler of errors")
	}
	w.stopFeed()
	w.factory.Shutdown()
	if !w.maps().IsStopped() {
		t.Error("the informer has not stopped")
	}
	if _, err := w.maps().AddEventHandler(newRecord(t)); err == nil {
		t.Error("a stopped informer takes a handler")
	}
}

// What waits for the first object is called once: for one that is there, and for one
// that comes, but not for those that do not count.
func TestOnFirst(t *testing.T) {
	w := newWorld(t, nil)
	w.put("known", "1")
	calls := make(chan string, 10)
	prefix := root + "configmaps/"
	w.factory.OnFirst([]string{prefix}, nil, func() { calls <- "there" })
	w.factory.OnFirst([]string{root + "other/", prefix}, []string{keyOf("known")}, func() { calls <- "comes" })
	w.factory.OnFirst([]string{root + "other/"}, nil, func() { calls <- "never" })
	handle := add(t, w.maps(), newRecord(t))
	w.start()
	w.synced(handle)
	if got := <-calls; got != "there" {
		t.Fatalf("%q was called", got)
	}
	w.put("known", "2")
	w.put("new", "1")
	if got := <-calls; got != "comes" {
		t.Fatalf("%q was called", got)
	}
	w.put("newer", "1")
	w.factory.OnFirst([]string{prefix}, nil, func() { calls <- "late" })
	if got := <-calls; got != "late" {
		t.Fatalf("%q was called", got)
	}
}

// A handler that is added while others are held gets everything after it.
func TestHold(t *testing.T) {
	w := newWorld(t, nil)
	before := newRecord(t)
	w.put("a", "1")
	handle := add(t, w.maps(), before)
	w.start()
	w.synced(handle)

	release, again := w.factory.Hold(), w.factory.Hold()
	var whole atomic.Bool
	held := newRecord(t)
	handle = add(t, w.maps(), cache.ResourceEventHandlerFuncs{AddFunc: func(obj any) {
		if !whole.Load() {
			t.Error("a handler was called that is held")
		}
		held.OnAdd(obj, false)
	}})
	w.put("b", "2")
	until(t, "the other handler is told", func() bool { return len(before.told()) == 2 })
	release()
	release() // counts once
	w.put("c", "3")
	until(t, "the other handler is told", func() bool { return len(before.told()) == 3 })
	if handle.HasSynced() {
		t.Error("a handler that is held has synced")
	}
	whole.Store(true)
	again()
	w.synced(handle)
	until(t, "the handler is told", func() bool { return len(held.told()) == 3 })
}

// A handler that panics does not keep those from working who wait until it has
// been told of everything.
func TestPanickingHandlerSyncs(t *testing.T) {
	crash := utilruntime.ReallyCrash
	utilruntime.ReallyCrash = false
	t.Cleanup(func() { utilruntime.ReallyCrash = crash })
	w := newWorld(t, nil)
	w.put("a", "1")
	called := make(chan struct{}, 1)
	handle := add(t, w.maps(), cache.ResourceEventHandlerFuncs{AddFunc: func(any) {
		called <- struct{}{}
		panic("on purpose")
	}})
	w.start()
	<-called
	w.synced(handle)
}
