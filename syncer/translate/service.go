package translate

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"sublet.dev/isolation/tenant"
	"sublet.dev/syncer/engine"
)

// apiService is the tenant's Service of its own API. The manager makes its
// counterpart, for it points to the front door and not to pods.
var apiService = tenant.Name{Namespace: metav1.NamespaceDefault, Name: "kubernetes"}

// Service returns the host Service of a tenant's: without selector, for the
// tenant's own EndpointSlices are its endpoints, and with the very address that
// the tenant's API allocated from the tenant's slice. A Service of type
// ExternalName becomes a headless one without ports that carries the alias for the
// DNS. Whatever reaches beyond the cluster (node ports, external addresses, load
// balancers) does not reach the host. The result is nil for the tenant's own API.
func (t Translation) Service(tenantService *corev1.Service) *corev1.Service {
	if NameOf(tenantService) == apiService {
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
	return hostService
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

// MergeService is the Merge of host Services. The cluster IP cannot be changed: a
// tenant's Service that changes it (between an alias and a real one) gets a new
// counterpart.
func MergeService(have, want *corev1.Service) (*corev1.Service, engine.Difference) {
	merged := have.DeepCopy()
	if merged.Spec.ClusterIP != want.Spec.ClusterIP {
		return merged, engine.Immutable
	}
	changed := mergeMeta(&merged.ObjectMeta, want.ObjectMeta)
	h, w := &merged.Spec, &want.Spec
	changed = set(&h.Type, w.Type) || changed
	changed = set(&h.Ports, w.Ports) || changed
	changed = set(&h.SessionAffinity, w.SessionAffinity) || changed
	changed = set(&h.SessionAffinityConfig, w.SessionAffinityConfig) || changed
	changed = set(&h.PublishNotReadyAddresses, w.PublishNotReadyAddresses) || changed
	if w.InternalTrafficPolicy != nil {
		changed = set(&h.InternalTrafficPolicy, w.InternalTrafficPolicy) || changed
	}
	changed = dropReach(h) || changed
	return merged, difference(changed)
}

// dropReach takes away whatever would make a host Service reachable from beyond
// the cluster or let it choose pods by itself.
func dropReach(spec *corev1.ServiceSpec) bool {
	changed := set(&spec.Selector, nil)
	changed = set(&spec.ExternalIPs, nil) || changed
	changed = set(&spec.LoadBalancerSourceRanges, nil) || changed
	changed = set(&spec.LoadBalancerIP, "") || changed
	return set(&spec.ExternalName, "") || changed
}
