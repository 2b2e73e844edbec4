package calico_test

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	v3 "github.com/projectcalico/api/pkg/apis/projectcalico/v3"
	"github.com/projectcalico/api/pkg/lib/numorstring"

	"sublet.dev/isolation/policy/calico"
)

// cluster is what Calico's data plane knows: labelled endpoints, network sets and
// policies in tiers. It evaluates as Felix does: tiers in order, policies in order,
// first matching rule; Pass goes on to the next tier; an endpoint that a tier's
// policies select and no rule matches meets the tier's default action; an endpoint
// that no tier selects is allowed by its profile.
type cluster struct {
	endpoints map[netip.Addr]map[string]string
	sets      map[string]*v3.GlobalNetworkSet
	tier      *v3.Tier
	policies  []*v3.GlobalNetworkPolicy
}

func (c *cluster) add(o *calico.Objects) {
	c.tier = o.Tier
	c.sets = map[string]*v3.GlobalNetworkSet{o.Blocked.Name: o.Blocked, o.Private.Name: o.Private}
	c.policies = append(c.policies, o.Policy)
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
	selected := false
	for _, pol := range c.policies {
		if pol.Spec.Tier != c.tier.Name || !slices.Contains(pol.Spec.Types, typ) || !matches(pol.Spec.Selector, labels) {
			continue
		}
		selected = true
		rules := pol.Spec.Egress
		if typ == v3.PolicyTypeIngress {
			rules = pol.Spec.Ingress
		}
		for _, r := range rules {
			if !c.ruleMatches(r, p) {
				continue
			}
			switch r.Action {
			case v3.Deny:
				return false
			case v3.Allow, v3.Pass: // nothing stands in the tiers behind
				return true
			}
			panic("action " + r.Action)
		}
	}
	return !selected || *c.tier.Spec.DefaultAction != v3.Deny
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
	return c.entityMatches(r.Source, p.from, 0) && c.entityMatches(r.Destination, p.to, p.port)
}

func (c *cluster) entityMatches(e v3.EntityRule, ip netip.Addr, port uint16) bool {
	if e.NamespaceSelector != "" || e.Services != nil || e.NotSelector != "" || e.NotNets != nil || e.ServiceAccounts != nil || e.NotPorts != nil {
		panic("a match that this evaluator does not know")
	}
	if e.Nets != nil && !contains(e.Nets, ip) {
		return false
	}
	inPort := func(r numorstring.Port) bool { return r.MinPort <= port && port <= r.MaxPort }
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

// matches evaluates the three forms of selectors that are rendered.
func matches(selector string, labels map[string]string) bool {
	var key, value string
	if key, ok := strings.CutPrefix(selector, "has("); ok {
		_, has := labels[strings.TrimSuffix(key, ")")]
		return has
	}
	if n, _ := fmt.Sscanf(selector, "%s in {%q}", &key, &value); n == 2 {
		return labels[key] == value
	}
	if n, _ := fmt.Sscanf(selector, "%s == %q", &key, &value); n == 2 {
		return labels[key] == value
	}
	panic("a selector that this evaluator does not know: " + selector)
}
