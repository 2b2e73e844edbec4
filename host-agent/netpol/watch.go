package netpol

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/dynamic/dynamicinformer"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"

	"sublet.dev/api/v1alpha1"
	"sublet.dev/isolation/policy"
	"sublet.dev/isolation/tenant"
)

// world is what the host API says. The zero world knows nothing.
type world struct {
	synced   bool
	fences   map[string]policy.Fence // by host namespace
	nodePods []netip.Prefix          // this node's
	nodes    []netip.Addr
	remote   map[string][]netip.Addr // pods on other nodes, tenants' and the provider's, by host namespace
	// facts are what policies ask of tenants' pods: elsewhere by address, here by
	// what names a pod. policies are by host namespace, sorted by name.
	facts    map[netip.Addr]Pod
	local    map[podKey]Pod
	policies map[string][]*networkingv1.NetworkPolicy
	// nodePorts are those of tenants' Services by host namespace, sorted, each once.
	nodePorts map[string][]policy.NodePort
	// balanced are the load balancers' addresses of tenants' Services, likewise.
	balanced map[string][]policy.Balanced
	// ways are where these node ports lead, likewise; nodeNames the nodes'.
	ways      map[string][]Way
	nodeNames []string
}

// podKey names a pod, and only that one: not another that had its name before.
type podKey struct {
	namespace, name string
	uid             types.UID
}

func (w world) ready() bool { return w.synced && len(w.nodePods) > 0 }

// nodeAddresses returns the nodes' addresses, own among them, as ranges.
func (w world) nodeAddresses(own netip.Addr) []netip.Prefix {
	var out []netip.Prefix
	for _, a := range append(slices.Clone(w.nodes), own) {
		out = append(out, netip.PrefixFrom(a, a.BitLen()))
	}
	return out
}

func (w world) remotePods(namespace string) []netip.Addr { return w.remote[namespace] }

// watch follows the host API until ctx ends. stop waits for what it started.
func (e *Enforcer) watch(ctx context.Context) (stop func(), err error) {
	typed, err := kubernetes.NewForConfig(e.Host)
	if err != nil {
		return nil, fmt.Errorf("make a client of the host API: %w", err)
	}
	untyped, err := dynamic.NewForConfig(e.Host)
	if err != nil {
		return nil, fmt.Errorf("make a client of the host API: %w", err)
	}
	return e.follow(ctx, typed, untyped)
}

// follow is watch with clients of the host API.
func (e *Enforcer) follow(ctx context.Context, typed kubernetes.Interface, untyped dynamic.Interface) (stop func(), err error) {
	nodes := informers.NewSharedInformerFactory(typed, 0)
	pods := informers.NewSharedInformerFactoryWithOptions(typed, 0, informers.WithTweakListOptions(func(o *metav1.ListOptions) {
		o.LabelSelector = tenant.LabelTenant
	}), informers.WithTransform(address))
	others := informers.NewSharedInformerFactoryWithOptions(typed, 0, informers.WithTweakListOptions(func(o *metav1.ListOptions) {
		o.LabelSelector = "!" + tenant.LabelTenant
	}), informers.WithTransform(address))
	services := informers.NewSharedInformerFactoryWithOptions(typed, 0, informers.WithTweakListOptions(func(o *metav1.ListOptions) {
		o.LabelSelector = tenant.LabelTenant
	}), informers.WithTransform(nodePorts))
	endpoints := informers.NewSharedInformerFactoryWithOptions(typed, 0, informers.WithTweakListOptions(func(o *metav1.ListOptions) {
		o.LabelSelector = tenant.LabelTenant
	}), informers.WithTransform(targetsOnly))
	tenants := dynamicinformer.NewDynamicSharedInformerFactory(untyped, 0)
	s := sources{
		tenants: tenants.ForResource(v1alpha1.GroupVersion.WithResource("virtualclusters")).Informer(),
		nodes:   nodes.Core().V1().Nodes().Informer(),
		pods:    pods.Core().V1().Pods().Informer(),
		others:  others.Core().V1().Pods().Informer(),
		// Also those that the provider wrote.
		policies: nodes.Networking().V1().NetworkPolicies().Informer(),
		services: services.Core().V1().Services().Informer(),
		slices:   endpoints.Discovery().V1().EndpointSlices().Informer(),
	}
	e.mu.Lock()
	e.policies = typed.NetworkingV1()
	e.mu.Unlock()
	for _, i := range s.all() {
		changed := func(o any) {
			if s.matters(o) {
				e.learn(s)
			}
		}
		if _, err := i.AddEventHandler(cache.ResourceEventHandlerFuncs{
			AddFunc: changed, UpdateFunc: func(_, o any) { changed(o) }, DeleteFunc: changed,
		}); err != nil {
			return nil, fmt.Errorf("watch the host API: %w", err)
		}
	}
	ctx, cancel := context.WithCancel(ctx)
	nodes.StartWithContext(ctx)
	pods.StartWithContext(ctx)
	others.StartWithContext(ctx)
	services.StartWithContext(ctx)
	endpoints.StartWithContext(ctx)
	tenants.Start(ctx.Done())
	synced := make(chan struct{})
	go func() { // a host without tenants makes no event
		defer close(synced)
		if cache.WaitForCacheSync(ctx.Done(), s.tenants.HasSynced, s.nodes.HasSynced, s.pods.HasSynced, s.others.HasSynced, s.policies.HasSynced, s.services.HasSynced, s.slices.HasSynced) {
			e.learn(s)
		}
	}()
	return func() {
		cancel()
		<-synced
		nodes.Shutdown()
		pods.Shutdown()
		others.Shutdown()
		services.Shutdown()
		endpoints.Shutdown()
		tenants.Shutdown()
	}, nil
}

// address keeps of a pod what the fence and policies need.
func address(o any) (any, error) {
	pod, ok := o.(*corev1.Pod)
	if !ok {
		return o, nil
	}
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: pod.Name, Namespace: pod.Namespace, UID: pod.UID, ResourceVersion: pod.ResourceVersion, Labels: pod.Labels},
		Spec: corev1.PodSpec{NodeName: pod.Spec.NodeName, HostNetwork: pod.Spec.HostNetwork,
			Containers: []corev1.Container{{Ports: policy.NamedPorts(&pod.Spec)}}},
		Status: corev1.PodStatus{Phase: pod.Status.Phase, PodIPs: pod.Status.PodIPs},
	}, nil
}

// nodePorts keeps of a Service what the fence needs.
func nodePorts(o any) (any, error) {
	s, ok := o.(*corev1.Service)
	if !ok {
		return o, nil
	}
	kept := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: s.Name, Namespace: s.Namespace, UID: s.UID, ResourceVersion: s.ResourceVersion}}
	if kept.Spec.Type = s.Spec.Type; s.Spec.Type != corev1.ServiceTypeClusterIP {
		kept.Spec.Ports, kept.Status.LoadBalancer = s.Spec.Ports, s.Status.LoadBalancer
		kept.Spec.SessionAffinity = s.Spec.SessionAffinity
	}
	return kept, nil
}

// targetsOnly keeps of an EndpointSlice what node ports need.
func targetsOnly(o any) (any, error) {
	s, ok := o.(*discoveryv1.EndpointSlice)
	if !ok {
		return o, nil
	}
	kept := &discoveryv1.EndpointSlice{
		ObjectMeta: metav1.ObjectMeta{Name: s.Name, Namespace: s.Namespace, UID: s.UID, ResourceVersion: s.ResourceVersion,
			Labels: map[string]string{discoveryv1.LabelServiceName: s.Labels[discoveryv1.LabelServiceName]}},
		AddressType: s.AddressType, Ports: s.Ports,
	}
	for _, e := range s.Endpoints {
		kept.Endpoints = append(kept.Endpoints, discoveryv1.Endpoint{Addresses: e.Addresses, Conditions: e.Conditions})
	}
	return kept, nil
}

// addService notes by what a tenant's Service is reached from outside.
func (w *world) addService(s *corev1.Service) {
	byPort := func(a, b policy.NodePort) int {
		return cmp.Or(cmp.Compare(a.Port, b.Port), cmp.Compare(a.Protocol, b.Protocol))
	}
	ports := append(w.nodePorts[s.Namespace], policy.NodePortsOf(s)...)
	slices.SortFunc(ports, byPort)
	if len(ports) > 0 {
		w.nodePorts[s.Namespace] = slices.Compact(ports)
	}
	balanced := append(w.balanced[s.Namespace], policy.BalancedOf(s)...)
	slices.SortFunc(balanced, func(a, b policy.Balanced) int {
		return cmp.Or(a.Addr.Compare(b.Addr), byPort(a.NodePort, b.NodePort))
	})
	if len(balanced) > 0 {
		w.balanced[s.Namespace] = slices.Compact(balanced)
	}
}

// sources are the informers behind a world.
type sources struct {
	// pods are tenants', others the provider's.
	tenants, nodes, pods, others, policies, services, slices cache.SharedIndexInformer
}

func (s sources) all() []cache.SharedIndexInformer {
	return []cache.SharedIndexInformer{s.tenants, s.nodes, s.pods, s.others, s.policies, s.services, s.slices}
}

// matters says whether a change of an object changes a world: slices do only behind
// node ports.
func (s sources) matters(o any) bool {
	if gone, ok := o.(cache.DeletedFinalStateUnknown); ok {
		o = gone.Obj
	}
	slice, ok := o.(*discoveryv1.EndpointSlice)
	if !ok {
		return true
	}
	service, exists, err := s.services.GetStore().GetByKey(serviceKey(slice))
	found, isService := service.(*corev1.Service)
	return err == nil && exists && isService && len(policy.NodePortsOf(found)) > 0
}

func serviceKey(s *discoveryv1.EndpointSlice) string {
	return s.Namespace + "/" + s.Labels[discoveryv1.LabelServiceName]
}

// learn makes a new world of what the informers have, once they have everything.
func (e *Enforcer) learn(s sources) {
	for _, i := range s.all() {
		if !i.HasSynced() {
			return // watch calls again
		}
	}
	w := e.worldOf(s)
	e.mu.Lock()
	if len(w.nodePods) == 0 {
		w.nodePods = e.world.nodePods // a node's range never changes, once given
	}
	e.world = w
	if e.learned != nil {
		close(e.learned) // whoever waits for something to be known looks again
	}
	e.learned = make(chan struct{})
	e.mu.Unlock()
	e.signal()
}

// worldOf makes a world of what the informers have.
func (e *Enforcer) worldOf(s sources) world {
	w := world{synced: true, fences: map[string]policy.Fence{}, remote: map[string][]netip.Addr{},
		facts: map[netip.Addr]Pod{}, local: map[podKey]Pod{}, policies: map[string][]*networkingv1.NetworkPolicy{}, nodePorts: map[string][]policy.NodePort{}, balanced: map[string][]policy.Balanced{}, ways: map[string][]Way{}}
	for _, o := range s.tenants.GetStore().List() {
		if f, ok := e.fence(o); ok {
			w.fences[f.Namespace] = f
		}
	}
	for _, o := range s.nodes.GetStore().List() {
		if n, ok := o.(*corev1.Node); ok {
			w.addNode(n, n.Name == e.NodeName)
		}
	}
	for _, o := range s.pods.GetStore().List() {
		if p, ok := o.(*corev1.Pod); ok && isTenants(p) {
			w.addPod(p, p.Spec.NodeName == e.NodeName)
		}
	}
	for _, o := range s.others.GetStore().List() {
		if p, ok := o.(*corev1.Pod); ok && !isTenants(p) && p.Spec.NodeName != e.NodeName && !tenant.IsHostNamespace(p.Namespace) {
			w.remote[p.Namespace] = append(w.remote[p.Namespace], remoteAddresses(p)...)
		}
	}
	for _, o := range s.policies.GetStore().List() {
		if p, ok := o.(*networkingv1.NetworkPolicy); ok {
			w.policies[p.Namespace] = append(w.policies[p.Namespace], p)
		}
	}
	behind := map[string][]*discoveryv1.EndpointSlice{}
	for _, o := range s.slices.GetStore().List() {
		if slice, ok := o.(*discoveryv1.EndpointSlice); ok {
			behind[serviceKey(slice)] = append(behind[serviceKey(slice)], slice)
		}
	}
	for _, o := range s.services.GetStore().List() {
		if service, ok := o.(*corev1.Service); ok {
			w.addService(service)
			w.addWays(service, behind[service.Namespace+"/"+service.Name])
		}
	}
	for _, in := range w.policies {
		slices.SortFunc(in, func(a, b *networkingv1.NetworkPolicy) int { return strings.Compare(a.Name, b.Name) })
	}
	return w
}

// isTenants says whether a pod bears a tenant's mark, as it was asked for.
func isTenants(p *corev1.Pod) bool { return p.Labels[tenant.LabelTenant] != "" }

// fence returns the fence that a VirtualCluster describes; false while its status
// is not complete.
func (e *Enforcer) fence(o any) (policy.Fence, bool) {
	u, ok := o.(*unstructured.Unstructured)
	if !ok {
		return policy.Fence{}, false
	}
	var vc v1alpha1.VirtualCluster
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(u.Object, &vc); err != nil {
		e.Logger.Error("a tenant can't be read and stays without fence: its pods will not start", "tenant", u.GetName(), "err", err)
		return policy.Fence{}, false
	}
	f, err := policy.FenceFor(&vc, e.dns())
	if err != nil {
		e.Logger.Debug("a tenant has no fence yet", "tenant", vc.Name, "err", err)
		return policy.Fence{}, false
	}
	if f.Namespace != tenant.HostNamespace(vc.Name, f.Tenant) {
		e.Logger.Error("a tenant names a host namespace that is not its own and stays without fence", "tenant", vc.Name, "namespace", f.Namespace)
		return policy.Fence{}, false
	}
	return f, true
}

func (w *world) addNode(n *corev1.Node, own bool) {
	w.nodeNames = append(w.nodeNames, n.Name)
	for _, a := range n.Status.Addresses {
		if ip, err := netip.ParseAddr(a.Address); err == nil { // others are names
			w.nodes = append(w.nodes, ip)
		}
	}
	if !own {
		return
	}
	for _, cidr := range n.Spec.PodCIDRs {
		if p, err := netip.ParsePrefix(cidr); err == nil { // the API validates them
			w.nodePods = append(w.nodePods, p)
		}
	}
}

// addPod notes what policies ask of a tenant's pod, and of one on another node the
// addresses while it has them. Those of pods here are the registry's to know.
func (w *world) addPod(p *corev1.Pod, here bool) {
	facts := Pod{Labels: p.Labels, Ports: p.Spec.Containers[0].Ports}
	if here {
		w.local[podKey{p.Namespace, p.Name, p.UID}] = facts
		return
	}
	for _, ip := range remoteAddresses(p) {
		w.remote[p.Namespace] = append(w.remote[p.Namespace], ip)
		w.facts[ip] = facts
	}
}

// remoteAddresses returns the addresses of a pod on another node, while it has them for
// itself.
func remoteAddresses(p *corev1.Pod) (all []netip.Addr) {
	ended := p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed
	if ended || p.Spec.NodeName == "" || p.Spec.HostNetwork {
		return nil
	}
	for _, podIP := range p.Status.PodIPs {
		if ip, err := netip.ParseAddr(podIP.IP); err == nil { // the API validates them
			all = append(all, ip)
		}
	}
	return all
}
