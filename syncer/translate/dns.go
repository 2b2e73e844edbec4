package translate

import (
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"

	"sublet.dev/isolation/tenant"
)

// The limits of the API on dnsConfig (k8s.io/kubernetes/pkg/apis/core/validation);
// beyond them the kubelet, too, keeps the first ones only.
const (
	maxNameservers = 3
	maxSearches    = 32
	maxSearchChars = 2048
)

// dns returns the resolver configuration of a pod. The host's dnsPolicy is always
// None: the kubelet knows nothing of the tenant's DNS. Default, the node's own
// resolver, means the tenant's DNS without search domains.
func (t Translation) dns(namespace string, spec *corev1.PodSpec) *corev1.PodDNSConfig {
	ndots := "5"
	config := &corev1.PodDNSConfig{Nameservers: []string{tenant.DNSAddress(t.Tenant.ServiceCIDR).String()}}
	switch spec.DNSPolicy {
	case corev1.DNSNone:
		config = &corev1.PodDNSConfig{}
	case corev1.DNSDefault:
	default: // ClusterFirst, and ClusterFirstWithHostNet without a host network
		config.Searches = []string{fmt.Sprintf("%s.svc.%s", namespace, tenant.ClusterDomain), "svc." + tenant.ClusterDomain, tenant.ClusterDomain}
		config.Options = []corev1.PodDNSConfigOption{{Name: "ndots", Value: &ndots}}
	}
	if own := spec.DNSConfig; own != nil {
		config.Nameservers = union(config.Nameservers, own.Nameservers)
		config.Searches = union(config.Searches, own.Searches)
		config.Options = mergeOptions(config.Options, own.Options)
	}
	config.Nameservers = config.Nameservers[:min(len(config.Nameservers), maxNameservers)]
	config.Searches = fitSearches(config.Searches)
	return config
}

// union appends to a what of b it has not.
func union(a, b []string) []string {
	for _, s := range b {
		if !slices.Contains(a, s) {
			a = append(a, s)
		}
	}
	return a
}

func fitSearches(searches []string) []string {
	chars := 0
	for i, s := range searches {
		if chars += len(s) + 1; i == maxSearches || chars > maxSearchChars {
			return searches[:i]
		}
	}
	return searches
}

// mergeOptions lets the pod's own options replace those of the same name.
func mergeOptions(ours, own []corev1.PodDNSConfigOption) []corev1.PodDNSConfigOption {
	var merged []corev1.PodDNSConfigOption
	for _, o := range ours {
		if !slices.ContainsFunc(own, func(p corev1.PodDNSConfigOption) bool { return p.Name == o.Name }) {
			merged = append(merged, o)
		}
	}
	return append(merged, own...)
}
