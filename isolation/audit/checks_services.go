package audit

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"sublet.dev/api/v1alpha1"
	"sublet.dev/isolation/tenant"
)

// apiService is the name of the host Service that leads a tenant's pods to the
// tenant's own API; the manager writes it and its EndpointSlice.
const apiService = "kubernetes"

// serviceChecks are about where the tenant's addresses lead.
func serviceChecks() []Check {
	return []Check{
		{ID: "SUB-SVC-001", Title: "the tenant's services use addresses of its own slice alone", Category: "network", Severity: High, Method: ByConfig,
			Remediation: "delete the host service that the evidence names; the syncer makes it again",
			References:  map[string][]string{"cve": {"CVE-2020-8554"}}, Eval: evalServices},
		{ID: "SUB-SVC-002", Title: "the tenant's services lead to its own pods alone", Category: "network", Severity: Critical, Method: ByConfig,
			Remediation: "delete the host endpoint slice that the evidence names; the syncer makes it again",
			References:  map[string][]string{"cve": {"CVE-2021-25740", "CVE-2021-25737"}}, Eval: evalEndpoints},
		{ID: "SUB-SVC-003", Title: "no other tenant's slice of the service range overlaps the tenant's", Category: "network", Severity: Critical, Method: ByConfig,
			Remediation: "delete and create the younger of the two tenants again",
			References:  map[string][]string{"iso27017": {"CLD.9.5.1"}}, Eval: evalOverlap},
		{ID: "SUB-SVC-004", Title: "the tenant's ingresses and routes serve hostnames that it has alone", Category: "network", Severity: High, Method: ByConfig,
			Remediation: "delete the host object that the evidence names; the syncer makes it again with what the tenant has",
			References:  map[string][]string{"iso27017": {"CLD.9.5.1"}}, Eval: evalHostnames},
	}
}

// slice returns the tenant's slice of the service range.
func slice(vc v1alpha1.VirtualCluster) (netip.Prefix, error) {
	if vc.Status.ServiceCIDR == "" {
		return netip.Prefix{}, errors.New("the tenant's status has no service range")
	}
	p, err := netip.ParsePrefix(vc.Status.ServiceCIDR)
	if err != nil {
		return p, fmt.Errorf("read the tenant's service range: %w", err)
	}
	return p.Masked(), nil
}

// ranges returns the tenant's slices of the host's service ranges: that of IPv4, and that
// of IPv6 if the host has such a range.
func ranges(vc v1alpha1.VirtualCluster) ([]netip.Prefix, error) {
	first, err := slice(vc)
	if err != nil || vc.Status.SecondServiceCIDR == "" {
		return []netip.Prefix{first}, err
	}
	second, err := netip.ParsePrefix(vc.Status.SecondServiceCIDR)
	if err != nil {
		return nil, fmt.Errorf("read the tenant's second service range: %w", err)
	}
	return []netip.Prefix{first, second.Masked()}, nil
}

func evalServices(f *Facts) Outcome {
	vc, err := f.Tenant.Get()
	if err != nil {
		return inconclusive("the tenant was not read", err)
	}
	own, err := ranges(vc)
	if err != nil {
		return inconclusive("the tenant's service range is not known", err)
	}
	cidr := own[0]
	services, err := f.Services.Get()
	if err != nil {
		return inconclusive("the host services were not read", err)
	}
	plan, planErr := f.Plan.Get()
	var bad findings
	hasAPI := false
	for i := range services {
		s := &services[i]
		ref := &ObjectRef{Kind: "Service", Namespace: s.Namespace, Name: s.Name, UID: string(s.UID)}
		for _, ip := range s.Spec.ClusterIPs {
			if a, err := netip.ParseAddr(ip); ip != corev1.ClusterIPNone && (err != nil || !slices.ContainsFunc(own, func(p netip.Prefix) bool { return p.Contains(a) })) {
				bad.add(ref, "has the address %s, which is not in %s", ip, joined(own))
			}
		}
		switch {
		case len(s.Spec.ExternalIPs) > 0:
			bad.add(ref, "takes the foreign addresses %v", s.Spec.ExternalIPs)
		case s.Spec.ExternalName != "" || s.Spec.Type == corev1.ServiceTypeExternalName:
			bad.add(ref, "leads to the name %q", s.Spec.ExternalName)
		case s.Spec.LoadBalancerIP != "": //nolint:staticcheck // still honoured by load balancers
			bad.add(ref, "asks for the load balancer address %s", s.Spec.LoadBalancerIP)
		case s.Spec.Type != corev1.ServiceTypeClusterIP && planErr != nil:
			return inconclusive("the tenant's plan, which may have node ports and load balancers, was not read", planErr)
		case s.Spec.Type == corev1.ServiceTypeNodePort && plan.Spec.NodePorts > 0: // how many is the quota's to say
		case s.Spec.Type == corev1.ServiceTypeLoadBalancer && plan.Spec.LoadBalancers.Count > 0:
		case s.Spec.Type != corev1.ServiceTypeClusterIP:
			bad.add(ref, "is reachable from outside: type %s", s.Spec.Type)
		}
		if s.Name == apiService && s.Spec.ClusterIP == tenant.APIAddress(cidr).String() {
			hasAPI = true
			bad.evidence = append(bad.evidence, Evidence{What: "the tenant's API at " + s.Spec.ClusterIP, Object: ref, Address: s.Spec.ClusterIP})
		}
	}
	if !hasAPI {
		bad.said = append(bad.said, fmt.Sprintf("no service %s at %s leads to the tenant's API", apiService, tenant.APIAddress(cidr)))
	}
	return bad.verdict(Columns{Declared: joined(own), Rendered: count(len(services), "service")})
}

// joined names ranges.
func joined(ranges []netip.Prefix) string {
	names := make([]string, len(ranges))
	for i, r := range ranges {
		names[i] = r.String()
	}
	return strings.Join(names, " and ")
}

func evalEndpoints(f *Facts) Outcome {
	vc, err := f.Tenant.Get()
	if err != nil {
		return inconclusive("the tenant was not read", err)
	}
	eps, err := f.EndpointSlices.Get()
	if err != nil {
		return inconclusive("the endpoint slices were not read", err)
	}
	ips, err := f.PodIPs.Get()
	if err != nil {
		return inconclusive("the pods' addresses were not read", err)
	}
	own := make(map[string]bool, len(ips))
	for _, ip := range ips {
		own[ip] = true
	}
	var bad findings
	n := 0
	for i := range eps {
		n += foreign(&bad, vc, &eps[i], own)
	}
	if len(eps) == 0 {
		bad.said = append(bad.said, "there is not even the endpoint slice of the tenant's API")
	}
	return bad.verdict(Columns{Declared: "own pods", Rendered: fmt.Sprintf("%d addresses", n) + " in " + count(len(eps), "slice"), Observed: fmt.Sprintf("%d pod addresses", len(own))})
}

// foreign adds the addresses of a slice that are not the tenant's own, and
// returns how many addresses it has.
func foreign(bad *findings, vc v1alpha1.VirtualCluster, s *discoveryv1.EndpointSlice, own map[string]bool) int {
	ref := &ObjectRef{Kind: "EndpointSlice", Namespace: s.Namespace, Name: s.Name, UID: string(s.UID)}
	api := s.Labels[discoveryv1.LabelServiceName] == apiService && s.Labels[tenant.LabelManagedBy] == tenant.ManagedByManager
	n := 0
	for _, e := range s.Endpoints {
		for _, a := range e.Addresses {
			n++
			if own[a] || api && a == vc.Status.APIAddress && onlyPort(s, vc.Status.APIPort) {
				continue
			}
			bad.add(ref, "leads to %s, which is no pod of the tenant", a)
			bad.evidence[len(bad.evidence)-1].Address = a
		}
	}
	return n
}

func onlyPort(s *discoveryv1.EndpointSlice, port int32) bool {
	return len(s.Ports) > 0 && !slices.ContainsFunc(s.Ports, func(p discoveryv1.EndpointPort) bool { return p.Port == nil || *p.Port != port })
}

func evalOverlap(f *Facts) Outcome {
	vc, err := f.Tenant.Get()
	if err != nil {
		return inconclusive("the tenant was not read", err)
	}
	own, err := ranges(vc)
	if err != nil {
		return inconclusive("the tenant's service range is not known", err)
	}
	all, err := f.Tenants.Get()
	if err != nil {
		return inconclusive("the other tenants were not read", err)
	}
	var bad findings
	for _, other := range all {
		if other.UID == vc.UID {
			continue
		}
		theirs, err := ranges(other)
		for _, o := range theirs {
			if err == nil && slices.ContainsFunc(own, o.Overlaps) {
				bad.add(tenantRef(other), "has %s", o)
			}
		}
		if other.Status.APIPort != 0 && other.Status.APIPort == vc.Status.APIPort && other.Status.APIAddress == vc.Status.APIAddress {
			bad.add(tenantRef(other), "has the same address %s:%d for its API", other.Status.APIAddress, other.Status.APIPort)
		}
	}
	return bad.verdict(Columns{Declared: joined(own), Rendered: "compared with " + count(len(all), "tenant")})
}
