package syncer

import (
	"errors"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"

	"sublet.dev/isolation/tenant"
	"sublet.dev/syncer/engine"
	"sublet.dev/syncer/translate"
)

// watch says for every informer but the nodes', which Run follows, which keys depend
// on an object it reports.
func (s *Syncer) watch() error {
	c := s.caches
	return errors.Join(
		s.engine.Watch(c.tenant.pods, nil, keysOf(s.ofTenantPod)),
		s.engine.Watch(c.tenant.configMaps, nil, keysOf(ofTenant[*corev1.ConfigMap](kindConfigMap))),
		s.engine.Watch(c.tenant.secrets, nil, keysOf(ofTenant[*corev1.Secret](kindSecret))),
		s.engine.Watch(c.tenant.services, nil, keysOf(ofTenant[*corev1.Service](kindService, kindServiceStatus))),
		s.engine.Watch(c.tenant.endpointSlices, nil, keysOf(ofTenant[*discoveryv1.EndpointSlice](kindEndpointSlice))),
		s.engine.Watch(c.tenantNodes, nil, keysOf(s.ofTenantNode)),
		s.engine.Watch(c.tenant.networkPolicies, nil, keysOf(ofTenant[*networkingv1.NetworkPolicy](kindNetworkPolicy))),
		s.engine.Watch(c.namespaces, nil, keysOf(s.ofTenantNamespace)),
		s.engine.Watch(c.host.pods, &s.seen.pods, keysOf(s.ofHostPod)),
		s.engine.Watch(c.host.configMaps, &s.seen.configMaps, keysOf(ofHost[*corev1.ConfigMap](s, kindConfigMap))),
		s.engine.Watch(c.host.secrets, &s.seen.secrets, keysOf(ofHost[*corev1.Secret](s, kindSecret))),
		s.engine.Watch(c.host.services, &s.seen.services, keysOf(ofHost[*corev1.Service](s, kindService, kindServiceStatus))),
		s.engine.Watch(c.host.endpointSlices, &s.seen.endpointSlices, keysOf(ofHost[*discoveryv1.EndpointSlice](s, kindEndpointSlice))),
		s.engine.Watch(c.host.networkPolicies, &s.seen.networkPolicies, keysOf(ofHost[*networkingv1.NetworkPolicy](s, kindNetworkPolicy))),
		s.engine.Watch(c.events, nil, keysOf(s.ofHostEvent)),
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
// Objects that are derived from a pod belong to the pod.
func ofHost[T metav1.Object](s *Syncer, kinds ...string) func(T) []engine.Key {
	return func(hostObject T) []engine.Key {
		name, ok := s.owner(hostObject)
		if !ok {
			return nil
		}
		for _, suffix := range []string{translate.SuffixTokens, translate.SuffixNode} {
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
	return all
}

// ofHostPod: a pod, the slices that name one of its addresses, and its node.
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

// ofTenantNamespace: the policies whose peers it may have joined or left.
func (s *Syncer) ofTenantNamespace(*corev1.Namespace) []engine.Key {
	var all []engine.Key
	for _, o := range s.caches.tenant.networkPolicies.GetStore().List() {
		if p, ok := o.(*networkingv1.NetworkPolicy); ok && translate.SelectsNamespaces(p) {
			all = append(all, keys(translate.NameOf(p), kindNetworkPolicy)...)
		}
	}
	return all
}

func (s *Syncer) ofHostNode(hostNode *corev1.Node) []engine.Key {
	return keys(s.view(hostNode.Name), kindNode, kindNodeStatus)
}

// ofTenantNode: a view, or what the tenant made of one. Nodes of the tenant's own
// are left alone.
func (s *Syncer) ofTenantNode(tenantNode *corev1.Node) []engine.Key {
	_, isView := translate.IsNodeView(tenantNode)
	if _, hasHost := s.caches.HostNode(tenantNode.Name); !isView && !hasHost {
		return nil
	}
	return append(keys(translate.NameOf(tenantNode), kindNode, kindNodeStatus), s.waitingForLabels()...)
}

// waitingForLabels: the pods that have no node, and may get one by the labels that the
// tenant puts on nodes.
func (s *Syncer) waitingForLabels() []engine.Key {
	var all []engine.Key
	for _, item := range s.caches.tenant.pods.GetStore().List() {
		if p, ok := item.(*corev1.Pod); ok && p.Spec.NodeName == "" && translate.PlacedByOwnLabels(p) {
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
