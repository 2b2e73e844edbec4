package etcdclient_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/apis/example"
	"k8s.io/apiserver/pkg/features"
	"k8s.io/apiserver/pkg/storage"
	"k8s.io/apiserver/pkg/storage/cacher"
	storagetesting "k8s.io/apiserver/pkg/storage/testing"
	"k8s.io/client-go/tools/cache"
	"k8s.io/utils/clock"

	"sublet.dev/tenant-apiserver/etcdclient"
)

// cached puts upstream's watch cache before the storage, as a server does.
func cached(t *testing.T) (*cacher.CacheDelegator, *upstream) {
	t.Helper()
	if err := etcdclient.Install(); err != nil { // says that progress requests work
		t.Fatal(err)
	}
	u := newUpstream(t)
	c, err := cacher.NewCacherFromConfig(cacher.Config{
		Storage: u, Versioner: storage.APIObjectVersioner{}, GroupResource: schema.GroupResource{Resource: "pods"},
		EventsHistoryWindow: cacher.DefaultEventFreshDuration, ResourcePrefix: "/pods/",
		KeyFunc:      func(obj runtime.Object) (string, error) { return storage.NamespaceKeyFunc("/pods/", obj) },
		GetAttrsFunc: podAttrs, Indexers: &cache.Indexers{},
		NewFunc:     func() runtime.Object { return &example.Pod{} },
		NewListFunc: func() runtime.Object { return &example.PodList{} },
		Codec:       u.codec, Clock: clock.RealClock{},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := c.Wait(ctx); err != nil {
		t.Fatal(err)
	}
	d := cacher.NewCacheDelegator(c, u)
	t.Cleanup(func() { d.Stop(); c.Stop() })
	return d, u
}

func podAttrs(obj runtime.Object) (labels.Set, fields.Set, error) {
	pod, ok := obj.(*example.Pod)
	if !ok {
		return nil, nil, fmt.Errorf("%T is not a pod", obj)
	}
	return pod.Labels, fields.Set{
		"metadata.name": pod.Name, "metadata.namespace": pod.Namespace, "spec.nodeName": pod.Spec.NodeName,
	}, nil
}

// throughCache are the tests of upstream's suite that say something about what
// lies below a watch cache: progress, bookmarks, consistent reads.
var throughCache = map[string]func(context.Context, *testing.T, storage.Interface, *upstream){
	"ConsistentList": func(ctx context.Context, t *testing.T, c storage.Interface, u *upstream) {
		storagetesting.RunTestConsistentList(ctx, t, c, u.increaseRV, true, true, true)
	},
	"WatchDispatchBookmarkEvents": func(ctx context.Context, t *testing.T, c storage.Interface, _ *upstream) {
		storagetesting.RunTestWatchDispatchBookmarkEvents(ctx, t, c, true)
	},
	"WatchBookmarksWithCorrectResourceVersion": func(ctx context.Context, t *testing.T, c storage.Interface, _ *upstream) {
		storagetesting.RunTestOptionalWatchBookmarksWithCorrectResourceVersion(ctx, t, c)
	},
	"Watch": func(ctx context.Context, t *testing.T, c storage.Interface, _ *upstream) {
		storagetesting.RunTestWatch(ctx, t, c)
	},
	"NamespaceScopedWatch": func(ctx context.Context, t *testing.T, c storage.Interface, _ *upstream) {
		storagetesting.RunTestNamespaceScopedWatch(ctx, t, c)
	},
	"DeleteTriggerWatch": func(ctx context.Context, t *testing.T, c storage.Interface, _ *upstream) {
		storagetesting.RunTestDeleteTriggerWatch(ctx, t, c)
	},
	"GuaranteedUpdateWithConflict": func(ctx context.Context, t *testing.T, c storage.Interface, _ *upstream) {
		storagetesting.RunTestGuaranteedUpdateWithConflict(ctx, t, c)
	},
	"DeleteWithConflict": func(ctx context.Context, t *testing.T, c storage.Interface, _ *upstream) {
		storagetesting.RunTestDeleteWithConflict(ctx, t, c)
	},
}

func TestConformanceThroughCache(t *testing.T) {
	for name, run := range throughCache {
		t.Run(name, func(t *testing.T) {
			gate(t, features.ListFromCacheSnapshot, true)
			c, u := cached(t)
			run(t.Context(), t, c, u)
		})
	}
}
