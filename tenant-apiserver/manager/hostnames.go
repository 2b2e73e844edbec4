package manager

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/workqueue"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"sublet.dev/api/v1alpha1"
	"sublet.dev/isolation/tenant"
)

// A hostname belongs to one tenant of a host at most. Syncers ask for hostnames by
// ConfigMaps; one goroutine here decides for all tenants, so there is no race to win:
//
//   - whoever has a name keeps it as long as it asks for it;
//   - nobody gets a name that overlaps one which another has, had before this decision,
//     or serves by an Ingress, a Gateway or an HTTPRoute, the provider's own included;
//   - of those who ask, the one that has asked longest is first (time, then UID);
//   - nobody has more than [policy.MaxHostnames].
//
// What a tenant has stands in an annotation of its host namespace, which no identity of
// a tenant's can write and to which the host's admission policy holds its Ingresses;
// the answers on the ConfigMaps only tell the syncers.
type hostnames struct {
	manager *Manager
	queue   workqueue.TypedRateLimitingInterface[string]
	asked   atomic.Bool // since the manager began
}

// hostnamesOwner marks what is written here on objects that others apply.
const hostnamesOwner = "sublet-hostnames"

// waiting is how long a name that somebody waits for may be free unnoticed: the
// provider's own Ingresses, and all Gateways and HTTPRoutes, are not watched. For these,
// a tenant's syncer asks until the host serves them no longer.
const waiting = time.Minute

// gather is how long a decision waits for what happens at the same time: it reads all
// that it depends on.
const gather = 200 * time.Millisecond

func newHostnames(m *Manager) (*hostnames, error) {
	h := &hostnames{manager: m, queue: workqueue.NewTypedRateLimitingQueue(workqueue.NewTypedItemExponentialFailureRateLimiter[string](100*time.Millisecond, 10*time.Second))}
	asks := func(o any) {
		if last, ok := o.(cache.DeletedFinalStateUnknown); ok {
			o = last.Obj
		}
		if p, ok := o.(*metav1.PartialObjectMetadata); ok && p.Labels[tenant.LabelHostnames] != "" {
			h.asked.Store(true)
			h.again()
		}
	}
	serves := func(any) { h.again() }
	for resource, handler := range map[schema.GroupVersionResource]cache.ResourceEventHandlerFuncs{
		corev1.SchemeGroupVersion.WithResource("configmaps"): {AddFunc: asks, UpdateFunc: func(_, now any) { asks(now) }, DeleteFunc: asks},
		networkingv1.SchemeGroupVersion.WithResource("ingresses"): {AddFunc: serves, DeleteFunc: serves, UpdateFunc: func(before, now any) {
			if was, ok := before.(*metav1.PartialObjectMetadata); ok && was.Generation != now.(*metav1.PartialObjectMetadata).Generation {
				h.again() // its spec is another; its status says nothing about names
			}
		}},
	} {
		if _, err := m.waker.informers[resource].AddEventHandler(handler); err != nil {
			return nil, fmt.Errorf("watch host %s: %w", resource.Resource, err)
		}
	}
	return h, nil
}

// again asks for another decision. As long as nobody ever asked for a name, there is
// nothing to decide.
func (h *hostnames) again() {
	if h.asked.Load() {
		h.queue.AddAfter("", gather)
	}
}

// Start decides until ctx ends.
func (h *hostnames) Start(ctx context.Context) error {
	done := make(chan struct{})
	go func() {
		defer close(done)
		for h.next(ctx) {
		}
	}()
	<-ctx.Done()
	h.queue.ShutDown()
	<-done
	return nil
}

func (h *hostnames) next(ctx context.Context) bool {
	key, shutdown := h.queue.Get()
	if shutdown {
		return false
	}
	defer h.queue.Done(key)
	unsettled, err := h.decide(ctx)
	switch {
	case ctx.Err() != nil:
	case err != nil:
		h.manager.config.Logger.Warn("hostnames are not decided, will retry", "error", err)
		h.queue.AddRateLimited(key)
		return true
	case unsettled > 0:
		h.queue.AddAfter(key, unsettled)
	}
	h.queue.Forget(key)
	return true
}

// decide makes one decision and writes it; unsettled is after how long to look again,
// 0: not before something changes.
func (h *hostnames) decide(ctx context.Context) (unsettled time.Duration, err error) {
	w, err := h.read(ctx)
	if err != nil || len(w.asks) == 0 && len(w.had) == 0 {
		return 0, err
	}
	has, freed := w.decide()
	for _, namespace := range slices.Sorted(maps.Keys(w.tenants)) {
		if !slices.Equal(has[namespace], w.had[namespace]) {
			o := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}}
			if err := h.annotate(ctx, o, map[string]string{tenant.AnnotationHostnames: strings.Join(has[namespace], ",")}); err != nil {
				return 0, err
			}
		}
	}
	for _, a := range w.asks {
		granted, taken := w.answer(a, has)
		answer := map[string]string{
			tenant.AnnotationGranted: strings.Join(granted, ","), tenant.AnnotationTaken: strings.Join(taken, ","), tenant.AnnotationAnswered: a.text,
		}
		if len(taken) > 0 {
			unsettled = waiting
		}
		if a.answered(answer) {
			continue
		}
		if err := h.annotate(ctx, a.object, answer); err != nil {
			return 0, err
		}
	}
	if freed {
		unsettled = time.Millisecond // what one tenant gave up is another's only from the next decision on
	}
	return unsettled, nil
}

// annotate sets annotations of ours. An object that is gone needs none.
func (h *hostnames) annotate(ctx context.Context, o client.Object, annotations map[string]string) error {
	before := o.DeepCopyObject().(client.Object) // of the same type
	before.SetAnnotations(nil)
	o.SetAnnotations(annotations)
	err := h.manager.api.Patch(ctx, o, client.MergeFrom(before), client.FieldOwner(hostnamesOwner))
	if err = client.IgnoreNotFound(err); err != nil {
		return fmt.Errorf("answer about hostnames in %s: %w", cmp.Or(o.GetNamespace(), o.GetName()), err)
	}
	return nil
}

// read reads what a decision depends on.
func (h *hostnames) read(ctx context.Context) (hostnameWorld, error) {
	w := hostnameWorld{tenants: map[string]hostnameTenant{}, had: map[string][]string{}, serves: map[string][]string{}}
	var (
		tenants    v1alpha1.VirtualClusterList
		plans      v1alpha1.PlanList
		namespaces corev1.NamespaceList
		asks       corev1.ConfigMapList
		ingresses  networkingv1.IngressList
	)
	for list, options := range map[client.ObjectList][]client.ListOption{
		&tenants: nil, &plans: nil, &ingresses: nil,
		&namespaces: {client.HasLabels{tenant.LabelTenant}},
		&asks:       {client.HasLabels{tenant.LabelHostnames}},
	} {
		if err := h.manager.api.List(ctx, list, options...); err != nil {
			return w, fmt.Errorf("read %T: %w", list, err)
		}
	}
	allowed := map[string][]string{}
	for _, p := range plans.Items {
		allowed[p.Name] = p.Spec.Ingress.Hostnames
	}
	for _, vc := range tenants.Items {
		if vc.DeletionTimestamp == nil && vc.Status.Namespace != "" {
			w.tenants[vc.Status.Namespace] = hostnameTenant{vc.Name, allowed[vc.Spec.Plan]}
		}
	}
	for _, n := range namespaces.Items {
		if text := n.Annotations[tenant.AnnotationHostnames]; text != "" {
			w.had[n.Name] = strings.Split(text, ",")
		}
	}
	for _, i := range ingresses.Items {
		for _, r := range i.Spec.Rules {
			w.serves[i.Namespace] = append(w.serves[i.Namespace], r.Host)
		}
	}
	if err := h.routed(ctx, w.serves); err != nil {
		return w, err
	}
	for i := range asks.Items {
		if m := &asks.Items[i]; m.DeletionTimestamp == nil {
			w.asks = append(w.asks, newHostnameAsk(m))
		}
	}
	return w, nil
}
