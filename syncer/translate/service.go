package translate

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"sublet.dev/isolation/tenant"
	"sublet.dev/syncer/engine"
)

// apiService is the tenant's Service of its own API. The manager makes its
// counterpart, for it points to the front door and not to pods.
var apiService = tenant.Name{Namespace: metav1.NamespaceDefault, Name: "kubernetes"}

// Service returns the host Service of a tenant's: without selector, for the
// tenant's own EndpointSlices are its endpoints, and with the very addresses that
// the tenant's API allocated from the tenant's slices, one of each family that it asks
// for. A Service of type
// ExternalName becomes a headless one without ports that carries the alias for the
// DNS. Node ports are asked for as they are: see [Inside] and [AnyNodePorts] for what
// to do when the host does not give them. A Service of type LoadBalancer is one of
// type NodePort there, until [LoadBalancers.Balance] makes it more. External addresses
// do not reach the host. The result is nil for the tenant's own API, and for an address
// that is not the tenant's (see [ForeignAddress]).
func (t Translation) Service(tenantService *corev1.Service) *corev1.Service {
	if NameOf(tenantService) == apiService || t.ForeignAddress(tenantService) {
		return nil
	}
	hostService := &corev1.Service{ObjectMeta: t.hostMeta(tenantService, "")}
	spec := &tenantService.Spec
	if spec.Type == corev1.ServiceTypeExternalName {
		hostService.Annotations[tenant.AnnotationExternalName] = spec.ExternalName
		hostService.Spec = corev1.ServiceSpec{
			Type: corev1.ServiceTypeClusterIP, ClusterIP: corev1.ClusterIPNone, SessionAffinity: corev1.ServiceAffinityNone,
		}
		return hostService
	}
	hostService.Spec = corev1.ServiceSpec{
		Type:                     corev1.ServiceTypeClusterIP,
		ClusterIP:                spec.ClusterIP,
		Ports:                    servicePorts(spec.Ports),
		SessionAffinity:          spec.SessionAffinity,
		SessionAffinityConfig:    spec.SessionAffinityConfig,
		PublishNotReadyAddresses: spec.PublishNotReadyAddresses,
		InternalTrafficPolicy:    spec.InternalTrafficPolicy,
	}
	t.addSecond(&hostService.Spec, spec)
	if HasNodePorts(tenantService) {
		hostService.Spec.Type = corev1.ServiceTypeNodePort
		hostService.Spec.ExternalTrafficPolicy = spec.ExternalTrafficPolicy
		for i := range spec.Ports {
			hostService.Spec.Ports[i].NodePort = spec.Ports[i].NodePort
		}
	}
	return hostService
}

// ForeignAddress says whether a tenant's Service has an address that is not from the
// tenant's parts of the host's ranges: a tenant can give its own API more ranges, and
// would take the addresses of others on the host. A second address alone that is not
// does not keep the Service from the host: see [Translation.ForeignSecond].
func (t Translation) ForeignAddress(tenantService *corev1.Service) bool {
	spec := &tenantService.Spec
	if spec.Type == corev1.ServiceTypeExternalName || spec.ClusterIP == "" || spec.ClusterIP == corev1.ClusterIPNone {
		return false
	}
	return !t.owns(spec.ClusterIP)
}

// HasNodePorts says whether a Service has ports on the nodes.
func HasNodePorts(s *corev1.Service) bool {
	return isOpen(s.Spec.Type) && slices.ContainsFunc(s.Spec.Ports, func(p corev1.ServicePort) bool { return p.NodePort != 0 })
}

// isOpen says whether a Service of that type is reached from outside.
func isOpen(t corev1.ServiceType) bool {
	return t == corev1.ServiceTypeNodePort || t == corev1.ServiceTypeLoadBalancer
}

// Inside returns a host Service without what makes it reachable from outside.
func Inside(hostService *corev1.Service) *corev1.Service {
	inside := AnyNodePorts(hostService)
	if inside.Spec.Type == corev1.ServiceTypeNodePort {
		inside.Spec.Type, inside.Spec.ExternalTrafficPolicy = corev1.ServiceTypeClusterIP, ""
	}
	return inside
}

// AnyNodePorts returns a host Service that takes whatever node ports the host gives it.
func AnyNodePorts(hostService *corev1.Service) *corev1.Service {
	free := hostService.DeepCopy()
	for i := range free.Spec.Ports {
		free.Spec.Ports[i].NodePort = 0
	}
	return free
}

// NodePorts returns a tenant's Service with the node ports that its host Service has,
// and whether that changed any. Without any there they stay as they are.
func NodePorts(hostService, tenantService *corev1.Service) (*corev1.Service, bool) {
	if !isOpen(hostService.Spec.Type) || !HasNodePorts(tenantService) {
		return tenantService, false
	}
	merged, changed := tenantService.DeepCopy(), false
	for i := range merged.Spec.Ports {
		p := &merged.Spec.Ports[i]
		if given := nodePortOf(hostService.Spec.Ports, *p); given != 0 {
			changed = set(&p.NodePort, given) || changed
		}
	}
	return merged, changed
}

// nodePortOf returns the node port of the port with the same number and protocol; 0
// for none.
func nodePortOf(ports []corev1.ServicePort, of corev1.ServicePort) int32 {
	for _, p := range ports {
		if p.Port == of.Port && p.Protocol == of.Protocol {
			return p.NodePort
		}
	}
	return 0
}

func servicePorts(tenantPorts []corev1.ServicePort) []corev1.ServicePort {
	hostPorts := make([]corev1.ServicePort, 0, len(tenantPorts))
	for _, p := range tenantPorts {
		hostPorts = append(hostPorts, corev1.ServicePort{
			Name: p.Name, Protocol: p.Protocol, AppProtocol: p.AppProtocol, Port: p.Port, TargetPort: p.TargetPort,
		})
	}
	return hostPorts
}

// MergeService is the Merge of host Services. A cluster IP cannot be changed, but a
// second one comes and goes: a tenant's Service that changes one (between an alias and a
// real one, say) gets a new counterpart.
func MergeService(have, want *corev1.Service) (*corev1.Service, engine.Difference) {
	merged := have.DeepCopy()
	h, w := &merged.Spec, &want.Spec
	if h.ClusterIP != w.ClusterIP || isDual(h) && isDual(w) && h.ClusterIPs[1] != w.ClusterIPs[1] {
		return merged, engine.Immutable
	}
	changed := mergeMeta(&merged.ObjectMeta, want.ObjectMeta)
	changed = mergeSecond(h, w) || changed
	changed = mergeReach(h, w) || changed
	changed = set(&h.SessionAffinity, w.SessionAffinity) || changed
	changed = set(&h.SessionAffinityConfig, w.SessionAffinityConfig) || changed
	changed = set(&h.PublishNotReadyAddresses, w.PublishNotReadyAddresses) || changed
	if w.InternalTrafficPolicy != nil {
		changed = set(&h.InternalTrafficPolicy, w.InternalTrafficPolicy) || changed
	}
	changed = dropReach(h) || changed
	return merged, difference(changed)
}

// givenPorts returns the ports of a wanted host Service; one that takes any node port
// keeps the one that it has.
func givenPorts(have []corev1.ServicePort, want *corev1.ServiceSpec) []corev1.ServicePort {
	ports := slices.Clone(want.Ports)
	for i := range ports {
		if takesNodePorts(want) && ports[i].NodePort == 0 {
			ports[i].NodePort = nodePortOf(have, ports[i])
		}
	}
	return ports
}

// takesNodePorts says whether the host gives a Service node ports that it does not name.
func takesNodePorts(s *corev1.ServiceSpec) bool {
	none := s.AllocateLoadBalancerNodePorts != nil && !*s.AllocateLoadBalancerNodePorts
	return s.Type == corev1.ServiceTypeNodePort || s.Type == corev1.ServiceTypeLoadBalancer && !none
}

// mergeReach makes by what a host Service is reached that of want. The class of a load
// balancer never changes, and the port of its health checks is the host's to choose.
func mergeReach(h, w *corev1.ServiceSpec) bool {
	stays := h.Type == corev1.ServiceTypeLoadBalancer && w.Type == corev1.ServiceTypeLoadBalancer
	changed := set(&h.Type, w.Type)
	changed = set(&h.Ports, givenPorts(h.Ports, w)) || changed
	if isOpen(w.Type) && w.ExternalTrafficPolicy != "" || !isOpen(w.Type) {
		changed = set(&h.ExternalTrafficPolicy, w.ExternalTrafficPolicy) || changed
	}
	if !stays {
		changed = set(&h.LoadBalancerClass, w.LoadBalancerClass) || changed
	}
	if w.Type != corev1.ServiceTypeLoadBalancer || h.ExternalTrafficPolicy != corev1.ServiceExternalTrafficPolicyLocal {
		changed = set(&h.HealthCheckNodePort, 0) || changed
	}
	changed = set(&h.AllocateLoadBalancerNodePorts, w.AllocateLoadBalancerNodePorts) || changed
	return set(&h.LoadBalancerSourceRanges, w.LoadBalancerSourceRanges) || changed
}

// dropReach takes away whatever would make a host Service reachable from beyond
// the cluster or let it choose pods by itself.
func dropReach(spec *corev1.ServiceSpec) bool {
	changed := set(&spec.Selector, nil)
	changed = set(&spec.ExternalIPs, nil) || changed
	changed = set(&spec.LoadBalancerIP, "") || changed
	return set(&spec.ExternalName, "") || changed
}
