// Package calico renders the fence to the objects of a cluster that runs Calico
// (projectcalico.org/v3).
//
// A tier of its own stands before those of the cluster and of the tenants. In it,
// each tenant has one policy that denies what crosses the fence and passes on what
// does not: the tenant's own policies then decide, and can only narrow. Whoever
// is selected and matches nothing is denied at the end of the tier, so a forgotten
// case fails closed. The tenants' own policies stand in a second tier behind it.
// Calico applies policy after the translation of Service
// addresses, so the rules name where a tenant's DNS and API listen in the end.
//
// A tenant's pods are known by Calico's own label of their namespace, which no
// label on a pod or namespace can override.
//
// The package only makes objects: write the cluster's first, a tenant's before
// its first pod, and remove them after its last. It never checks that the cluster
// enforces them; on Calico's side, FelixConfiguration must have
// workloadSourceSpoofing Disabled and defaultEndpointToHostAction Drop.
package calico

import (
	"fmt"
	"net/netip"
	"slices"

	v3 "github.com/projectcalico/api/pkg/apis/projectcalico/v3"
	"github.com/projectcalico/api/pkg/lib/numorstring"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"sublet.dev/isolation/policy"
	"sublet.dev/isolation/tenant"
)

const (
	// TierName names the tier.
	TierName = "sublet"
	// tierOrder is before Calico's tier for (admin) cluster network policies, 1000,
	// and its default tier, 1000000.
	tierOrder = 200
	// LabelSet, on a GlobalNetworkSet, says which of the sets it is.
	LabelSet = tenant.Domain + "/network-set"
	// labelNamespace is set by Calico on each workload endpoint.
	labelNamespace = "projectcalico.org/namespace"

	setBlocked = "blocked"
	setPrivate = "private"
)

// Objects are the objects that say a fence; the caller owns them.
type Objects struct {
	// Tier, Blocked and Private are the same for all tenants of a cluster.
	Tier             *v3.Tier
	Blocked, Private *v3.GlobalNetworkSet
	Policy           *v3.GlobalNetworkPolicy
	// InnerTier is the same for all tenants, Inner are the tenant's own policies.
	InnerTier *v3.Tier
	Inner     []*v3.GlobalNetworkPolicy
}

// InOrder returns the objects in the order in which to write them.
func (o *Objects) InOrder() []runtime.Object {
	objects := []runtime.Object{o.Tier, o.Blocked, o.Private, o.InnerTier, o.Policy}
	for _, p := range o.Inner {
		objects = append(objects, p)
	}
	return objects
}

// Render returns the objects of a tenant's fence, and of its own policies as they
// stand in its host namespace.
func Render(c policy.Cluster, f policy.Fence, policies ...*networkingv1.NetworkPolicy) *Objects {
	objects := &Objects{
		Tier: newTier(TierName, tierOrder), InnerTier: newTier(InnerTierName, innerOrder),
		// Own pods, DNS and API are passed before these are asked.
		Blocked: networkSet(setBlocked, slices.Concat(c.Blocked, c.Nodes, c.PodCIDRs, c.ServiceCIDRs)),
		Private: networkSet(setPrivate, c.Private),
		Policy:  tenantPolicy(f),
	}
	for _, p := range policies {
		objects.Inner = append(objects.Inner, innerPolicy(f, ownPods(f), p))
	}
	return objects
}

// ownPods selects the tenant's pods.
func ownPods(f policy.Fence) string { return fmt.Sprintf("%s in {%q}", labelNamespace, f.Namespace) }

func meta(name string, labels map[string]string) metav1.ObjectMeta {
	m := metav1.ObjectMeta{Name: name, Labels: map[string]string{tenant.LabelManagedBy: tenant.ManagedByManager}}
	for k, v := range labels {
		m.Labels[k] = v
	}
	return m
}

func networkSet(name string, ranges []netip.Prefix) *v3.GlobalNetworkSet {
	set := v3.NewGlobalNetworkSet()
	set.ObjectMeta = meta(TierName+"-"+name, map[string]string{LabelSet: name})
	for _, r := range ranges {
		set.Spec.Nets = append(set.Spec.Nets, r.Masked().String())
	}
	slices.Sort(set.Spec.Nets)
	set.Spec.Nets = slices.Compact(set.Spec.Nets)
	return set
}

// tenantPolicy is the policy of one tenant. Types are explicit: Calico would
// derive them from the rules present.
func tenantPolicy(f policy.Fence) *v3.GlobalNetworkPolicy {
	own := ownPods(f)
	order := float64(100)
	p := v3.NewGlobalNetworkPolicy()
	p.ObjectMeta = meta(TierName+".t-"+f.Tenant.Short(), map[string]string{tenant.LabelTenant: string(f.Tenant)})
	p.Spec = v3.GlobalNetworkPolicySpec{
		Tier: TierName, Order: &order, Selector: own,
		Types:   []v3.PolicyType{v3.PolicyTypeIngress, v3.PolicyTypeEgress},
		Ingress: ingress(f, own),
		Egress:  egress(f, own),
	}
	return p
}

// ingress passes the tenant's own pods, and the ingress controllers that serve it. Those
// are known by Calico's label of their namespace too.
func ingress(f policy.Fence, own string) []v3.Rule {
	rules := []v3.Rule{{Action: v3.Pass, Source: v3.EntityRule{Selector: own}}}
	if len(f.IngressFrom) > 0 {
		rules = append(rules, v3.Rule{Action: v3.Pass, Protocol: protocol(numorstring.ProtocolTCP),
			Source: v3.EntityRule{Selector: fmt.Sprintf("%s in {%s}", labelNamespace, quoted(f.IngressFrom))}})
	}
	return rules
}

func egress(f policy.Fence, own string) []v3.Rule {
	rules := []v3.Rule{{Action: v3.Pass, Destination: v3.EntityRule{Selector: own}}}
	for _, at := range f.DNS {
		rules = append(rules, passTo(numorstring.ProtocolUDP, at), passTo(numorstring.ProtocolTCP, at))
	}
	for _, at := range f.API {
		rules = append(rules, passTo(numorstring.ProtocolTCP, at))
	}
	for _, selector := range []string{
		set(setBlocked),
		"has(" + labelNamespace + ")", // every other workload, wherever its address
		set(setPrivate),
	} {
		rules = append(rules, v3.Rule{Action: v3.Deny, Destination: v3.EntityRule{Selector: selector}})
	}
	if f.Internet {
		for _, proto := range []string{numorstring.ProtocolTCP, numorstring.ProtocolUDP, numorstring.ProtocolICMP} {
			rules = append(rules, v3.Rule{Action: v3.Pass, IPVersion: v4(), Protocol: protocol(proto)})
		}
	}
	return rules
}

// passTo passes a protocol to one address and port.
func passTo(proto string, at netip.AddrPort) v3.Rule {
	host := netip.PrefixFrom(at.Addr(), at.Addr().BitLen())
	return v3.Rule{Action: v3.Pass, Protocol: protocol(proto), Destination: v3.EntityRule{
		Nets: []string{host.String()}, Ports: []numorstring.Port{numorstring.SinglePort(at.Port())}}}
}

func set(name string) string { return fmt.Sprintf("%s == %q", LabelSet, name) }

func protocol(name string) *numorstring.Protocol {
	p := numorstring.ProtocolFromString(name)
	return &p
}

func v4() *int {
	version := 4
	return &version
}
