package calico_test

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	v3 "github.com/projectcalico/api/pkg/apis/projectcalico/v3"
	"github.com/projectcalico/api/pkg/lib/numorstring"
	corev1 "k8s.io/api/core/v1"

	"sublet.dev/isolation/policy/calico"
)

// cluster is what Calico's data plane knows: labelled endpoints, network sets and
// policies in tiers. It evaluates as Felix does: tiers in order, policies in order,
// first matching rule; Pass goes on to the next tier; an endpoint that a tier's
// policies select and no rule matches meets the tier's default action; an endpoint
// that no tier selects is allowed by its profile.
type cluster struct {
	endpoints map[netip.Addr]map[string]string
	ports     map[netip.Addr][]corev1.ContainerPort // those with names
	sets      map[string]*v3.GlobalNetworkSet
	tiers     []*v3.Tier // in their order
	policies  []*v3.GlobalNetworkPolicy
}

func (c *cluster) add(o *calico.Objects) {
	c.tiers = []*v3.Tier{o.Tier, o.InnerTier}
	slices.SortFunc(c.tiers, func(a, b *v3.Tier) int { return cmp.Compare(*a.Spec.Order, *b.Spec.Order) })
	c.sets = map[string]*v3.GlobalNetworkSet{o.Blocked.Name: o.Blocked, o.Private.Name: o.Private}
	c.policies = append(append(c.policies, o.Policy), o.Inner...)
}

type packet struct {
	from, to netip.Addr
	port     uint16
	proto    string
}

// allowed evaluates egress at the sender, then ingress at the receiver.
func (c *cluster) allowed(p packet) bool {
	return c.direction(p, p.from, v3.PolicyTypeEgress) && c.direction(p, p.to, v3.PolicyTypeIngress)
}

func (c *cluster) direction(p packet, endpoint netip.Addr, typ v3.PolicyType) bool {
	labels, ok := c.endpoints[endpoint]
	if !ok {
		return true // no workload endpoint: policy does not apply
	}
	for _, tier := range c.tiers {
		switch c.inTier(p, tier, labels, typ) {
		case v3.Deny:
			return false
		case v3.Allow:
			return true
		}
	}
	return true // by its profile
}

// inTier returns what a tier says; Pass also for an endpoint that it does not select.
func (c *cluster) inTier(p packet, tier *v3.Tier, labels map[string]string, typ v3.PolicyType) v3.Action {
	selected := false
	for _, pol := range c.policies {
		if pol.Spec.Tier != tier.Name || !slices.Contains(pol.Spec.Types, typ) || !matches(pol.Spec.Selector, labels) {
			continue
		}
		selected = true
		rules := pol.Spec.Egress
		if typ == v3.PolicyTypeIngress {
			rules = pol.Spec.Ingress
		}
		for _, r := range rules {
			if c.ruleMatches(r, p) {
				return r.Action
			}
		}
	}
	if selected {
		return *tier.Spec.DefaultAction
	}
	return v3.Pass
}

func (c *cluster) ruleMatches(r v3.Rule, p packet) bool {
	if r.IPVersion != nil && (*r.IPVersion == 4) != p.to.Is4() {
		return false
	}
	if r.Protocol != nil && r.Protocol.String() != p.proto {
		return false
	}
	if r.NotProtocol != nil || r.ICMP != nil || r.HTTP != nil {
		panic("a match that this evaluator does not know")
	}
	return c.entityMatches(r.Source, p.from, 0, p.proto) && c.entityMatches(r.Destination, p.to, p.port, p.proto)
}

func (c *cluster) entityMatches(e v3.EntityRule, ip netip.Addr, port uint16, proto string) bool {
	if e.NamespaceSelector != "" || e.Services != nil || e.NotSelector != "" || e.ServiceAccounts != nil || e.NotPorts != nil {
		panic("a match that this evaluator does not know")
	}
	if e.Nets != nil && !contains(e.Nets, ip) {
		return false
	}
	if contains(e.NotNets, ip) {
		return false
	}
	inPort := func(r numorstring.Port) bool {
		if r.PortName == "" {
			return r.MinPort <= port && port <= r.MaxPort
		}
		return slices.ContainsFunc(c.ports[ip], func(n corev1.ContainerPort) bool {
			return n.Name == r.PortName && string(n.Protocol) == proto && n.ContainerPort == int32(port)
		})
	}
	if e.Ports != nil && !slices.ContainsFunc(e.Ports, inPort) {
		return false
	}
	return e.Selector == "" || c.selects(e.Selector, ip)
}

// selects says whether a selector's IP set holds an address: that of a workload
// endpoint or of a network set whose labels match.
func (c *cluster) selects(selector string, ip netip.Addr) bool {
	if labels, ok := c.endpoints[ip]; ok && matches(selector, labels) {
		return true
	}
	for _, s := range c.sets {
		if matches(selector, s.Labels) && contains(s.Spec.Nets, ip) {
			return true
		}
	}
	return false
}

func contains(nets []string, ip netip.Addr) bool {
	return slices.ContainsFunc(nets, func(n string) bool { return netip.MustParsePrefix(n).Contains(ip) })
}

// matches evaluates the forms of selectors that are rendered.
func matches(selector string, labels map[string]string) bool {
	for _, term := range strings.Split(selector, " && ") {
		if !matchesTerm(term, labels) {
			return false
		}
	}
	return true
}

func matchesTerm(term string, labels map[string]string) bool {
	if key, ok := strings.CutPrefix(term, "has("); ok {
		_, has := labels[strings.TrimSuffix(key, ")")]
		return has
	}
	if positive, ok := strings.CutPrefix(term, "!has("); ok {
		return !matchesTerm("has("+positive, labels)
	}
	if key, values, ok := strings.Cut(term, " not in {"); ok {
		return !matchesTerm(key+" in {"+values, labels)
	}
	if key, values, ok := strings.Cut(term, " in {"); ok {
		value, has := labels[key]
		return has && slices.Contains(strings.Split(strings.TrimSuffix(values, "}"), ", "), fmt.Sprintf("%q", value))
	}
	var key, value string
	if n, _ := fmt.Sscanf(term, "%s == %q", &key, &value); n == 2 {
		return labels[key] == value
	}
	panic("a selector that this evaluator does not know: " + term)
}
