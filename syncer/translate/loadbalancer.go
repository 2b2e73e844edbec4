package translate

import (
	"maps"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"

	"sublet.dev/isolation/policy"
	"sublet.dev/isolation/tenant"
)

// ruleBalancer is the rule of refusals of load balancers.
const ruleBalancer = "load-balancer"

// LoadBalancers are those of the host that a tenant's plan offers.
type LoadBalancers struct {
	// Offered says that there are any; how many, the host's quota says.
	Offered bool
	// Classes are what a Service may name, the first for those that name none. Without
	// any a Service names none.
	Classes []string
	// Annotations are put on host Services with a load balancer.
	Annotations map[string]string
}

// Balance returns the host Service of a tenant's Service of type LoadBalancer with a
// load balancer of the host's, made of what [Translation.Service] gives, or the reasons
// for which it gets none. The class is one of the plan, the annotations are the plan's
// alone, for they configure load balancers; the ranges from which it may be reached are
// the tenant's. have is the host Service that is there, nil for none: a load balancer
// keeps its class, whatever became of the plan.
func (l LoadBalancers) Balance(hostService, tenantService, have *corev1.Service) (*corev1.Service, []policy.Refusal) {
	class, ok := l.class(tenantService.Spec.LoadBalancerClass)
	if have != nil && have.Spec.Type == corev1.ServiceTypeLoadBalancer {
		class, ok = have.Spec.LoadBalancerClass, true
	}
	if !ok {
		return nil, []policy.Refusal{{Rule: ruleBalancer, Field: "spec.loadBalancerClass", Reason: "your plan has no such class" + offered(l.Classes)}}
	}
	ranges, found := sourceRanges(tenantService)
	if len(found) > 0 {
		return nil, found
	}
	balanced := hostService.DeepCopy()
	force(&balanced.ObjectMeta, l.Annotations)
	from, to := &tenantService.Spec, &balanced.Spec
	to.Type = corev1.ServiceTypeLoadBalancer
	to.LoadBalancerClass = class
	to.LoadBalancerSourceRanges = ranges
	to.ExternalTrafficPolicy = from.ExternalTrafficPolicy
	allocate := from.AllocateLoadBalancerNodePorts == nil || *from.AllocateLoadBalancerNodePorts
	to.AllocateLoadBalancerNodePorts = &allocate
	return balanced, nil
}

// class returns the class of the host Service of one that asks for a class, or for none.
func (l LoadBalancers) class(asked *string) (*string, bool) {
	switch {
	case asked != nil:
		return asked, slices.Contains(l.Classes, *asked)
	case len(l.Classes) > 0:
		return &l.Classes[0], true
	default:
		return nil, true
	}
}

func offered(names []string) string {
	if len(names) == 0 {
		return ": it names none, remove the field"
	}
	return ": it has " + strings.Join(names, ", ")
}

// sourceRanges returns from where a load balancer may be reached: as the field says, or
// else the annotation that was before the field, and that upstream reads to this day.
// Ranges that cannot be read are refused, for without them it would be open to all.
func sourceRanges(tenantService *corev1.Service) ([]string, []policy.Refusal) {
	asked, field := tenantService.Spec.LoadBalancerSourceRanges, "spec.loadBalancerSourceRanges"
	if text := strings.TrimSpace(tenantService.Annotations[corev1.AnnotationLoadBalancerSourceRangesKey]); len(asked) == 0 && text != "" {
		asked, field = strings.Split(text, ","), "metadata.annotations["+corev1.AnnotationLoadBalancerSourceRangesKey+"]"
	}
	var ranges []string
	for _, text := range asked {
		r, err := netip.ParsePrefix(strings.TrimSpace(text))
		if err != nil {
			return nil, []policy.Refusal{{Rule: ruleBalancer, Field: field, Reason: "it has something that is no range of addresses (203.0.113.0/24)"}}
		}
		ranges = append(ranges, r.String())
	}
	return ranges, nil
}

// WithoutNodePorts returns a host Service with a load balancer that needs no port of the
// nodes.
func WithoutNodePorts(balanced *corev1.Service) *corev1.Service {
	bare, allocate := AnyNodePorts(balanced), false
	bare.Spec.AllocateLoadBalancerNodePorts = &allocate
	return bare
}

// force puts annotations of the plan on a host object, and notes which those are.
func force(hostMeta *metav1.ObjectMeta, annotations map[string]string) {
	if len(annotations) == 0 {
		return
	}
	if hostMeta.Annotations == nil {
		hostMeta.Annotations = map[string]string{}
	}
	maps.Copy(hostMeta.Annotations, annotations)
	hostMeta.Annotations[tenant.AnnotationForcedKeys] = strings.Join(slices.Sorted(maps.Keys(annotations)), ",")
}

// ServiceStatus returns the tenant's Service with the addresses that the host's load
// balancer gave, and whether that changed anything. Without a load balancer of the
// host's, the status is not ours. What is no address or name is left out; texts of the
// host stay there.
func ServiceStatus(hostService, tenantService *corev1.Service) (*corev1.Service, bool) {
	if hostService.Spec.Type != corev1.ServiceTypeLoadBalancer || tenantService.Spec.Type != corev1.ServiceTypeLoadBalancer {
		return tenantService, false
	}
	merged := tenantService.DeepCopy()
	var seen []corev1.LoadBalancerIngress
	for _, from := range hostService.Status.LoadBalancer.Ingress {
		if in, ok := balancerIngress(from); ok {
			seen = append(seen, in)
		}
	}
	return merged, set(&merged.Status.LoadBalancer.Ingress, seen)
}

func balancerIngress(from corev1.LoadBalancerIngress) (corev1.LoadBalancerIngress, bool) {
	var to corev1.LoadBalancerIngress
	if addr, err := netip.ParseAddr(from.IP); err == nil && addr.Zone() == "" {
		to.IP, to.IPMode = addr.String(), from.IPMode
	}
	if len(validation.IsDNS1123Subdomain(from.Hostname)) == 0 {
		to.Hostname = from.Hostname
	}
	for _, p := range from.Ports {
		port := corev1.PortStatus{Port: p.Port, Protocol: p.Protocol}
		if p.Error != nil && len(validation.IsQualifiedName(*p.Error)) == 0 {
			port.Error = p.Error
		}
		to.Ports = append(to.Ports, port)
	}
	return to, to.IP != "" || to.Hostname != ""
}

// serviceDecisions are the decisions on the fields of Services.
var serviceDecisions = map[string]fields{
	"ServiceSpec": with(
		all(copied, "ClusterIP", "SessionAffinity", "SessionAffinityConfig", "PublishNotReadyAddresses", "InternalTrafficPolicy", "ExternalTrafficPolicy"),
		// Ports get other numbers on the nodes where the host has given theirs away.
		// The families are those of the addresses: the host has no choice left.
		all(translated, "ClusterIPs", "IPFamilies", "IPFamilyPolicy", "Ports", "Type", "ExternalName", "LoadBalancerClass", "LoadBalancerSourceRanges", "AllocateLoadBalancerNodePorts"),
		// Endpoints are the tenant's own slices. Addresses of others, and of a load
		// balancer's own choice, are never the tenant's to take; each side has a port
		// for health checks of its own.
		all(dropped, "Selector", "ExternalIPs", "LoadBalancerIP", "HealthCheckNodePort", "TrafficDistribution")),
	"ServicePort":           with(all(copied, "Name", "Protocol", "AppProtocol", "Port", "TargetPort"), all(translated, "NodePort")),
	"SessionAffinityConfig": all(copied, "ClientIP"),
	"ClientIPConfig":        all(copied, "TimeoutSeconds"),
}
