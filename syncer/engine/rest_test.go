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
	clocktesting "k8s.io/utils/clock/testing"

	"sublet.dev/isolation/tenant"
)

// scripted is a pass that does as it is told.
type scripted struct {
	entered chan tenant.Name
	answers chan answer
}

type answer struct {
	again time.Duration
	err   error
}

func (s *scripted) Kind() string { return "Scripted" }

func (s *scripted) Reconcile(_ context.Context, n tenant.Name) (time.Duration, error) {
	s.entered <- n
	a := <-s.answers
	return a.again, a.err
}

// ended waits until the engine has taken note of the end of a pass.
func ended(t *testing.T, e *Engine) {
	t.Helper()
	for {
		e.ledger.mu.Lock()
		working := len(e.ledger.working)
		e.ledger.mu.Unlock()
		if working == 0 {
			return
		}
		select {
		case <-t.Context().Done():
			t.Fatal("the pass does not end")
		case <-time.After(time.Millisecond):
		}
	}
}

// marked waits until so many objects are noted, which is done after queueing.
func marked(t *testing.T, m *Mark, want int) {
	t.Helper()
	for {
		version, count := m.Get()
		if count == want && version != "" {
			return
		}
		select {
		case <-t.Context().Done():
			t.Fatalf("mark %q, %d", version, count)
		case <-time.After(time.Millisecond):
		}
	}
}

// TestRest walks an engine through everything that keeps it from resting.
func TestRest(t *testing.T) {
	source := fcache.NewFakeControllerSource()
	informer := cache.NewSharedInformer(source, &corev1.ConfigMap{}, 0)
	clock := clocktesting.NewFakeClock(time.Now())
	p := &scripted{make(chan tenant.Name), make(chan answer)}
	e := New(Config{Passes: []Pass{p}, Clock: clock, Logger: slog.New(slog.DiscardHandler)})
	var mark Mark
	err := e.Watch(informer, &mark, func(o any) []Key {
		return []Key{{Kind: "Scripted", Name: tenant.Name{Name: o.(*corev1.ConfigMap).Name}}}
	})
	if err != nil {
		t.Fatal(err)
	}
	rests := func(when string, want bool, due time.Time) {
		t.Helper()
		if at, quiet := e.Rest(); quiet != want || !at.Equal(due) {
			t.Errorf("%s: Rest = %s, %t; want %s, %t", when, at, quiet, due, want)
		}
	}
	rests("before the informers have delivered", false, time.Time{})
	source.Add(&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "a", ResourceVersion: "7"}})
	ctx, cancel := context.WithCancel(t.Context())
	var group sync.WaitGroup
	group.Go(func() { informer.RunWithContext(ctx) })
	group.Go(func() { _ = e.Run(ctx) }) // returns nil always
	defer group.Wait()
	defer cancel()

	<-p.entered
	rests("in a pass", false, time.Time{})
	p.answers <- answer{}
	ended(t, e)
	rests("right after something was queued", false, time.Time{})
	clock.Step(settleTime)
	rests("with nothing to do", true, time.Time{})
	marked(t, &mark, 1)

	e.Add(Key{Kind: "Scripted", Name: tenant.Name{Name: "timed"}})
	<-p.entered
	p.answers <- answer{again: time.Hour}
	ended(t, e)
	clock.Step(settleTime)
	rests("with a pass to come", true, clock.Now().Add(time.Hour-settleTime))

	e.Add(Key{Kind: "Scripted", Name: tenant.Name{Name: "failing"}})
	<-p.entered
	p.answers <- answer{err: errors.New("not now")}
	ended(t, e)
	e.ledger.mu.Lock()
	e.ledger.last = clock.Now().Add(-settleTime) // nothing is queued, it only waits to be tried again
	e.ledger.mu.Unlock()
	rests("with a pass that failed", false, time.Time{})
	clock.Step(lastRetry)
	<-p.entered
	p.answers <- answer{}
	ended(t, e)

	source.Delete(&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "a"}})
	<-p.entered
	p.answers <- answer{}
	ended(t, e)
	marked(t, &mark, 0)
}

func TestMark(t *testing.T) {
	var none *Mark
	none.note(&corev1.ConfigMap{}, 1) // notes nothing
	var m Mark
	for _, version := range []string{"9", "10", "2", "junk"} {
		m.note(&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{ResourceVersion: version}}, 1)
	}
	if version, count := m.Get(); version != "10" || count != 4 {
		t.Errorf("%q, %d", version, count)
	}
}
