package server

import (
	"fmt"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/dynamic"
	"k8s.io/utils/ptr"
)

// A watch list is what is there, an end of that, and then what happens: of built-in
// and of custom resources, in one request.
func TestWatchList(t *testing.T) {
	config := w.a.admin(t)
	ns := namespace(t, client(t, config))
	things(t, w.a, "watched.example.org")
	d := dynamic.NewForConfigOrDie(config)
	for _, kind := range []struct {
		gvr  schema.GroupVersionResource
		kind string
	}{
		{corev1.SchemeGroupVersion.WithResource("secrets"), "Secret"},
		{schema.GroupVersionResource{Group: "watched.example.org", Version: "v1", Resource: "things"}, "Thing"},
	} {
		t.Run(kind.kind, func(t *testing.T) {
			objects := d.Resource(kind.gvr).Namespace(ns)
			create := func(name string) {
				t.Helper()
				o := &unstructured.Unstructured{Object: map[string]any{"apiVersion": kind.gvr.GroupVersion().String(), "kind": kind.kind, "metadata": map[string]any{"name": name}}}
				if _, err := objects.Create(t.Context(), o, metav1.CreateOptions{}); err != nil {
					t.Fatal(err)
				}
			}
			const there = 5
			want := map[string]bool{}
			for i := range there {
				create(fmt.Sprint("x", i))
				want[fmt.Sprint("x", i)] = true
			}
			watcher, err := objects.Watch(t.Context(), metav1.ListOptions{
				SendInitialEvents: ptr.To(true), AllowWatchBookmarks: true, ResourceVersionMatch: metav1.ResourceVersionMatchNotOlderThan,
			})
			if err != nil {
				t.Fatal(err)
			}
			defer watcher.Stop()
			for len(want) > 0 {
				e, name := next(t, watcher)
				if e != watch.Added || !want[name] {
					t.Fatalf("%s %s before the end of what is there", e, name)
				}
				delete(want, name)
			}
			last := <-watcher.ResultChan()
			m, err := meta.Accessor(last.Object)
			if err != nil || last.Type != watch.Bookmark || m.GetAnnotations()[metav1.InitialEventsAnnotationKey] != "true" || m.GetResourceVersion() == "" {
				t.Fatalf("after what is there comes %s %v, %v", last.Type, last.Object, err)
			}
			create("later")
			for e, name := next(t, watcher); e != watch.Added || name != "later"; e, name = next(t, watcher) {
				if e != watch.Bookmark {
					t.Fatalf("%s %s", e, name)
				}
			}
		})
	}
}

// next returns the next event of a watch and whose it is.
func next(t *testing.T, w watch.Interface) (watch.EventType, string) {
	t.Helper()
	e, ok := <-w.ResultChan()
	if !ok {
		t.Fatal("the watch has ended")
	}
	m, err := meta.Accessor(e.Object)
	if err != nil {
		t.Fatalf("%s %v: %v", e.Type, e.Object, err)
	}
	return e.Type, m.GetName()
}
