package syncer

import (
	"bytes"
	"errors"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"sublet.dev/isolation/policy"
	"sublet.dev/isolation/tenant"
	"sublet.dev/syncer/engine"
	"sublet.dev/syncer/translate"
)

// watch says for every informer and view but the nodes', which Run follows, which keys depend
// on an object it reports.
func (s *Syncer) watch() error {
	c := s.caches
	return errors.Join(
		s.engine.WatchChanges(c.tenant.pods, nil, keysOf(s.ofTenantPod), changesOf(s.changedTenantPod)),
		s.engine.Watch(c.tenant.configMaps, nil, keysOf(ofTenant[*corev1.ConfigMap](kindConfigMap))),
		s.engine.Watch(c.tenant.secrets, nil, keysOf(s.ofTenantSecret)),
		s.engine.Watch(c.tenant.services, nil, keysOf(ofTenant[*corev1.Service](kindService, kindServiceStatus))),
		s.engine.Watch(c.tenant.endpointSlices, nil, keysOf(ofTenant[*discoveryv1.EndpointSlice](kindEndpointSlice))),
		s.engine.WatchChanges(c.tenantNodes, nil, keysOf(s.ofTenantNode), changesOf(s.changedTenantNode)),
		s.engine.Watch(c.tenant.networkPolicies, nil, keysOf(ofTenant[*networkingv1.NetworkPolicy](kindNetworkPolicy))),
		s.engine.Watch(c.bundles, nil, keysOf(s.ofBundle)),
		s.engine.Watch(c.requests, nil, keysOf(s.ofRequest)),
		s.engine.Watch(c.namespaces, nil, keysOf(s.ofTenantNamespace)),
		s.engine.WatchChanges(c.host.pods, &s.seen.pods, keysOf(s.cameOrWentOnHost), changesOf(s.changedHostPod)),
		s.engine.Watch(c.host.configMaps, &s.seen.configMaps, keysOf(ofHost[*corev1.ConfigMap](s, kindConfigMap))),
		s.engine.Watch(c.host.secrets, &s.seen.secrets, keysOf(ofHost[*corev1.Secret](s, kindSecret))),
		s.engine.Watch(c.host.services, &s.seen.services, keysOf(ofHost[*corev1.Service](s, kindService, kindServiceStatus))),
		s.engine.Watch(c.host.endpointSlices, &s.seen.endpointSlices, keysOf(ofHost[*discoveryv1.EndpointSlice](s, kindEndpointSlice))),
		s.engine.Watch(c.host.networkPolicies, &s.seen.networkPolicies, keysOf(ofHost[*networkingv1.NetworkPolicy](s, kindNetworkPolicy))),
		s.engine.Watch(c.tenant.ingresses, nil, keysOf(ofTenantIngress)),
		s.engine.Watch(c.ingressClasses, nil, keysOf(s.ofIngressClass)),
		s.engine.Watch(c.host.ingresses, &s.seen.ingresses, keysOf(ofHost[*networkingv1.Ingress](s, kindIngress, kindIngressStatus, kindHostnames))),
		s.engine.Watch(c.host.events, nil, keysOf(s.ofHostEvent)),
	)
}

// keysOf gives objects of a kind to keys.
func keysOf[T any](keys func(T) []engine.Key) func(any) []engine.Key {
	return func(o any) []engine.Key {
		if object, ok := o.(T); ok {
			return keys(object)
		}
		return nil
	}
}

// changesOf gives two versions of an object of a kind to keys.
func changesOf[T any](keys func(before, now T) []engine.Key) func(before, now any) []engine.Key {
	return func(before, now any) []engine.Key {
		b, okBefore := before.(T)
		n, okNow := now.(T)
		if !okBefore || !okNow {
			return nil
		}
		return keys(b, n)
	}
}

func ofTenant[T metav1.Object](kinds ...string) func(T) []engine.Key {
	return func(tenantObject T) []engine.Key { return keys(translate.NameOf(tenantObject), kinds...) }
}

func keys(name tenant.Name, kinds ...string) []engine.Key {
	all := make([]engine.Key, len(kinds))
	for i, k := range kinds {
		all[i] = engine.Key{Kind: k, Name: name}
	}
	return all
}

// ofHost gives the key of the tenant's object that a host object was made for.
// Objects that are derived from a pod, or made for a custom resource, belong to that.
func ofHost[T metav1.Object](s *Syncer, kinds ...string) func(T) []engine.Key {
	return func(hostObject T) []engine.Key {
		name, ok := s.owner(hostObject)
		if !ok {
			return nil
		}
		if object, result := s.ofResult(name); result {
			return object
		}
		if translate.IsAnchors(name) {
			return keys(name, kindAnchors)
		}
		if ingress, derived := strings.CutSuffix(name.Name, translate.SuffixHostnames); derived {
			return keys(tenant.Name{Namespace: name.Namespace, Name: ingress}, kindHostnames, kindIngress)
		}
		if object, definition, derived := askedFor(name); derived {
			return keys(object, definition, definition+"/status", definition+"/hostnames")
		}
		for _, suffix := range []string{translate.SuffixTokens, translate.SuffixNode, translate.SuffixCertificates} {
			if pod, derived := strings.CutSuffix(name.Name, suffix); derived {
				return keys(tenant.Name{Namespace: name.Namespace, Name: pod}, kindPod)
			}
		}
		return keys(name, kinds...)
	}
}

// owner reads the marks of a host object; false when they are not this tenant's.
func (s *Syncer) owner(hostObject metav1.Object) (tenant.Name, bool) {
	owner, err := tenant.ReadOwner(hostObject.GetName(), hostObject.GetLabels(), hostObject.GetAnnotations())
	if err != nil || owner.Tenant != s.config.Tenant.ID {
		return tenant.Name{}, false
	}
	return owner.Name, true
}

// ofTenantPod: a pod, and whatever is on the host only because pods refer to it.
func (s *Syncer) ofTenantPod(tenantPod *corev1.Pod) []engine.Key {
	all := keys(translate.NameOf(tenantPod), kindPod, kindPodStatus, kindPodEvents)
	configMaps, secrets := translate.References(tenantPod)
	for _, n := range configMaps {
		all = append(all, keys(tenant.Name{Namespace: tenantPod.Namespace, Name: n}, kindConfigMap)...)
	}
	for _, n := range secrets {
		all = append(all, keys(tenant.Name{Namespace: tenantPod.Namespace, Name: n}, kindSecret)...)
	}
	for _, a := range translate.AnchorsOf(tenantPod) {
		all = append(all, keys(translate.NameOf(a), kindAnchors)...)
	}
	return all
}

// changedTenantPod: what is brought to the host does not depend on a pod's status, and
// what a pod refers to not on its node.
func (s *Syncer) changedTenantPod(before, now *corev1.Pod) []engine.Key {
	switch {
	case onlyStatus(before, now):
		return keys(translate.NameOf(now), kindPodStatus)
	case onlyPlaced(before, now):
		return keys(translate.NameOf(now), kindPod, kindPodStatus)
	default:
		return append(s.ofTenantPod(before), s.ofTenantPod(now)...)
	}
}

// changedHostPod: what a host pod must be does not depend on its status, nor on the node
// that the scheduler chose; what depends on that is made when the tenant's pod is bound, too.
// And whether a pod of the tenant is on a node changes with the pod's node only.
func (s *Syncer) changedHostPod(before, now *corev1.Pod) []engine.Key {
	all := append(s.ofHostPod(before), s.ofHostPod(now)...)
	same, stays := onlyStatus(before, now) || onlyPlaced(before, now), before.Spec.NodeName == now.Spec.NodeName
	all = slices.DeleteFunc(all, func(k engine.Key) bool {
		switch k.Kind {
		case kindPod:
			return same
		case kindNode, kindNodeStatus:
			return stays
		default:
			return false
		}
	})
	return append(all, s.called()...)
}

// cameOrWentOnHost: a host pod that there was not before, or is not any longer.
func (s *Syncer) cameOrWentOnHost(hostPod *corev1.Pod) []engine.Key {
	if name, ok := s.owner(hostPod); ok {
		s.crowd.seen(name)
	}
	return append(s.ofHostPod(hostPod), s.called()...)
}

// onlyPlaced says whether a pod has its node now, and nothing else has changed that the Pod
// pass looks at.
func onlyPlaced(before, now *corev1.Pod) bool {
	if before.Spec.NodeName != "" || now.Spec.NodeName == "" {
		return false
	}
	placed := *before
	placed.Spec.NodeName = now.Spec.NodeName
	return onlyStatus(&placed, now)
}

// onlyStatus says whether two versions of a pod differ in nothing that the Pod pass
// looks at.
func onlyStatus(before, now *corev1.Pod) bool {
	return before.UID == now.UID && translate.Ended(before) == translate.Ended(now) &&
		before.DeletionTimestamp.Equal(now.DeletionTimestamp) && ptr.Equal(before.DeletionGracePeriodSeconds, now.DeletionGracePeriodSeconds) &&
		maps.Equal(before.Labels, now.Labels) && maps.Equal(before.Annotations, now.Annotations) &&
		sameSpec(&before.Spec, &now.Spec)
}

// sameSpec says whether two pods are told to be the same. To encode both, which the API's
// types do in one way only, takes an eighth of the time of comparing them field by field.
func sameSpec(before, now *corev1.PodSpec) bool {
	b, err := before.Marshal()
	if err != nil {
		return false
	}
	n, err := now.Marshal()
	return err == nil && bytes.Equal(b, n)
}

// ofHostPod: a pod, the slices that name one of its addresses, and its node. Whatever
// happens to it, pods may have waited for the scheduler to be done with it: see called.
func (s *Syncer) ofHostPod(hostPod *corev1.Pod) []engine.Key {
	name, ok := s.owner(hostPod)
	if !ok {
		return nil
	}
	all := keys(name, kindPod, kindPodStatus, kindPodEvents)
	for _, ip := range hostPod.Status.PodIPs {
		for _, tenantSlice := range indexed[*discoveryv1.EndpointSlice](s.caches.tenant.endpointSlices, byAddress, ip.IP) {
			all = append(all, keys(translate.NameOf(tenantSlice), kindEndpointSlice)...)
		}
	}
	if hostPod.Spec.NodeName != "" {
		all = append(all, keys(s.view(hostPod.Spec.NodeName), kindNode, kindNodeStatus)...)
	}
	return all
}

// ofTenantNamespace: the policies whose peers it may have joined or left, and the routes
// that a Gateway may let attach by the labels of their namespaces.
func (s *Syncer) ofTenantNamespace(*corev1.Namespace) []engine.Key {
	var all []engine.Key
	for _, o := range s.caches.tenant.networkPolicies.GetStore().List() {
		if p, ok := o.(*networkingv1.NetworkPolicy); ok && translate.SelectsNamespaces(p) {
			all = append(all, keys(translate.NameOf(p), kindNetworkPolicy)...)
		}
	}
	if s.customs.selectsNamespaces() {
		all = append(all, s.customs.routeKeys(policy.HTTPRoutes)...)
	}
	return all
}

func (s *Syncer) ofHostNode(hostNode *corev1.Node) []engine.Key {
	return keys(s.view(hostNode.Name), kindNode, kindNodeStatus)
}

// ofTenantNode: a view, or what the tenant made of one, and the pods that it may be for.
// Nodes of the tenant's own are left alone.
func (s *Syncer) ofTenantNode(tenantNode *corev1.Node) []engine.Key {
	if !s.isView(tenantNode) {
		return nil
	}
	return append(keys(translate.NameOf(tenantNode), kindNode, kindNodeStatus), s.waitingForNodes()...)
}

// changedTenantNode is ofTenantNode for a change: pods wait for few of them.
func (s *Syncer) changedTenantNode(before, now *corev1.Node) []engine.Key {
	switch {
	case !s.isView(before) && !s.isView(now):
		return nil
	case translate.PlacementChanged(before, now):
		return s.ofTenantNode(now)
	}
	return keys(translate.NameOf(now), kindNode, kindNodeStatus)
}

func (s *Syncer) isView(tenantNode *corev1.Node) bool {
	_, isView := translate.IsNodeView(tenantNode)
	_, hasHost := s.caches.HostNode(tenantNode.Name)
	return isView || hasHost
}

// waitingForNodes: the pods that have no node. Which they may get can depend on labels
// and taints that the tenant put on them.
func (s *Syncer) waitingForNodes() []engine.Key {
	var all []engine.Key
	for _, item := range s.caches.tenant.pods.GetStore().List() {
		if p, ok := item.(*corev1.Pod); ok && p.Spec.NodeName == "" {
			all = append(all, keys(translate.NameOf(p), kindPod)...)
		}
	}
	return all
}

func (s *Syncer) view(hostNode string) tenant.Name {
	return tenant.Name{Name: s.config.Tenant.ID.NodeName(hostNode)}
}

// ofHostEvent: the events of the pod that one is about. One that is seen before
// its pod is found when the pod is.
func (s *Syncer) ofHostEvent(hostEvent *corev1.Event) []engine.Key {
	if hostEvent.InvolvedObject.Kind != "Pod" {
		return nil
	}
	hostPod, ok := engine.FromCache[*corev1.Pod](s.caches.host.pods.GetStore(), hostEvent.Namespace+"/"+hostEvent.InvolvedObject.Name)
	if !ok {
		return nil
	}
	name, ok := s.owner(hostPod)
	if !ok {
		return nil
	}
	return keys(name, kindPodEvents)
}
