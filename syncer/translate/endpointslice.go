package translate

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"sublet.dev/isolation/tenant"
	"sublet.dev/syncer/engine"
)

// ManagedBy is the value of endpointslice.kubernetes.io/managed-by on host
// EndpointSlices: the host's own controllers keep their hands off.
const ManagedBy = tenant.Domain

// EndpointSlice returns the host EndpointSlice of a tenant's, or nil when it must
// not be on the host: without a Service, of the tenant's own API, or of names
// instead of addresses.
//
// Only addresses that a host pod of this tenant has now are kept: whatever a
// tenant writes into an EndpointSlice, the host's proxy forwards to its own pods
// only (CVE-2021-25740).
func (t Translation) EndpointSlice(tenantSlice *discoveryv1.EndpointSlice) *discoveryv1.EndpointSlice {
	service := tenantSlice.Labels[discoveryv1.LabelServiceName]
	isAPI := service == apiService.Name && tenantSlice.Namespace == apiService.Namespace
	if service == "" || isAPI || tenantSlice.AddressType == discoveryv1.AddressTypeFQDN {
		return nil
	}
	hostSlice := &discoveryv1.EndpointSlice{
		ObjectMeta:  t.hostMeta(tenantSlice, ""),
		AddressType: tenantSlice.AddressType,
	}
	hostSlice.Labels[discoveryv1.LabelServiceName] = t.hostName(tenantSlice.Namespace, service)
	hostSlice.Labels[discoveryv1.LabelManagedBy] = ManagedBy
	if _, headless := tenantSlice.Labels[corev1.IsHeadlessService]; headless {
		hostSlice.Labels[corev1.IsHeadlessService] = ""
	}
	for i := range tenantSlice.Endpoints {
		if hostEndpoint, ok := t.endpoint(&tenantSlice.Endpoints[i]); ok {
			hostSlice.Endpoints = append(hostSlice.Endpoints, hostEndpoint)
		}
	}
	for _, p := range tenantSlice.Ports {
		hostSlice.Ports = append(hostSlice.Ports, discoveryv1.EndpointPort{
			Name: p.Name, Protocol: p.Protocol, Port: p.Port, AppProtocol: p.AppProtocol,
		})
	}
	return hostSlice
}

// endpoint returns the host's endpoint, false when no pod of the tenant has one of
// its addresses.
func (t Translation) endpoint(tenantEndpoint *discoveryv1.Endpoint) (discoveryv1.Endpoint, bool) {
	hostEndpoint := discoveryv1.Endpoint{
		Conditions: tenantEndpoint.Conditions,
		Hostname:   tenantEndpoint.Hostname,
	}
	for _, ip := range tenantEndpoint.Addresses {
		hostPod, ok := t.Lookup.HostPodWithIP(ip)
		if !ok {
			continue
		}
		hostEndpoint.Addresses = append(hostEndpoint.Addresses, ip)
		hostEndpoint.TargetRef = &corev1.ObjectReference{
			Kind: "Pod", Namespace: hostPod.Namespace, Name: hostPod.Name, UID: hostPod.UID,
		}
		if hostPod.Spec.NodeName != "" {
			hostEndpoint.NodeName = &hostPod.Spec.NodeName
		}
	}
	return hostEndpoint, len(hostEndpoint.Addresses) > 0
}

// SliceAddresses lists the addresses in a slice: what its translation depends on.
func SliceAddresses(tenantSlice *discoveryv1.EndpointSlice) []string {
	var addresses []string
	for i := range tenantSlice.Endpoints {
		addresses = append(addresses, tenantSlice.Endpoints[i].Addresses...)
	}
	slices.Sort(addresses)
	return slices.Compact(addresses)
}

// MergeEndpointSlice is the Merge of host EndpointSlices.
func MergeEndpointSlice(have, want *discoveryv1.EndpointSlice) (*discoveryv1.EndpointSlice, engine.Difference) {
	merged := have.DeepCopy()
	if merged.AddressType != want.AddressType {
		return merged, engine.Immutable
	}
	changed := mergeMeta(&merged.ObjectMeta, want.ObjectMeta)
	changed = set(&merged.Endpoints, want.Endpoints) || changed
	changed = set(&merged.Ports, want.Ports) || changed
	return merged, difference(changed)
}
