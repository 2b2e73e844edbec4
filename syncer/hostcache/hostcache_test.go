package hostcache

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	apiruntime "k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"
	fcache "k8s.io/client-go/tools/cache/testing"
)

// hosts are the objects of namespaces. The tests on a real host are in test/syncer.
type hosts struct {
	mu         sync.Mutex
	namespaces map[string]*fcache.FakeControllerSource // guarded by mu
	refused    atomic.Bool                             // lists of "refused" fail
}

func newHosts() *hosts { return &hosts{namespaces: map[string]*fcache.FakeControllerSource{}} }

func (h *hosts) in(namespace string) *fcache.FakeControllerSource {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.namespaces[namespace] == nil {
		h.namespaces[namespace] = fcache.NewFakeControllerSource()
	}
	return h.namespaces[namespace]
}

func (h *hosts) kind() Kind {
	return Kind{Resource: "configmaps", Example: &corev1.ConfigMap{}, Source: func(namespace string) cache.ListerWatcher {
		source := h.in(namespace)
		return &cache.ListWatch{
			ListWithContextFunc: func(_ context.Context, o metav1.ListOptions) (apiruntime.Object, error) {
				if namespace == "refused" && h.refused.Load() {
					return nil, errors.New("you have no right to these")
				}
				return source.List(o)
			},
			WatchFuncWithContext: func(_ context.Context, o metav1.ListOptions) (watch.Interface, error) { return source.Watch(o) },
		}
	}}
}

func object(namespace, name string) *corev1.ConfigMap {
	return &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}}
}

// eventually waits for a state that must come.
func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for !is() {
		select {
		case <-t.Context().Done():
			t.Fatal(what)
		case <-time.After(time.Millisecond):
		}
	}
}

func names(v *View) string { return fmt.Sprint(len(v.GetStore().List()), v.GetStore().ListKeys()) }

// join joins a namespace for the time of a test.
func join(t *testing.T, s *Space) (leave func()) {
	t.Helper()
	leave, err := s.Join(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(leave)
	return leave
}

// log is a handler that remembers what it was told.
type log struct {
	mu    sync.Mutex
	lines []string
}

func (l *log) add(what string, o any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = append(l.lines, what+" "+o.(metav1.Object).GetName())
}

func (l *log) OnAdd(o any, _ bool) { l.add("add", o) }
func (l *log) OnUpdate(_, now any) { l.add("update", now) }
func (l *log) OnDelete(o any)      { l.add("delete", o) }
func (l *log) has(lines ...string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return fmt.Sprint(l.lines) == fmt.Sprint(lines)
}

// TestParked: a view of nothing watches nothing until it is held, sees what becomes of
// what was made then, and ends its watch once that is gone and somebody looks.
func TestParked(t *testing.T) {
	h, c, told := newHosts(), New(), &log{}
	s := c.Space("a")
	v := s.View(h.kind())
	if _, err := v.AddEventHandler(told); err != nil {
		t.Fatal(err)
	}
	if v.HasSynced() {
		t.Error("it knows what there is before it joined")
	}
	join(t, s)
	parked := func() bool { return v.HasSynced() && c.Stats() == Stats{Namespaces: 1} }
	eventually(t, "a list", parked)

	release, err := v.Hold(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	h.in("a").Add(object("a", "one"))
	eventually(t, "one", func() bool { return told.has("add one") })
	changed := object("a", "one")
	changed.Data = map[string]string{"k": "v"}
	h.in("a").Modify(changed)
	eventually(t, "a change", func() bool { return told.has("add one", "update one") })
	release()
	v.Look() // there is one
	h.in("a").Delete(object("a", "one"))
	eventually(t, "its end", func() bool { return told.has("add one", "update one", "delete one") })
	if got := c.Stats(); got.Watches != 1 {
		t.Errorf("a view that was held: %+v", got)
	}
	v.Look()
	eventually(t, "the end of the watch", parked)

	h.in("a").Add(object("a", "by hand"))
	v.Want()
	eventually(t, "what was made by hand", func() bool { return told.has("add one", "update one", "delete one", "add by hand") })
	if got := c.Stats(); got != (Stats{Namespaces: 1, Watches: 1, Objects: 1}) {
		t.Errorf("with an object: %+v", got)
	}
}

// TestHeld: a view that is held does not end its watch, and one that is held while it
// lists watches.
func TestHeld(t *testing.T) {
	h, c := newHosts(), New()
	s := c.Space("a")
	v := s.View(h.kind())
	join(t, s)
	for i := range 50 {
		release, err := v.Hold(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		name := fmt.Sprint("o", i)
		v.Look()
		h.in("a").Add(object("a", name))
		eventually(t, name, func() bool { _, there, _ := v.GetStore().GetByKey("a/" + name); return there })
		h.in("a").Delete(object("a", name))
		eventually(t, "the end of "+name, func() bool { return len(v.GetStore().List()) == 0 })
		release()
		v.Look() // it may not be parked yet when it is held again
	}
}

// TestOnlyWhile: a view that is looked at because of another one begins when that has
// something, and ends after it.
func TestOnlyWhile(t *testing.T) {
	h, c := newHosts(), New()
	s := c.Space("a")
	v := s.View(h.kind())
	var needed atomic.Bool
	v.OnlyWhile(needed.Load)
	join(t, s)
	if !v.HasSynced() || c.Stats().Watches != 0 {
		t.Error("it looks at once")
	}
	needed.Store(true)
	v.Want()
	eventually(t, "the view", v.HasSynced)
	v.Look()
	if got := c.Stats(); got.Watches != 1 {
		t.Errorf("while it is needed: %+v", got)
	}
	h.in("a").Add(object("a", "one"))
	eventually(t, "one", func() bool { return names(v) == "1 [a/one]" })
	needed.Store(false)
	v.Look()
	eventually(t, "the end of the watch", func() bool { return c.Stats() == Stats{Namespaces: 1} })
	needed.Store(true)
	v.Want()
	eventually(t, "one again", func() bool { return names(v) == "1 [a/one]" })
}

// TestApart: views of two namespaces in one cache have their own objects, each, and
// whatever a host answers about one, it never has another's.
func TestApart(t *testing.T) {
	h, c := newHosts(), New()
	h.in("a").Add(object("a", "mine"))
	h.in("b").Add(object("b", "yours"))
	h.in("c").Add(object("c", "true"))
	h.in("c").Add(object("a", "forged")) // the host errs
	views := map[string]*View{}
	for _, ns := range []string{"a", "b", "c"} {
		s := c.Space(ns)
		views[ns] = s.View(h.kind())
		join(t, s)
	}
	eventually(t, "both", func() bool { return names(views["a"]) == "1 [a/mine]" && names(views["b"]) == "1 [b/yours]" })
	h.in("b").Add(object("a", "forged later"))
	h.in("b").Add(object("b", "after it"))
	eventually(t, "what came after it", func() bool { return len(views["b"].GetStore().List()) == 2 })
	if _, there, _ := views["b"].GetStore().GetByKey("a/forged later"); there || len(views["a"].GetStore().List()) != 1 {
		t.Errorf("a has %s, b has %s", names(views["a"]), names(views["b"]))
	}
	if views["c"].HasSynced() || len(views["c"].GetStore().List()) != 0 {
		t.Errorf("of a list with another's object it took %s", names(views["c"]))
	}
}

// TestOneFails: a namespace that cannot be read holds up nobody else, and is read once
// it can be.
func TestOneFails(t *testing.T) {
	h, c := newHosts(), New()
	h.refused.Store(true)
	h.in("refused").Add(object("refused", "one"))
	bad, good := c.Space("refused"), c.Space("good")
	badView, goodView := bad.View(h.kind()), good.View(h.kind())
	join(t, bad)
	join(t, good)
	for i := range 3 {
		release, err := goodView.Hold(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer release()
		h.in("good").Add(object("good", fmt.Sprint(i)))
		eventually(t, "a good object", func() bool { return len(goodView.GetStore().List()) == i+1 })
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := badView.Hold(ctx); !errors.Is(err, context.Canceled) || badView.HasSynced() {
		t.Errorf("a view that cannot list: %v, synced %v", err, badView.HasSynced())
	}
	h.refused.Store(false)
	eventually(t, "the objects that were refused", func() bool { return badView.HasSynced() && names(badView) == "1 [refused/one]" })
}

// TestJoinAndLeave: a namespace that is left holds nothing, and can be joined again;
// nobody joins it beside another.
func TestJoinAndLeave(t *testing.T) {
	h, c := newHosts(), New()
	h.in("a").Add(object("a", "one"))
	h.in("b").Delete(object("b", "none"))
	eventually(t, "the end of what tests before watched", func() bool { return watchers() == 0 })
	before := runtime.NumGoroutine()
	most := 0
	for range 20 {
		var leaves []func()
		for _, ns := range []string{"a", "b"} {
			s := c.Space(ns)
			v := s.View(h.kind())
			leave, err := s.Join(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			leaves = append(leaves, leave)
			if _, err := v.Hold(t.Context()); err != nil { // and never releases it
				t.Fatal(err)
			}
		}
		most = max(most, watchers())
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := c.Space("a").Join(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("joined twice: %v", err)
		}
		for _, leave := range leaves {
			leave()
			leave()
		}
		if got := c.Stats(); got != (Stats{}) {
			t.Fatalf("left: %+v", got)
		}
	}
	if most < 2 {
		t.Errorf("%d goroutines watch at most: watches do not show", most)
	}
	eventually(t, "the end of all goroutines", func() bool { return runtime.NumGoroutine() <= before })
}

// watchers counts the goroutines of watches, of whichever test.
func watchers() int {
	stacks := make([]byte, 1<<20)
	n := 0
	for one := range strings.SplitSeq(string(stacks[:runtime.Stack(stacks, true)]), "\n\n") {
		if strings.Contains(one, "tools/cache.(*Reflector)") {
			n++
		}
	}
	return n
}

// TestLeft: a view whose namespace was left answers so, and begins nothing.
func TestLeft(t *testing.T) {
	h, c := newHosts(), New()
	s := c.Space("a")
	v := s.View(h.kind())
	if _, err := v.Hold(t.Context()); !errors.Is(err, ErrNotJoined) {
		t.Errorf("before: %v", err)
	}
	leave := join(t, s)
	if _, err := v.AddEventHandler(&log{}); err == nil {
		t.Error("a handler is added too late")
	}
	leave()
	v.Want()
	v.Look()
	if _, err := v.Hold(t.Context()); !errors.Is(err, ErrNotJoined) || v.runs() {
		t.Errorf("after: %v", err)
	}
}
