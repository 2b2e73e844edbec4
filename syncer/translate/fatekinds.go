package translate

import (
	"fmt"
	"reflect"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"

	"sublet.dev/isolation/policy"
)

// ServiceFates is Fates for a Service: what becomes of a load balancer its events say.
func ServiceFates(tenantService *corev1.Service) []Fate {
	return tableFates(reflect.ValueOf(&tenantService.Spec))
}

// ClaimFates is Fates for a claim, with what its tenant's plan offers.
func ClaimFates(tenantClaim *corev1.PersistentVolumeClaim, offer policy.ClaimOffer) []Fate {
	fates := tableFates(reflect.ValueOf(&tenantClaim.Spec))
	for _, r := range policy.CheckClaim(&tenantClaim.Spec, VolumeName(tenantClaim.UID), offer) {
		fates = withRefusal(fates, r)
	}
	if HadVolume(tenantClaim) { // our own binding
		for i := range fates {
			if fates[i].Field == "spec.volumeName" {
				fates[i] = Fate{Field: fates[i].Field, Fate: names[dropped]}
			}
		}
	}
	return fates
}

// PolicyFates is Fates for a NetworkPolicy. One with a refusal is on the host as a
// policy that allows nothing.
func (t Translation) PolicyFates(tenantPolicy *networkingv1.NetworkPolicy) []Fate {
	fates := tableFates(reflect.ValueOf(&tenantPolicy.Spec))
	_, refusals := t.NetworkPolicy(tenantPolicy)
	for _, r := range refusals {
		fates = withRefusal(fates, r)
	}
	return fates
}

// IngressFates is Fates for an Ingress, as [Translation.Ingress] is given the rest. One of
// a class that the plan does not have stays in the tenant.
func (t Translation) IngressFates(tenantIngress *networkingv1.Ingress, plan Ingresses, granted, taken []string) []Fate {
	if !plan.Serves(tenantIngress) {
		var fates fateList
		fates.add(true, "spec", dropped)
		return fates
	}
	fates := tableFates(reflect.ValueOf(&tenantIngress.Spec))
	_, refusals := t.Ingress(tenantIngress, plan, granted, taken)
	for _, r := range refusals {
		fates = withRefusal(fates, r)
	}
	return fates
}

// ConfigMapFates is Fates for a ConfigMap.
func ConfigMapFates(tenantMap *corev1.ConfigMap) []Fate {
	var fates fateList
	fates.add(len(tenantMap.Data) > 0, "data", copied)
	fates.add(len(tenantMap.BinaryData) > 0, "binaryData", copied)
	fates.add(tenantMap.Immutable != nil, "immutable", dropped)
	return fates
}

// SecretFates is Fates for a Secret. Its type is kept where the kubelet or an
// ingress controller looks at it.
func SecretFates(tenantSecret *corev1.Secret) []Fate {
	var fates fateList
	fates.add(len(tenantSecret.Data) > 0, "data", copied)
	fates.add(tenantSecret.Immutable != nil, "immutable", dropped)
	switch tenantSecret.Type {
	case corev1.SecretTypeDockerConfigJson, corev1.SecretTypeDockercfg, corev1.SecretTypeTLS:
		fates.add(true, "type", copied)
	default:
		fates.add(true, "type", forced)
	}
	return fates
}

// SliceFates is Fates for an EndpointSlice. An endpoint goes to the host with the
// addresses that pods of the tenant have now.
func (t Translation) SliceFates(tenantSlice *discoveryv1.EndpointSlice) []Fate {
	fates := fateList{{Field: "addressType", Fate: names[copied]}}
	for i, e := range tenantSlice.Endpoints {
		at := fmt.Sprintf("endpoints[%d].", i)
		hostEndpoint, kept := t.endpoint(&tenantSlice.Endpoints[i])
		for j, ip := range e.Addresses {
			fate := Fate{Field: fmt.Sprintf("%saddresses[%d]", at, j), Fate: names[copied]}
			if _, ours := t.Lookup.HostPodWithIP(ip); !ours {
				fate.Fate, fate.Reason = names[dropped], "no pod of the tenant on the host has this address"
			}
			fates = append(fates, fate)
		}
		if kept {
			fates.add(true, at+"conditions", copied)
			fates.add(e.Hostname != nil, at+"hostname", copied)
			fates.add(hostEndpoint.TargetRef != nil, at+"targetRef", translated)
			fates.add(hostEndpoint.NodeName != nil, at+"nodeName", translated)
		}
		fates.add(e.Zone != nil, at+"zone", dropped)
		fates.add(e.Hints != nil, at+"hints", dropped)
	}
	fates.add(len(tenantSlice.Ports) > 0, "ports", copied)
	return fates
}

// fateList are fates that are put together by hand, for types whose fields few
// decisions are about.
type fateList []Fate

func (l *fateList) add(there bool, field string, v verdict) {
	if there {
		*l = append(*l, Fate{Field: field, Fate: names[v]})
	}
}
