package policy

import (
	"fmt"
	"net/netip"
	"slices"

	"sublet.dev/api/v1alpha1"
	"sublet.dev/isolation/tenant"
)

// Ports of the services that each tenant has at fixed addresses of its slice.
const (
	APIPort = 443
	DNSPort = 53
)

// Cluster is what the fences of all tenants of a host have in common.
type Cluster struct {
	// PodCIDRs hold the addresses of all pods, tenants' and others.
	PodCIDRs []netip.Prefix
	// ServiceCIDRs hold all virtual addresses of Services.
	ServiceCIDRs []netip.Prefix
	// Nodes are the addresses of the nodes and of the host's control plane.
	Nodes []netip.Prefix
	// Blocked is never reached, whatever a plan says: see [Blocked].
	Blocked []netip.Prefix
	// Private is not the internet: see [Private].
	Private []netip.Prefix
}

// Fence is whom the pods of one tenant may reach, beside each other.
type Fence struct {
	Tenant tenant.ID
	// Namespace is the tenant's host namespace. A pod in it is the tenant's, a
	// pod elsewhere is not.
	Namespace string
	// Services is the tenant's slice of the service range.
	Services netip.Prefix
	// DNS is where the tenant's DNS listens behind its virtual address (UDP and
	// TCP), API where its API does (TCP): the addresses after translation.
	DNS, API []netip.AddrPort
	// Internet allows what is neither blocked nor private.
	Internet bool
	// IngressFrom are host namespaces of the provider's whose pods, ingress controllers,
	// may reach the tenant's over TCP.
	IngressFrom []string
}

// FenceFor returns the fence of a tenant as its status describes it; dns is where
// its DNS listens. It returns an error while the status is not complete: such a
// tenant has no fence yet, and its pods must not run.
func FenceFor(vc *v1alpha1.VirtualCluster, dns ...netip.AddrPort) (Fence, error) {
	slice, err := netip.ParsePrefix(vc.Status.ServiceCIDR)
	if err != nil {
		return Fence{}, fmt.Errorf("tenant %s has no service range yet: %w", vc.Name, err)
	}
	api, err := netip.ParseAddr(vc.Status.APIAddress)
	if err != nil {
		return Fence{}, fmt.Errorf("tenant %s has no API address yet: %w", vc.Name, err)
	}
	port := vc.Status.APIPort
	if port < 1 || port > 65535 || vc.Status.Namespace == "" || vc.UID == "" {
		return Fence{}, fmt.Errorf("tenant %s has no API port or host namespace yet", vc.Name)
	}
	return Fence{
		Tenant: tenant.ID(vc.UID), Namespace: vc.Status.Namespace, Services: slice, Internet: !vc.Status.NoInternet,
		IngressFrom: slices.DeleteFunc(slices.Clone(vc.Status.IngressFrom), tenant.IsHostNamespace),
		DNS:         dns, API: []netip.AddrPort{netip.AddrPortFrom(api, uint16(port))},
	}, nil
}

func prefixes(texts ...string) []netip.Prefix {
	out := make([]netip.Prefix, len(texts))
	for i, t := range texts {
		out[i] = netip.MustParsePrefix(t) // constants of this file
	}
	return out
}

// Blocked returns what no pod of a tenant may ever reach: this host and link
// (RFC 1122, RFC 3927, RFC 4291), multicast, reserved addresses, and where clouds
// serve metadata and credentials to whoever asks. The caller owns the result.
func Blocked() []netip.Prefix {
	return prefixes(
		"0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/4", "240.0.0.0/4",
		"::1/128", "fe80::/10", "ff00::/8", "64:ff9b::/96",
		"100.100.100.200/32", // Alibaba Cloud
		"168.63.129.16/32",   // Azure
		"192.0.0.192/32",     // Oracle Cloud
		"fd00:ec2::254/128",  // AWS
		"fd20:ce::254/128",   // Google Cloud
	)
}

// Private returns the addresses that are not the internet (RFC 1918, RFC 6598,
// RFC 4193, RFC 6890). The caller owns the result.
func Private() []netip.Prefix {
	return prefixes("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10",
		"192.0.0.0/24", "198.18.0.0/15", "fc00::/7")
}
