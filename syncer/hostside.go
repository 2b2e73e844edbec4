package syncer

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"

	"sublet.dev/isolation/tenant"
	"sublet.dev/syncer/engine"
	"sublet.dev/syncer/hostcache"
)

// hostKinds are the kinds of a host namespace that syncers look at.
type hostKinds struct {
	pods, services, endpointSlices, configMaps, secrets, networkPolicies, claims, ingresses hostcache.Kind
	events                                                                                  hostcache.Kind
}

// newHostKinds: only objects that a syncer made are looked at, so the manager's own
// never come near, and events, which others make.
func newHostKinds(api kubernetes.Interface) hostKinds {
	core, discovery, networking := api.CoreV1().RESTClient(), api.DiscoveryV1().RESTClient(), api.NetworkingV1().RESTClient()
	made := func(client rest.Interface, resource string, example runtime.Object) hostcache.Kind {
		source := hostcache.Source(client, resource, tenant.LabelManagedBy+"="+tenant.ManagedBySyncer)
		return hostcache.Kind{Resource: resource, Example: example, Source: source, Transform: withoutManagedFields}
	}
	return hostKinds{
		pods:            made(core, "pods", &corev1.Pod{}),
		services:        made(core, "services", &corev1.Service{}),
		endpointSlices:  made(discovery, "endpointslices", &discoveryv1.EndpointSlice{}),
		configMaps:      made(core, "configmaps", &corev1.ConfigMap{}),
		secrets:         made(core, "secrets", &corev1.Secret{}),
		networkPolicies: made(networking, "networkpolicies", &networkingv1.NetworkPolicy{}),
		claims:          made(core, "persistentvolumeclaims", &corev1.PersistentVolumeClaim{}),
		ingresses:       made(networking, "ingresses", &networkingv1.Ingress{}),
		events:          hostcache.Kind{Resource: "events", Example: &corev1.Event{}, Source: hostcache.Source(core, "events", ""), Transform: withoutManagedFields},
	}
}

// hostSide is a tenant's part of the cell's cache of the host.
type hostSide struct {
	space                                                                                           *hostcache.Space
	pods, services, endpointSlices, configMaps, secrets, networkPolicies, claims, ingresses, events *hostcache.View
}

func hostSideOf(h *Host, namespace string) (hostSide, error) {
	space := h.spaces.Space(namespace)
	side := hostSide{
		space:           space,
		pods:            space.View(h.kinds.pods),
		services:        space.View(h.kinds.services),
		endpointSlices:  space.View(h.kinds.endpointSlices),
		configMaps:      space.View(h.kinds.configMaps),
		secrets:         space.View(h.kinds.secrets),
		networkPolicies: space.View(h.kinds.networkPolicies),
		claims:          space.View(h.kinds.claims),
		ingresses:       space.View(h.kinds.ingresses),
		events:          space.View(h.kinds.events),
	}
	// What matters of events is what they say of host pods.
	side.events.OnlyWhile(func() bool { return len(side.pods.GetStore().ListKeys()) > 0 })
	_, err := side.pods.AddEventHandler(cache.ResourceEventHandlerFuncs{AddFunc: func(any) { side.events.Want() }})
	return side, err
}

// watched writes a kind to the host. Before it makes an object it has the kind watched.
type watched[T engine.Object] struct {
	engine.Writer[T]
	view     *hostcache.View
	patience time.Duration // how long it waits for that
	one      chan struct{} // if it is there, who waits has its one place, and others come again
}

// Create implements engine.Writer.
func (w watched[T]) Create(ctx context.Context, object T, o metav1.CreateOptions) (T, error) {
	var none T
	release, err := w.hold(ctx)
	if err != nil {
		return none, fmt.Errorf("watch before the write: %w", err)
	}
	made, err := w.Writer.Create(ctx, object, o)
	if err == nil || refused(err) {
		release() // otherwise it may be made yet
	}
	return made, err
}

func (w watched[T]) hold(ctx context.Context) (release func(), err error) {
	if w.one != nil {
		select {
		case w.one <- struct{}{}:
			defer func() { <-w.one }()
		default:
			return nil, engine.ErrUnseen
		}
	}
	looking, cancel := context.WithTimeout(ctx, w.patience)
	defer cancel()
	return w.view.Hold(looking)
}

// refused says whether the host answered that it has not done, and will not do, what it
// was asked.
func refused(err error) bool {
	return apierrors.IsAlreadyExists(err) || apierrors.IsForbidden(err) || apierrors.IsInvalid(err) || apierrors.IsBadRequest(err) ||
		apierrors.IsNotFound(err) || apierrors.IsConflict(err) || apierrors.IsTooManyRequests(err)
}
