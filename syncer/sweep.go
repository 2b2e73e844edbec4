package syncer

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/cache"

	"sublet.dev/isolation/tenant"
	"sublet.dev/syncer/engine"
	"sublet.dev/syncer/hostcache"
	"sublet.dev/syncer/patrol"
	"sublet.dev/syncer/translate"
)

// swept is a kind of host object that the patrol looks at, with the passes that an
// object of it belongs to.
type swept struct {
	resource schema.GroupVersionResource
	kinds    []string
	sides    func(*caches) (cache.SharedIndexInformer, *hostcache.View)
}

// sweeps lists the kinds that are mirrored to the host.
var sweeps = []swept{
	{corev1.SchemeGroupVersion.WithResource("pods"), []string{kindPod, kindPodStatus}, func(c *caches) (cache.SharedIndexInformer, *hostcache.View) { return c.tenant.pods, c.host.pods }},
	{corev1.SchemeGroupVersion.WithResource("configmaps"), []string{kindConfigMap}, func(c *caches) (cache.SharedIndexInformer, *hostcache.View) {
		return c.tenant.configMaps, c.host.configMaps
	}},
	{corev1.SchemeGroupVersion.WithResource("secrets"), []string{kindSecret}, func(c *caches) (cache.SharedIndexInformer, *hostcache.View) { return c.tenant.secrets, c.host.secrets }},
	{corev1.SchemeGroupVersion.WithResource("services"), []string{kindService, kindServiceStatus}, func(c *caches) (cache.SharedIndexInformer, *hostcache.View) {
		return c.tenant.services, c.host.services
	}},
	{discoveryv1.SchemeGroupVersion.WithResource("endpointslices"), []string{kindEndpointSlice}, func(c *caches) (cache.SharedIndexInformer, *hostcache.View) {
		return c.tenant.endpointSlices, c.host.endpointSlices
	}},
	{networkingv1.SchemeGroupVersion.WithResource("networkpolicies"), []string{kindNetworkPolicy}, func(c *caches) (cache.SharedIndexInformer, *hostcache.View) {
		return c.tenant.networkPolicies, c.host.networkPolicies
	}},
	{networkingv1.SchemeGroupVersion.WithResource("ingresses"), []string{kindHostnames, kindIngress, kindIngressStatus}, func(c *caches) (cache.SharedIndexInformer, *hostcache.View) {
		return c.tenant.ingresses, c.host.ingresses
	}},
	{corev1.SchemeGroupVersion.WithResource("persistentvolumeclaims"), []string{kindClaim, kindClaimStatus}, func(c *caches) (cache.SharedIndexInformer, *hostcache.View) { return c.tenant.claims, c.host.claims }},
}

// sweepPage is how many host objects the patrol reads at a time.
const sweepPage = 500

// everything lists the keys of all objects of both sides, each once.
func (s *Syncer) everything(ctx context.Context) ([]engine.Key, error) {
	found := &keySet{seen: map[engine.Key]struct{}{}}
	var errs []error
	for _, kind := range sweeps {
		tenantSide, view := kind.sides(s.caches)
		for _, o := range tenantSide.GetStore().List() {
			if tenantObject, ok := o.(metav1.Object); ok {
				found.add(keys(translate.NameOf(tenantObject), kind.kinds...)...)
			}
		}
		errs = append(errs, s.sweep(ctx, kind, view, found))
		view.Look()
	}
	s.caches.host.events.Look()
	s.customs.each(func(c *custom) {
		found.add(c.everything()...)
		if c.rule.ToHost() {
			errs = append(errs, s.sweep(ctx, swept{resource: c.rule.Resource(), kinds: c.kinds()}, c.hostView, found))
			c.hostView.Look()
		}
	})
	found.add(s.customs.keys()...)
	for _, name := range s.caches.tenant.pods.GetIndexer().ListIndexFuncValues(byAnchors) {
		found.add(keys(tenant.Name{Name: name}, kindAnchors)...)
	}
	for _, name := range s.caches.hostNodes.GetStore().ListKeys() {
		found.add(keys(s.view(name), kindNode, kindNodeStatus)...)
	}
	return found.keys, errors.Join(errs...)
}

// keySet is keys in the order in which they were first seen.
type keySet struct {
	seen map[engine.Key]struct{}
	keys []engine.Key
}

func (s *keySet) add(keys ...engine.Key) {
	for _, k := range keys {
		if _, ok := s.seen[k]; !ok {
			s.seen[k] = struct{}{}
			s.keys = append(s.keys, k)
		}
	}
}

// sweep reads the marks of all objects of a kind in the host namespace, whatever their
// labels, and mends those that are damaged. The view, if there is one, is to watch them.
func (s *Syncer) sweep(ctx context.Context, kind swept, view *hostcache.View, found *keySet) error {
	objects := s.config.Host.metadata.Resource(kind.resource).Namespace(s.config.Tenant.HostNamespace)
	for page := (metav1.ListOptions{Limit: sweepPage}); ; {
		list, err := objects.List(ctx, page)
		if err != nil {
			return fmt.Errorf("read the host's %s: %w", kind.resource.Resource, err)
		}
		for i := range list.Items {
			if err := s.judge(ctx, kind, view, &list.Items[i], found); err != nil {
				return err
			}
		}
		if page.Continue = list.Continue; page.Continue == "" {
			return nil
		}
	}
}

func (s *Syncer) judge(ctx context.Context, kind swept, view *hostcache.View, hostObject *metav1.PartialObjectMetadata, found *keySet) error {
	owner, verdict := patrol.Judge(s.config.Tenant.ID, hostObject)
	switch verdict {
	case patrol.Whole:
		if view != nil {
			view.Want() // somebody else made it
		}
		found.add(ofHost[metav1.Object](s, kind.kinds...)(hostObject)...)
	case patrol.Damaged:
		labels, _ := owner.Marks()
		if err := s.remark(ctx, kind.resource, view, hostObject, labels); err != nil {
			return err
		}
		s.patrol.Count(func(n *patrol.Stats) { n.Remarked++ })
		s.logger.Warn("the patrol restored the labels of a host object", "resource", kind.resource.Resource, "hostName", hostObject.Name)
	case patrol.Unreadable:
		s.patrol.Count(func(n *patrol.Stats) { n.Unreadable++ })
		s.logger.Warn("a host object does not say whom it is for: it is left alone", "resource", kind.resource.Resource, "hostName", hostObject.Name)
	}
	return nil
}

// remark restores the labels by which the syncer knows a host object, if it is still
// the one that was judged.
func (s *Syncer) remark(ctx context.Context, resource schema.GroupVersionResource, view *hostcache.View, hostObject *metav1.PartialObjectMetadata, labels map[string]string) error {
	if view != nil {
		release, err := view.Hold(ctx)
		if err != nil {
			return err
		}
		defer release()
	}
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{
		"uid": hostObject.UID, "resourceVersion": hostObject.ResourceVersion, "labels": labels,
	}})
	if err != nil {
		return fmt.Errorf("patch of %s: %w", hostObject.Name, err)
	}
	_, err = s.hostMarks.Resource(resource).Namespace(hostObject.Namespace).Patch(ctx, hostObject.Name, types.MergePatchType, patch, metav1.PatchOptions{})
	if apierrors.IsConflict(err) || apierrors.IsNotFound(err) {
		return nil // somebody was faster; the next round looks again
	}
	if err != nil {
		return fmt.Errorf("restore the marks of %s: %w", hostObject.Name, err)
	}
	return nil
}

// Patrol walks one round of the patrol now, and returns when all of it is queued.
func (s *Syncer) Patrol(ctx context.Context) { s.patrol.Round(ctx) }

// PatrolStats returns what the patrol has done since the syncer was made.
func (s *Syncer) PatrolStats() patrol.Stats { return s.patrol.Stats() }
