package manager

import (
	"context"
	"fmt"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/resourceversion"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/metadata/metadatainformer"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/workqueue"

	"sublet.dev/isolation/tenant"
	"sublet.dev/tenant-apiserver/cell"
)

// watched are the kinds of host objects whose changes wake a tenant, and how far its
// syncer had seen them.
var watched = map[schema.GroupVersionResource]func(cell.Seen) cell.Mark{
	{Version: "v1", Resource: "pods"}:                                        func(s cell.Seen) cell.Mark { return s.Pods },
	{Version: "v1", Resource: "services"}:                                    func(s cell.Seen) cell.Mark { return s.Services },
	{Version: "v1", Resource: "configmaps"}:                                  func(s cell.Seen) cell.Mark { return s.ConfigMaps },
	{Version: "v1", Resource: "secrets"}:                                     func(s cell.Seen) cell.Mark { return s.Secrets },
	{Group: "discovery.k8s.io", Version: "v1", Resource: "endpointslices"}:   func(s cell.Seen) cell.Mark { return s.EndpointSlices },
	{Group: "networking.k8s.io", Version: "v1", Resource: "networkpolicies"}: func(s cell.Seen) cell.Mark { return s.NetworkPolicies },
	{Group: "networking.k8s.io", Version: "v1", Resource: "ingresses"}:       func(s cell.Seen) cell.Mark { return s.Ingresses },
	{Version: "v1", Resource: "persistentvolumeclaims"}:                      func(s cell.Seen) cell.Mark { return s.Claims },
}

// wakers work at a time: a wake is mostly waiting for the cell.
const wakers = 4

// sleeper is a tenant that sleeps.
type sleeper struct {
	id   tenant.ID
	cell string
	seen cell.Seen
}

// waker looks at the host objects that syncers made, for the tenants whose syncers do
// not: it wakes those of which something has changed since their syncer saw it. It
// keeps only names and versions, of all tenants in one informer for each kind.
type waker struct {
	manager   *Manager
	factory   metadatainformer.SharedInformerFactory
	informers map[schema.GroupVersionResource]cache.SharedIndexInformer
	queue     workqueue.TypedRateLimitingInterface[string] // host namespaces

	mu     sync.Mutex
	asleep map[string]sleeper // guarded by mu: by host namespace
}

func newWaker(m *Manager, host *rest.Config) (*waker, error) {
	client, err := metadata.NewForConfig(host)
	if err != nil {
		return nil, fmt.Errorf("make the client of host objects: %w", err)
	}
	w := &waker{
		manager: m, informers: map[schema.GroupVersionResource]cache.SharedIndexInformer{}, asleep: map[string]sleeper{},
		queue: workqueue.NewTypedRateLimitingQueue(workqueue.NewTypedItemExponentialFailureRateLimiter[string](100*time.Millisecond, 5*time.Second)),
	}
	w.factory = metadatainformer.NewFilteredSharedInformerFactory(client, 0, metav1.NamespaceAll, func(o *metav1.ListOptions) {
		o.LabelSelector = tenant.LabelManagedBy + "=" + tenant.ManagedBySyncer
	})
	for resource := range watched {
		informer := w.factory.ForResource(resource).Informer()
		if err := informer.SetTransform(bare); err != nil {
			return nil, fmt.Errorf("watch host %s: %w", resource.Resource, err)
		}
		if _, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
			AddFunc: w.changed, UpdateFunc: func(_, now any) { w.changed(now) }, DeleteFunc: w.changed,
		}); err != nil {
			return nil, fmt.Errorf("watch host %s: %w", resource.Resource, err)
		}
		w.informers[resource] = informer
	}
	return w, nil
}

// bare keeps what news and hostnames look at.
func bare(o any) (any, error) {
	if m, ok := o.(*metav1.PartialObjectMetadata); ok {
		var asks map[string]string
		if v, ok := m.Labels[tenant.LabelHostnames]; ok {
			asks = map[string]string{tenant.LabelHostnames: v}
		}
		m.ObjectMeta = metav1.ObjectMeta{Labels: asks, Namespace: m.Namespace, Name: m.Name, UID: m.UID, ResourceVersion: m.ResourceVersion, Generation: m.Generation}
	}
	return o, nil
}

// changed queues the namespace of an object if its tenant sleeps.
func (w *waker) changed(o any) {
	key, err := cache.DeletionHandlingMetaNamespaceKeyFunc(o)
	if err != nil {
		return // it has no name, so it is nobody's
	}
	namespace, _, err := cache.SplitMetaNamespaceKey(key)
	if _, sleeps := w.get(namespace); err == nil && sleeps {
		w.queue.Add(namespace)
	}
}

func (w *waker) get(namespace string) (sleeper, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	s, ok := w.asleep[namespace]
	return s, ok
}

// set notes that a tenant's status in a cell is another now.
func (w *waker) set(name string, t cell.Status) {
	w.mu.Lock()
	defer w.mu.Unlock()
	namespace := tenant.HostNamespace(t.Name, t.ID)
	if t.Phase == cell.Asleep {
		w.asleep[namespace] = sleeper{t.ID, name, t.Seen}
		w.queue.Add(namespace)
	} else if w.asleep[namespace].cell == name {
		delete(w.asleep, namespace)
	}
}

// unset notes that a cell does not host the tenant any more.
func (w *waker) unset(name string, t cell.Status) {
	t.Phase = cell.Stopped
	w.set(name, t)
}

// Start works until ctx ends.
func (w *waker) Start(ctx context.Context) error {
	w.factory.Start(ctx.Done())
	defer w.factory.Shutdown()
	w.factory.WaitForCacheSync(ctx.Done())
	var group sync.WaitGroup
	for range wakers {
		group.Go(func() {
			for w.next(ctx) {
			}
		})
	}
	<-ctx.Done()
	w.queue.ShutDown()
	group.Wait()
	return nil
}

// next looks at one namespace; false when the queue is shut down.
func (w *waker) next(ctx context.Context) bool {
	namespace, shutdown := w.queue.Get()
	if shutdown {
		return false
	}
	defer w.queue.Done(namespace)
	s, ok := w.get(namespace)
	why := ""
	if ok {
		why = w.news(namespace, s.seen)
	}
	if why == "" {
		w.queue.Forget(namespace)
		return true
	}
	if err := w.wake(ctx, s, why); err != nil && ctx.Err() == nil {
		w.manager.config.Logger.Warn("a tenant cannot be woken", "namespace", namespace, "error", err)
		w.queue.AddRateLimited(namespace)
		return true
	}
	w.queue.Forget(namespace)
	return true
}

func (w *waker) wake(ctx context.Context, s sleeper, why string) error {
	ctx, cancel := context.WithTimeout(ctx, hostTimeout)
	defer cancel()
	c, err := w.manager.cell(ctx, s.cell)
	if err != nil {
		return err
	}
	_, err = c.Wake(ctx, s.id, why)
	return err
}

// news says what has changed in a namespace since a syncer saw it; "": nothing.
func (w *waker) news(namespace string, seen cell.Seen) string {
	for resource, markOf := range watched {
		informer, mark := w.informers[resource], markOf(seen)
		if mark.Version != "" && behind(informer.LastSyncResourceVersion(), mark.Version) {
			continue // our watch is behind the syncer's: what that saw is still to come
		}
		objects, err := informer.GetIndexer().ByIndex(cache.NamespaceIndex, namespace)
		if err != nil || changedSince(objects, mark) {
			return "host " + resource.Resource + " changed"
		}
	}
	return ""
}

// changedSince says whether the objects are others than those of the mark: there are
// more or fewer of them, or one is newer.
func changedSince(objects []any, mark cell.Mark) bool {
	if len(objects) != mark.Count {
		return true
	}
	for _, o := range objects {
		m, ok := o.(metav1.Object)
		if !ok || mark.Version == "" || behind(mark.Version, m.GetResourceVersion()) {
			return true
		}
	}
	return false
}

// behind says whether a version of a resource is older than another; ones that cannot
// be compared are.
func behind(version, than string) bool {
	c, err := resourceversion.CompareResourceVersion(version, than)
	return err != nil || c < 0
}
