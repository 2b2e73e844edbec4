package informer_test

import (
	"context"
	"errors"
	"maps"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	"k8s.io/client-go/tools/cache"

	"sublet.dev/tenant-apiserver/internal/informer"
)

// shorten is a transform that leaves a mark of its own in the place of what the store
// has, and fails for one object.
func shorten(obj any) (any, error) {
	m, ok := obj.(*corev1.ConfigMap)
	if !ok {
		return nil, errors.New("no ConfigMap")
	}
	if m.Name == "refused" {
		return nil, errors.New("refused by the transform")
	}
	return &corev1.ConfigMap{ObjectMeta: m.ObjectMeta, Data: map[string]string{"v": "short " + m.Data["v"]}}, nil
}

// A transform is applied to all that is kept and told: what is listed, what is
// watched, what is listed again after a lost watch, and the last state of what is
// gone. An object that it fails for is left out, and the error is told.
func TestTransform(t *testing.T) {
	w := newWorld(t, nil)
	one := w.put("a", "1")
	w.put("refused", "1")
	failed := make(chan error, 100)
	if err := w.maps().SetTransform(shorten); err != nil {
		t.Fatal(err)
	}
	if err := w.maps().SetWatchErrorHandler(func(_ *cache.Reflector, err error) { failed <- err }); err != nil {
		t.Fatal(err)
	}
	if err := w.maps().AddIndexers(cache.Indexers{"byData": byData}); err != nil {
		t.Fatal(err)
	}
	early, late := newRecord(t), newRecord(t)
	handle := add(t, w.maps(), early)
	w.start()
	w.synced(handle)
	if err := <-failed; !strings.Contains(err.Error(), "refused by the transform") {
		t.Errorf("told %v", err)
	}
	two := w.put("a", "2")
	three := w.put("b", "1")
	want := []string{"add a=short 1@" + one + " initial=true", "update a=short 1->short 2@" + two, "add b=short 1@" + three + " initial=false"}
	expect(t, early, want...)
	four := w.remove("a")
	expect(t, early, append(want, "delete a=short 2@"+four)...)

	w.source.cut()
	w.put("c", "1")
	until(t, "the handler has the new one", func() bool { return early.states()["c"] != "" })
	w.synced(add(t, w.maps(), late))
	all := map[string]string{"b": "short 1", "c": "short 1"}
	for name, got := range map[string]map[string]string{"early": early.states(), "late": late.states()} {
		if !maps.Equal(got, all) {
			t.Errorf("the %s handler has %v, want %v", name, got, all)
		}
	}
	if got := names(t, w, "short 1"); !slices.Equal(got, []string{"b", "c"}) {
		t.Errorf("the index has %q", got)
	}
	for _, kept := range w.maps().GetStore().List() {
		if m := kept.(*corev1.ConfigMap); m.Data["v"] != "short 1" {
			t.Errorf("%s is kept as %v", m.Name, m.Data)
		}
	}
}

// A factory's transform is that of all its informers; one that sets its own has that
// alone. Without any the objects are as the store has them: the control.
func TestTransformOfTheFactory(t *testing.T) {
	other := func(obj any) (any, error) {
		m := obj.(*corev1.ConfigMap).DeepCopy()
		m.Data["v"] = "other " + m.Data["v"]
		return m, nil
	}
	for name, c := range map[string]struct {
		factory, own cache.TransformFunc
		want         string
	}{
		"none": {nil, nil, "1"}, "the factory's": {shorten, nil, "short 1"}, "its own": {shorten, other, "other 1"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, func(config *informer.Config) { config.Transform = c.factory })
			w.put("a", "1")
			if c.own != nil {
				if err := w.maps().SetTransform(c.own); err != nil {
					t.Fatal(err)
				}
			}
			r := newRecord(t)
			handle := add(t, w.maps(), r)
			w.start()
			w.synced(handle)
			if got := r.states()["a"]; got != c.want {
				t.Errorf("the handler has %q, want %q", got, c.want)
			}
			lister := w.factory.Core().V1().ConfigMaps().Lister()
			if m, err := lister.ConfigMaps("ns").Get("a"); err != nil || m.Data["v"] != c.want {
				t.Errorf("the lister has %v, %v", m, err)
			}
		})
	}
}

// byData indexes ConfigMaps by what is in them.
func byData(obj any) ([]string, error) { return []string{obj.(*corev1.ConfigMap).Data["v"]}, nil }

// names are those of the objects that the index byData has for a value, sorted.
func names(t *testing.T, w *world, data string) []string {
	t.Helper()
	found, err := w.maps().GetIndexer().ByIndex("byData", data)
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, obj := range found {
		all = append(all, obj.(*corev1.ConfigMap).Name)
	}
	slices.Sort(all)
	return all
}

// Indexers can be added before the start and while the informer runs; they have what
// was there and follow what changes. Two of one name are refused.
func TestAddIndexers(t *testing.T) {
	w := newWorld(t, nil)
	w.put("a", "x")
	w.put("b", "x")
	r := newRecord(t)
	handle := add(t, w.maps(), r)
	w.start()
	w.synced(handle)
	if err := w.maps().AddIndexers(cache.Indexers{"byData": byData}); err != nil {
		t.Fatalf("while it runs: %v", err)
	}
	if err := w.maps().AddIndexers(cache.Indexers{"byData": byData}); err == nil {
		t.Error("a second index of the same name is taken")
	}
	if got := names(t, w, "x"); !slices.Equal(got, []string{"a", "b"}) {
		t.Errorf("of what was there: %q", got)
	}
	w.put("c", "x")
	w.put("a", "y")
	w.remove("b")
	until(t, "the handler was told", func() bool { return len(r.told()) == 5 })
	if x, y := names(t, w, "x"), names(t, w, "y"); !slices.Equal(x, []string{"c"}) || !slices.Equal(y, []string{"a"}) {
		t.Errorf("x has %q, y has %q", x, y)
	}
	w.stopFeed()
	w.factory.Shutdown()
	if err := w.maps().AddIndexers(cache.Indexers{"late": byData}); err == nil {
		t.Error("a stopped informer takes an index")
	}
}

// An informer has synced when its cache is whole, a handler's registration when the
// handler has returned from all of the beginning. Who waits for the factory is told of
// each type; one that was not started does not count.
func TestSynced(t *testing.T) {
	w := newWorld(t, nil)
	w.put("a", "1")
	r := newRecord(t)
	r.hold = make(chan struct{})
	handle := add(t, w.maps(), r)
	over, cancel := context.WithCancel(t.Context())
	cancel()
	if got := w.factory.WaitForCacheSync(over.Done()); len(got) != 0 {
		t.Errorf("before the start: %v", got)
	}
	w.start()
	got := w.factory.WaitForCacheSync(t.Context().Done())
	if want := map[reflect.Type]bool{reflect.TypeFor[*corev1.ConfigMap](): true}; !maps.Equal(got, want) {
		t.Errorf("after the start: %v", got)
	}
	if !w.maps().HasSynced() || len(w.maps().GetStore().ListKeys()) != 1 {
		t.Error("the informer has not synced")
	}
	if handle.HasSynced() {
		t.Error("a handler that has not returned has synced")
	}
	close(r.hold)
	w.synced(handle)
	if !handle.HasSynced() {
		t.Error("the handler has not synced")
	}
}

// An informer whose store cannot be listed has not synced, and who waits for it gets
// that when he gives up. What was added meanwhile is there once the store answers.
func TestSyncWaitsForTheList(t *testing.T) {
	w := newWorld(t, nil)
	failed := make(chan struct{})
	var once sync.Once
	w.source.fail(errors.New("the store is away"), func() { once.Do(func() { close(failed) }) })
	r := newRecord(t)
	handle := add(t, w.maps(), r)
	w.start()
	<-failed
	over, cancel := context.WithCancel(t.Context())
	cancel()
	result := w.factory.WaitForCacheSyncWithContext(over)
	if result.Err == nil || result.Synced[reflect.TypeFor[*corev1.ConfigMap]()] || handle.HasSynced() {
		t.Errorf("without a list: %+v", result)
	}
	w.put("a", "1")
	w.source.fail(nil, nil)
	w.synced(handle)
	if got := r.states(); !maps.Equal(got, map[string]string{"a": "1"}) {
		t.Errorf("the handler has %v", got)
	}
}

// Handlers are resynced as each asked: by the factory's period unless they have their
// own, not at all with none, and not any more once they are removed.
func TestResyncByHandler(t *testing.T) {
	w := newWorld(t, func(c *informer.Config) { c.Resync = time.Millisecond })
	w.put("a", "1")
	byFactory, never, removed := newRecord(t), newRecord(t), newRecord(t)
	zero := time.Duration(0)
	quiet, err := w.maps().AddEventHandlerWithOptions(never, cache.HandlerOptions{ResyncPeriod: &zero})
	if err != nil {
		t.Fatal(err)
	}
	gone := add(t, w.maps(), removed)
	handle := add(t, w.maps(), byFactory)
	w.start()
	w.synced(quiet, gone, handle)
	until(t, "all with a period were told again", func() bool { return len(byFactory.told()) >= 3 && len(removed.told()) >= 3 })
	if err := cache.ShutDownEventHandler(w.maps(), gone); err != nil {
		t.Fatal(err)
	}
	had, others := len(removed.told()), len(byFactory.told())
	until(t, "the other was told again, often", func() bool { return len(byFactory.told()) > others+5 })
	if got := len(removed.told()); got != had {
		t.Errorf("a removed handler was told %d times more", got-had)
	}
	if got := never.told(); len(got) != 1 {
		t.Errorf("a handler without resyncs was told %q", got)
	}
	if got := byFactory.states(); !maps.Equal(got, map[string]string{"a": "1"}) {
		t.Errorf("the handler has %v", got)
	}
}

// What the store holds is encrypted: the informer has it in the clear, and takes
// nothing that was written past the encryption.
func TestEncrypted(t *testing.T) {
	w := newWorld(t, nil)
	w.put("sealed", "confidential")
	got, err := w.kv.Get(t.Context(), keyOf("sealed"))
	if err != nil || len(got.Kvs) != 1 {
		t.Fatalf("%v, %v", got, err)
	}
	if strings.Contains(string(got.Kvs[0].Value), "confidential") {
		t.Fatal("the store has it in the clear: the test would show nothing")
	}
	if _, err := w.kv.Put(t.Context(), keyOf("open"), w.encode("open", "planted")); err != nil {
		t.Fatal(err)
	}
	failed := make(chan error, 100)
	if err := w.maps().SetWatchErrorHandler(func(_ *cache.Reflector, err error) { failed <- err }); err != nil {
		t.Fatal(err)
	}
	r := newRecord(t)
	handle := add(t, w.maps(), r)
	w.start()
	w.synced(handle)
	if err := <-failed; !strings.Contains(err.Error(), "decrypt "+keyOf("open")) {
		t.Errorf("of the list: %v", err)
	}
	if _, err := w.kv.Put(t.Context(), keyOf("open"), w.encode("open", "planted again")); err != nil {
		t.Fatal(err)
	}
	w.put("later", "secret")
	until(t, "the handler was told", func() bool { return len(r.told()) == 2 })
	if err := <-failed; !strings.Contains(err.Error(), "decrypt "+keyOf("open")) {
		t.Errorf("of the watch: %v", err)
	}
	if want := map[string]string{"sealed": "confidential", "later": "secret"}; !maps.Equal(r.states(), want) {
		t.Errorf("the handler has %v, want %v", r.states(), want)
	}
}

// A window of changes that was compacted before the feed read it is lost for good: the
// informer is made what the store is now. Handlers get the difference; of an object
// whose end was in the window they get the last state that is known.
func TestLostWindow(t *testing.T) {
	// More than a watch reads at a time, and than the store keeps in memory.
	const times = 8
	filling := strings.Repeat("x", 400<<10)
	w := newWorld(t, nil)
	for _, name := range []string{"stays", "changes", "goes"} {
		w.put(name, "1")
	}
	// The feed waits in the transform of an object, and does not read meanwhile.
	reached, goOn := make(chan struct{}), make(chan struct{})
	if err := w.maps().SetTransform(func(obj any) (any, error) {
		if obj.(*corev1.ConfigMap).Data["v"] == "wait" {
			close(reached)
			<-goOn
		}
		return obj, nil
	}); err != nil {
		t.Fatal(err)
	}
	told := make(chan error, 100)
	if err := w.maps().SetWatchErrorHandler(func(_ *cache.Reflector, err error) { told <- err }); err != nil {
		t.Fatal(err)
	}
	r := newRecord(t)
	handle := add(t, w.maps(), r)
	w.start()
	w.synced(handle)
	w.put("stays", "wait")
	<-reached
	for range times {
		w.put("stays", filling)
	}
	w.put("stays", "1")
	w.put("between", "1")
	w.put("changes", "2")
	w.remove("goes")
	w.remove("between")
	w.compact(w.put("comes", "1"))
	close(goOn)
	if err := <-told; !strings.Contains(err.Error(), "compacted") {
		t.Errorf("the watch was lost because of %v", err)
	}
	want := map[string]string{"stays": "1", "changes": "2", "comes": "1"}
	until(t, "the handler has what the store has", func() bool { return maps.Equal(r.states(), want) })
	if got := r.told(); !slices.Contains(got, "lost ns/goes") {
		t.Errorf("told %q", got)
	}
	if got := w.maps().GetStore().ListKeys(); len(got) != len(want) {
		t.Errorf("the cache has %q", got)
	}
	// It follows again.
	w.put("after", "1")
	until(t, "the handler was told", func() bool { return r.states()["after"] == "1" })
}

// A handler that panics is told of later changes, as are the others of its informer.
func TestPanickingHandlerGoesOn(t *testing.T) {
	crash := utilruntime.ReallyCrash
	utilruntime.ReallyCrash = false
	t.Cleanup(func() { utilruntime.ReallyCrash = crash })
	w := newWorld(t, nil)
	w.put("a", "1")
	calm, wild := newRecord(t), newRecord(t)
	panics := func(told func()) { told(); panic("on purpose") }
	handles := []cache.ResourceEventHandlerRegistration{add(t, w.maps(), calm), add(t, w.maps(), cache.ResourceEventHandlerFuncs{
		AddFunc:    func(obj any) { panics(func() { wild.OnAdd(obj, false) }) },
		UpdateFunc: func(old, obj any) { panics(func() { wild.OnUpdate(old, obj) }) },
		DeleteFunc: func(obj any) { panics(func() { wild.OnDelete(obj) }) },
	})}
	w.start()
	w.synced(handles...)
	w.put("a", "2")
	w.put("b", "1")
	w.remove("a")
	for name, r := range map[string]*record{"calm": calm, "wild": wild} {
		until(t, "the "+name+" handler was told everything", func() bool { return len(r.told()) == 4 })
		if got := r.states(); !maps.Equal(got, map[string]string{"b": "1"}) {
			t.Errorf("the %s handler has %v", name, got)
		}
	}
}
