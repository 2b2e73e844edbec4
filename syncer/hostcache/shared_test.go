package hostcache

import (
	"runtime"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/tools/cache"
	fcache "k8s.io/client-go/tools/cache/testing"
)

// TestShared: handlers that come and go are told what there is and what changes while
// they are there, and cost no goroutine.
func TestShared(t *testing.T) {
	source := fcache.NewFakeControllerSource()
	source.Add(object("a", "one"))
	s, err := Share(cache.NewSharedIndexInformer(source, &corev1.ConfigMap{}, 0, cache.Indexers{}))
	if err != nil {
		t.Fatal(err)
	}
	early, late := &log{}, &log{}
	if _, err := s.AddEventHandler(early); err != nil {
		t.Fatal(err)
	}
	var group sync.WaitGroup
	defer group.Wait()
	stop := make(chan struct{})
	defer close(stop)
	group.Go(func() { s.Run(stop) })
	eventually(t, "one", func() bool { return early.has("add one") })
	source.Modify(object("a", "one"))
	eventually(t, "its change", func() bool { return early.has("add one", "update one") }) // by the watch: all goroutines have begun
	before := runtime.NumGoroutine()
	registration, err := s.AddEventHandler(late)
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "all that there was", registration.HasSynced)
	if !late.has("add one") {
		t.Errorf("who comes late was told %v", late.lines)
	}
	for range 50 {
		if _, err := s.AddEventHandler(&log{}); err != nil {
			t.Fatal(err)
		}
	}
	if now := runtime.NumGoroutine(); now > before {
		t.Errorf("%d goroutines, %d before", now, before)
	}
	source.Add(object("a", "two"))
	eventually(t, "two", func() bool { return early.has("add one", "update one", "add two") && late.has("add one", "add two") })
	if err := s.RemoveEventHandler(registration); err != nil {
		t.Fatal(err)
	}
	source.Delete(object("a", "one"))
	eventually(t, "the end of one", func() bool { return early.has("add one", "update one", "add two", "delete one") })
	if !late.has("add one", "add two") {
		t.Errorf("who left was told %v", late.lines)
	}
	if err := s.RemoveEventHandler(s.registration); err == nil {
		t.Error("a handle that is not a follower's was taken")
	}
}
