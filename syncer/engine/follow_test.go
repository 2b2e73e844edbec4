package engine

import (
	"context"
	"log/slog"
	"runtime"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/cache"
	fcache "k8s.io/client-go/tools/cache/testing"

	"sublet.dev/isolation/tenant"
)

// TestFollow: engines that come and go see a shared informer's objects while they
// follow it, and leave nothing behind.
func TestFollow(t *testing.T) {
	source := fcache.NewFakeControllerSource()
	source.Add(&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "a"}})
	informer := cache.NewSharedInformer(source, &corev1.Node{}, 0)
	ctx, cancel := context.WithCancel(t.Context())
	var group sync.WaitGroup
	group.Go(func() { informer.RunWithContext(ctx) })
	defer group.Wait()
	defer cancel()
	if !cache.WaitForCacheSync(ctx.Done(), informer.HasSynced) {
		t.Fatal("not synced")
	}
	source.Modify(&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "a", Labels: map[string]string{"changed": "yes"}}})
	for changed := false; !changed; <-time.After(time.Millisecond) { // by the watch: all goroutines have begun
		o, _, _ := informer.GetStore().GetByKey("a")
		changed = o.(*corev1.Node).Labels["changed"] == "yes"
	}
	before := runtime.NumGoroutine()
	for range 20 {
		one(t, informer)
	}
	for runtime.NumGoroutine() > before {
		select {
		case <-t.Context().Done():
			t.Fatalf("%d goroutines, %d before", runtime.NumGoroutine(), before)
		case <-time.After(time.Millisecond):
		}
	}
}

// one is the life of an engine that follows.
func one(t *testing.T, informer cache.SharedInformer) {
	t.Helper()
	p := &seen{names: make(chan string, 10)}
	e := New(Config{Passes: []Pass{p}, Logger: slog.New(slog.DiscardHandler)})
	leave, err := e.Follow(informer, func(o any) []Key {
		return []Key{{Kind: "Seen", Name: tenant.Name{Name: o.(*corev1.Node).Name}}}
	})
	if err != nil {
		t.Fatal(err)
	}
	defer leave()
	ctx, cancel := context.WithCancel(t.Context())
	over := make(chan error, 1)
	go func() { over <- e.Run(ctx) }()
	if name := <-p.names; name != "a" {
		t.Errorf("saw %q", name)
	}
	cancel()
	if err := <-over; err != nil {
		t.Error(err)
	}
}

// seen is a pass that tells what it was called for.
type seen struct{ names chan string }

func (s *seen) Kind() string { return "Seen" }

func (s *seen) Reconcile(_ context.Context, n tenant.Name) (time.Duration, error) {
	s.names <- n.Name
	return 0, nil
}
