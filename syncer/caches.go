package syncer

import (
	"context"
	"errors"
	"sync"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"

	"sublet.dev/isolation/tenant"
	"sublet.dev/syncer/engine"
	"sublet.dev/syncer/translate"
)

// The indexes of caches.
const (
	byConfigMap = "configmap" // tenant pods by namespace/name of a ConfigMap they refer to
	bySecret    = "secret"    // tenant pods, and Ingresses, by namespace/name of a Secret they refer to
	byAddress   = "address"   // host pods, tenant EndpointSlices by IP address
	byNodeName  = "nodeName"  // host pods by the tenant's name of the node
	byPod       = "pod"       // host events by name of the host pod
	// byScheduling has the host pods at which the scheduler has not looked yet.
	byScheduling = "scheduling"
)

// side is one informer for each synced kind of the tenant's.
type side struct {
	pods, services, endpointSlices, configMaps, secrets, networkPolicies, claims, ingresses cache.SharedIndexInformer
}

// caches hold what was last seen of both sides. It implements translate.Lookup and
// translate.Data.
type caches struct {
	self                    tenant.Tenant
	ofTenant                informers.SharedInformerFactory
	tenant                  side
	host                    hostSide
	namespaces, tenantNodes cache.SharedIndexInformer // of the tenant
	hostNodes               cache.SharedIndexInformer // of the Host: shared
	tenantVolumes           cache.SharedIndexInformer
	tenantClasses           cache.SharedIndexInformer // of storage
	runtimeClasses          cache.SharedIndexInformer // the tenant's
	priorityClasses         cache.SharedIndexInformer // the tenant's
	hostPriorities          cache.SharedIndexInformer // of the Host: shared
	bundles, requests       cache.SharedIndexInformer // of trust and for pods' certificates, the tenant's
	ingressClasses          cache.SharedIndexInformer // of the tenant
	nodeNames               *nodeNames
}

// newCaches makes the informers and views; start runs them.
func newCaches(config Config, tenantAPI kubernetes.Interface) (*caches, error) {
	c := &caches{self: config.Tenant, nodeNames: &nodeNames{hosts: map[string]string{}}}
	ofTenant := config.TenantObjects
	if ofTenant == nil {
		ofTenant = informers.NewSharedInformerFactoryWithOptions(tenantAPI, 0, informers.WithTransform(withoutManagedFields))
	}
	c.ofTenant, c.tenant = ofTenant, sideOf(ofTenant)
	var err error
	if c.host, err = hostSideOf(config.Host, config.Tenant.HostNamespace); err != nil {
		return nil, err
	}
	c.namespaces = ofTenant.Core().V1().Namespaces().Informer()
	c.tenantNodes = ofTenant.Core().V1().Nodes().Informer()
	c.tenantVolumes = ofTenant.Core().V1().PersistentVolumes().Informer()
	c.tenantClasses = ofTenant.Storage().V1().StorageClasses().Informer()
	c.runtimeClasses = ofTenant.Node().V1().RuntimeClasses().Informer()
	c.priorityClasses = ofTenant.Scheduling().V1().PriorityClasses().Informer()
	c.bundles = ofTenant.Certificates().V1().ClusterTrustBundles().Informer()
	c.requests = ofTenant.Certificates().V1().PodCertificateRequests().Informer()
	c.ingressClasses = ofTenant.Networking().V1().IngressClasses().Informer()
	c.hostNodes, c.hostPriorities = config.Host.nodes, config.Host.ranks
	return c, errors.Join(c.index(), c.indexStorage(), c.indexAnchors())
}

func sideOf(f informers.SharedInformerFactory) side {
	return side{
		pods:            f.Core().V1().Pods().Informer(),
		services:        f.Core().V1().Services().Informer(),
		endpointSlices:  f.Discovery().V1().EndpointSlices().Informer(),
		configMaps:      f.Core().V1().ConfigMaps().Informer(),
		secrets:         f.Core().V1().Secrets().Informer(),
		networkPolicies: f.Networking().V1().NetworkPolicies().Informer(),
		claims:          f.Core().V1().PersistentVolumeClaims().Informer(),
		ingresses:       f.Networking().V1().Ingresses().Informer(),
	}
}

// withoutManagedFields drops what the syncer never reads and what would be the
// greater part of many objects.
func withoutManagedFields(o any) (any, error) {
	if m, err := meta.Accessor(o); err == nil {
		m.SetManagedFields(nil)
	}
	return o, nil
}

func (c *caches) index() error {
	for informer, indexers := range map[indexable]cache.Indexers{
		c.tenant.pods: {
			byConfigMap: index(func(p *corev1.Pod) []string { names, _ := translate.References(p); return inNamespace(p, names) }),
			bySecret:    index(func(p *corev1.Pod) []string { _, names := translate.References(p); return inNamespace(p, names) }),
		},
		c.host.pods: {
			byAddress:    index(podAddresses),
			byScheduling: index(scheduling),
			byNodeName:   index(func(p *corev1.Pod) []string { return []string{c.self.ID.NodeName(p.Spec.NodeName)} }),
		},
		c.tenant.ingresses:      {bySecret: index(func(i *networkingv1.Ingress) []string { return inNamespace(i, translate.IngressSecrets(i)) })},
		c.tenant.endpointSlices: {byAddress: index(func(s *discoveryv1.EndpointSlice) []string { return translate.SliceAddresses(s) })},
		c.host.events:           {byPod: index(func(e *corev1.Event) []string { return []string{e.InvolvedObject.Name} })},
	} {
		if err := informer.AddIndexers(indexers); err != nil {
			return err
		}
	}
	return nil
}

// indexable is an informer, or a view of the host.
type indexable interface {
	AddIndexers(cache.Indexers) error
	GetIndexer() cache.Indexer
}

// index makes an index function of one on a kind.
func index[T any](values func(T) []string) cache.IndexFunc {
	return func(o any) ([]string, error) {
		object, ok := o.(T)
		if !ok {
			return nil, nil
		}
		return values(object), nil
	}
}

func inNamespace(o metav1.Object, names []string) []string {
	keys := make([]string, len(names))
	for i, n := range names {
		keys[i] = o.GetNamespace() + "/" + n
	}
	return keys
}

// podAddresses lists the addresses that are a pod's now. Those of a pod that has
// ended may be another's already.
func podAddresses(hostPod *corev1.Pod) []string {
	if translate.Ended(hostPod) {
		return nil
	}
	addresses := make([]string, len(hostPod.Status.PodIPs))
	for i, ip := range hostPod.Status.PodIPs {
		addresses[i] = ip.IP
	}
	return addresses
}

// start runs the informers, and joins the host namespace, until ctx ends; stop waits
// for them.
func (c *caches) start(ctx context.Context) (stop func(), err error) {
	leave, err := c.host.space.Join(ctx)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	c.ofTenant.StartWithContext(ctx)
	return sync.OnceFunc(func() {
		cancel()
		leave()
		c.ofTenant.Shutdown()
	}), nil
}

// indexed returns the objects of an index value.
func indexed[T any](informer indexable, index, value string) []T {
	items, err := informer.GetIndexer().ByIndex(index, value)
	if err != nil {
		return nil // the index was added when the informer was made
	}
	objects := make([]T, 0, len(items))
	for _, item := range items {
		if o, ok := item.(T); ok {
			objects = append(objects, o)
		}
	}
	return objects
}

// has says whether there is an object of an index value.
func has(informer indexable, index, value string) bool {
	keys, err := informer.GetIndexer().IndexKeys(index, value)
	return err == nil && len(keys) > 0 // the index was added when the informer was made
}

// fromTenant returns how a pass reads the tenant's objects of a kind.
func fromTenant[T engine.Object](informer cache.SharedIndexInformer) func(tenant.Name) (T, bool) {
	return func(n tenant.Name) (T, bool) {
		key := n.Name
		if n.Namespace != "" {
			key = n.String()
		}
		return engine.FromCache[T](informer.GetStore(), key)
	}
}

// HostNode implements translate.Lookup.
func (c *caches) HostNode(nodeName string) (*corev1.Node, bool) {
	if host, ok := c.nodeNames.get(nodeName); ok {
		if hostNode, ok := engine.FromCache[*corev1.Node](c.hostNodes.GetStore(), host); ok {
			return hostNode, true
		}
	}
	for _, host := range c.hostNodes.GetStore().ListKeys() {
		if c.self.ID.NodeName(host) == nodeName {
			c.nodeNames.put(nodeName, host)
			return engine.FromCache[*corev1.Node](c.hostNodes.GetStore(), host)
		}
	}
	return nil, false
}

// TenantNodes implements translate.Lookup.
func (c *caches) TenantNodes() []*corev1.Node {
	var nodes []*corev1.Node
	for _, item := range c.tenantNodes.GetStore().List() {
		if n, ok := item.(*corev1.Node); ok {
			nodes = append(nodes, n)
		}
	}
	return nodes
}

// nodeNames remembers which host node is behind a tenant's name: the nodes are shared
// by tenants, so no index can know all their names. There is at most one entry for
// every host node that ever was.
type nodeNames struct {
	mu    sync.Mutex
	hosts map[string]string // guarded by mu: host names by the tenant's
}

func (n *nodeNames) get(view string) (host string, ok bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	host, ok = n.hosts[view]
	return host, ok
}

func (n *nodeNames) put(view, host string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.hosts[view] = host
}

// HostPodWithIP implements translate.Lookup.
func (c *caches) HostPodWithIP(ip string) (*corev1.Pod, bool) {
	for _, hostPod := range indexed[*corev1.Pod](c.host.pods, byAddress, ip) {
		owner, err := tenant.ReadOwner(hostPod.Name, hostPod.Labels, hostPod.Annotations)
		if err == nil && owner.Tenant == c.self.ID {
			return hostPod, true
		}
	}
	return nil, false
}

// Services implements translate.Lookup.
func (c *caches) Services(namespace string) []*corev1.Service {
	return indexed[*corev1.Service](c.tenant.services, cache.NamespaceIndex, namespace)
}

// Namespaces implements translate.Lookup.
func (c *caches) Namespaces(selector labels.Selector) []string {
	var names []string
	for _, item := range c.namespaces.GetStore().List() {
		if n, ok := item.(*corev1.Namespace); ok && selector.Matches(labels.Set(n.Labels)) {
			names = append(names, n.Name)
		}
	}
	return names
}

// ConfigMap implements translate.Data.
func (c *caches) ConfigMap(n tenant.Name) (*corev1.ConfigMap, bool) {
	return fromTenant[*corev1.ConfigMap](c.tenant.configMaps)(n)
}

// Secret implements translate.Data.
func (c *caches) Secret(n tenant.Name) (*corev1.Secret, bool) {
	return fromTenant[*corev1.Secret](c.tenant.secrets)(n)
}
