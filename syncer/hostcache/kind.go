package hostcache

import (
	"context"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
)

// Kind is what a view is of.
type Kind struct {
	// Resource names the kind, in messages, and where kinds are compared.
	Resource string
	// Example is an object of the kind: others are not taken.
	Example runtime.Object
	// Source lists and watches the kind in a namespace.
	Source func(namespace string) cache.ListerWatcher
	// Transform changes objects before they are kept; nil: nothing is changed.
	Transform cache.TransformFunc
}

// Source returns how a client of an API group and version lists and watches a resource:
// the objects that a label selector selects, or all ("").
func Source(client rest.Interface, resource, selector string) func(namespace string) cache.ListerWatcher {
	return func(namespace string) cache.ListerWatcher {
		return cache.NewFilteredListWatchFromClient(client, resource, namespace, func(o *metav1.ListOptions) { o.LabelSelector = selector })
	}
}

// Objects is Source for a kind that has no Go type: the objects are unstructured.
func Objects(client dynamic.Interface, resource schema.GroupVersionResource, selector string) func(namespace string) cache.ListerWatcher {
	return func(namespace string) cache.ListerWatcher {
		objects := client.Resource(resource).Namespace(namespace)
		return &cache.ListWatch{
			ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
				o.LabelSelector = selector
				return objects.List(ctx, o)
			},
			WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
				o.LabelSelector = selector
				return objects.Watch(ctx, o)
			},
		}
	}
}

// source lists what is there, and never what a cache of the host's remembers: a view
// whose list is empty relies on that.
type source struct{ cache.ListerWatcher }

// ListWithContext implements cache.ListerWithContext.
func (s source) ListWithContext(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
	o.ResourceVersion, o.ResourceVersionMatch = "", ""
	return cache.ToListerWithContext(s.ListerWatcher).ListWithContext(ctx, o)
}

// WatchWithContext implements cache.WatcherWithContext.
func (s source) WatchWithContext(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
	return cache.ToWatcherWithContext(s.ListerWatcher).WatchWithContext(ctx, o)
}

// IsWatchListSemanticsUnSupported has reflectors begin with a list, which may be all
// that is needed.
func (source) IsWatchListSemanticsUnSupported() bool { return true }
