package syncer

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"sublet.dev/isolation/tenant"
	"sublet.dev/syncer/engine"
	"sublet.dev/syncer/hostcache"
	"sublet.dev/syncer/translate"
)

// The kinds, as they stand in keys.
const (
	kindPod           = "Pod"
	kindPodStatus     = "PodStatus"
	kindPodEvents     = "PodEvents"
	kindConfigMap     = "ConfigMap"
	kindSecret        = "Secret"
	kindService       = "Service"
	kindServiceStatus = "ServiceStatus"
	kindEndpointSlice = "EndpointSlice"
	kindNetworkPolicy = "NetworkPolicy"
	kindNode          = "Node"
	kindNodeStatus    = "NodeStatus"
)

// kinds lists everything that is synced.
func (s *Syncer) kinds() []engine.Pass {
	configMaps, secrets, policies := s.configMaps(), s.secrets(), s.networkPolicies()
	claims, volumes, anchors := s.claims(), s.volumes(), s.trustAnchors()
	return []engine.Pass{
		s.newPodDown(needed(configMaps, s.t.ConfigMap), needed(secrets, s.t.Secret), claims, anchors, policies),
		crowdPass{s},
		anchors,
		claims,
		volumes,
		s.claimStatuses(volumes),
		s.storageClasses(),
		s.runtimeClasses(),
		s.priorityClasses(),
		policies,
		&podUp{Syncer: s, host: s.hostPods()},
		s.podEvents(),
		configMaps,
		secrets,
		s.services(),
		s.serviceStatuses(),
		s.ingressClasses(),
		s.hostnames(),
		s.ingresses(),
		s.ingressStatuses(),
		s.endpointSlices(),
		s.nodes(),
		s.nodeStatuses(),
	}
}

// onHost is the tenant's host namespace as the target of a kind.
func onHost[T engine.Object](s *Syncer, v *hostcache.View, read engine.Reader[T], write engine.Writer[T], suffix string) engine.Host[T] {
	return engine.Host[T]{Tenant: s.config.Tenant, Cache: v.GetStore(), Read: read, Write: watched[T]{Writer: write, view: v, patience: hostTimeout}, Suffix: suffix}
}

func (s *Syncer) hostPods() engine.Host[*corev1.Pod] {
	ns := s.config.Tenant.HostNamespace
	return onHost[*corev1.Pod](s, s.caches.host.pods, s.hostRead.CoreV1().Pods(ns), s.hostWrite.CoreV1().Pods(ns), "")
}

func (s *Syncer) hostConfigMaps(suffix string) engine.Host[*corev1.ConfigMap] {
	ns := s.config.Tenant.HostNamespace
	return onHost[*corev1.ConfigMap](s, s.caches.host.configMaps, s.hostRead.CoreV1().ConfigMaps(ns), s.hostWrite.CoreV1().ConfigMaps(ns), suffix)
}

func (s *Syncer) hostSecrets(suffix string) engine.Host[*corev1.Secret] {
	ns := s.config.Tenant.HostNamespace
	return onHost[*corev1.Secret](s, s.caches.host.secrets, s.hostRead.CoreV1().Secrets(ns), s.hostWrite.CoreV1().Secrets(ns), suffix)
}

func (s *Syncer) hostEndpointSlices() engine.Host[*discoveryv1.EndpointSlice] {
	ns := s.config.Tenant.HostNamespace
	return onHost[*discoveryv1.EndpointSlice](s, s.caches.host.endpointSlices,
		s.hostRead.DiscoveryV1().EndpointSlices(ns), s.hostWrite.DiscoveryV1().EndpointSlices(ns), "")
}

// be makes the Want of a kind from its translation; nil means that the object must
// not be on the host.
func be[S, T engine.Object](translate func(S) T) func(context.Context, S, T) (engine.Want[T], error) {
	return func(_ context.Context, tenantObject S, _ T) (engine.Want[T], error) {
		var none T
		want := translate(tenantObject)
		if want == none {
			return engine.Gone[T](nil), nil
		}
		return engine.Be(want), nil
	}
}

// used makes the Want of objects that are on the host only while a pod, or a custom
// resource of a rule, refers to them.
func used[T engine.Object](s *Syncer, index string, translate func(T) T) func(context.Context, T, T) (engine.Want[T], error) {
	return func(_ context.Context, tenantObject, _ T) (engine.Want[T], error) {
		key := tenantObject.GetNamespace() + "/" + tenantObject.GetName()
		if has(s.caches.tenant.pods, index, key) {
			return engine.Be(translate(tenantObject)), nil
		}
		switch used, sure := s.customs.uses(index, key); {
		case used:
			return engine.Be(translate(tenantObject)), nil
		case sure:
			return engine.Gone[T](nil), nil
		default:
			return engine.Leave[T](), nil
		}
	}
}

// needed is the pass of a kind for who knows that the objects are needed: it does not look
// for those that refer to them. If nobody does by then, the pass of the kind, to which
// what is made is reported, removes it.
func needed[T engine.Object](of *engine.Mirror[T, T], translate func(T) T) engine.Pass {
	return &engine.Mirror[T, T]{Name: of.Name, Source: of.Source, Target: of.Target, Want: be(translate), Merge: of.Merge, OrphanGrace: of.OrphanGrace}
}

func (s *Syncer) configMaps() *engine.Mirror[*corev1.ConfigMap, *corev1.ConfigMap] {
	return &engine.Mirror[*corev1.ConfigMap, *corev1.ConfigMap]{
		Name:   kindConfigMap,
		Source: fromTenant[*corev1.ConfigMap](s.caches.tenant.configMaps),
		Target: s.hostConfigMaps(""),
		Want:   used(s, byConfigMap, s.t.ConfigMap),
		Merge:  translate.MergeConfigMap,
	}
}

// usedSecret wants a Secret that a pod, an object of a rule, an Ingress or a Gateway refers to.
func (s *Syncer) usedSecret() func(context.Context, *corev1.Secret, *corev1.Secret) (engine.Want[*corev1.Secret], error) {
	byOthers := used(s, bySecret, s.t.Secret)
	return func(ctx context.Context, tenantSecret, hostSecret *corev1.Secret) (engine.Want[*corev1.Secret], error) {
		if s.certifies(tenantSecret) || s.customs.certifies(tenantSecret) {
			return engine.Be(s.t.Secret(tenantSecret)), nil
		}
		return byOthers(ctx, tenantSecret, hostSecret)
	}
}

func (s *Syncer) secrets() *engine.Mirror[*corev1.Secret, *corev1.Secret] {
	return &engine.Mirror[*corev1.Secret, *corev1.Secret]{
		Name:   kindSecret,
		Source: fromTenant[*corev1.Secret](s.caches.tenant.secrets),
		Target: s.hostSecrets(""),
		Want:   s.usedSecret(),
		Merge:  translate.MergeSecret,
	}
}

func (s *Syncer) endpointSlices() engine.Pass {
	return &engine.Mirror[*discoveryv1.EndpointSlice, *discoveryv1.EndpointSlice]{
		Name:   kindEndpointSlice,
		Source: fromTenant[*discoveryv1.EndpointSlice](s.caches.tenant.endpointSlices),
		Target: s.hostEndpointSlices(),
		Want:   be(s.t.EndpointSlice),
		Merge:  translate.MergeEndpointSlice,
	}
}

func (s *Syncer) nodes() engine.Pass {
	return &engine.Mirror[*corev1.Node, *corev1.Node]{
		Name:   kindNode,
		Source: s.usableNode,
		Target: s.nodeViews(),
		Want:   be(s.t.Node),
		Merge:  translate.MergeNode,
	}
}

func (s *Syncer) nodeStatuses() engine.Pass {
	return &engine.Adjust[*corev1.Node, *corev1.Node]{
		Name:   kindNodeStatus,
		Source: s.usableNode,
		Target: fromTenant[*corev1.Node](s.caches.tenantNodes),
		Pair:   func(_, view *corev1.Node) bool { _, ok := translate.IsNodeView(view); return ok },
		Merge:  s.t.NodeStatus,
		Write: func(ctx context.Context, view *corev1.Node) error {
			_, err := s.tenantAPI.CoreV1().Nodes().UpdateStatus(ctx, view, metav1.UpdateOptions{})
			return err
		},
	}
}

// usableNode returns the host node that the tenant sees under a name: one on which
// its sandbox works, or on which a pod of it still is.
func (s *Syncer) usableNode(n tenant.Name) (*corev1.Node, bool) {
	hostNode, ok := s.caches.HostNode(n.Name)
	if !ok {
		return nil, false
	}
	used := translate.UsesNode(hostNode, s.config.Tenant.Sandbox) ||
		has(s.caches.host.pods, byNodeName, n.Name)
	return hostNode, used
}
