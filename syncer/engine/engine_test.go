package engine

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/cache"

	fcache "k8s.io/client-go/tools/cache/testing"

	"sublet.dev/isolation/tenant"
)

// probe is a pass that fails the first time for each name, and reports.
type probe struct {
	mu      sync.Mutex
	busy    map[tenant.Name]bool
	calls   map[tenant.Name]int
	overlap bool
	done    chan tenant.Name
}

func (p *probe) Kind() string { return "Probe" }

func (p *probe) Reconcile(_ context.Context, n tenant.Name) (time.Duration, error) {
	p.mu.Lock()
	p.overlap = p.overlap || p.busy[n]
	p.busy[n] = true
	p.calls[n]++
	calls := p.calls[n]
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		p.busy[n] = false
		p.mu.Unlock()
	}()
	switch calls {
	case 1:
		return 0, errors.New("the first time")
	case 2:
		return time.Millisecond, nil // and once more, in time
	}
	p.done <- n
	return 0, nil
}

// TestEngine: every object seen is worked on, failures and wishes are retried, no
// name is worked on twice at a time, and Run waits for its workers.
func TestEngine(t *testing.T) {
	source := fcache.NewFakeControllerSource()
	names := []string{"a", "b", "c"}
	for _, n := range names {
		source.Add(&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: n}})
	}
	informer := cache.NewSharedInformer(source, &corev1.ConfigMap{}, 0)
	p := &probe{busy: map[tenant.Name]bool{}, calls: map[tenant.Name]int{}, done: make(chan tenant.Name, 100)}
	var failed sync.Map
	e := New(Config{
		Passes: []Pass{p}, Workers: 3, Logger: slog.New(slog.DiscardHandler),
		OnError: func(k Key, _ error) { failed.Store(k.Name, true) },
	})
	err := e.Watch(informer, nil, func(o any) []Key {
		return []Key{{Kind: "Probe", Name: tenant.Name{Namespace: "ns", Name: o.(*corev1.ConfigMap).Name}}}
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var group sync.WaitGroup
	group.Go(func() { informer.RunWithContext(ctx) })
	group.Go(func() {
		if err := e.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	seen := map[string]bool{}
	for len(seen) < len(names) {
		seen[(<-p.done).Name] = true
	}
	source.Delete(&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "a"}})
	if n := <-p.done; n.Name != "a" {
		t.Errorf("after the deletion of a: %s", n)
	}
	cancel()
	group.Wait()
	for _, n := range names {
		if _, ok := failed.Load(tenant.Name{Namespace: "ns", Name: n}); !ok {
			t.Errorf("OnError was not told of %s", n)
		}
	}
	if p.overlap {
		t.Error("a name was worked on twice at a time")
	}
}
