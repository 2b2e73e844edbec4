package netpol

import (
	"crypto/sha256"
	"encoding/hex"
	"maps"
	"net/netip"
	"slices"

	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"sublet.dev/host-agent/podnet"
	"sublet.dev/isolation/policy"
)

// What one tenant's policies may become on a node: the rules of all that isolate its
// pods here, once for each group of pods that the same policies select, and the
// addresses and ports in them. Above that the pods that any of them selects are closed:
// the kernel takes all tenants' rules together, and what one writes must not hold up
// the others' pods. A thousand rules take nft some tenths of a second.
const (
	maxAllows   = 1000
	maxElements = 20_000
)

// guard is what the tenant's policies leave to a group of its endpoints in one
// direction: those that the same policies select.
type guard struct {
	chain  string
	closed bool // allows nothing, not even to itself: what the policies are is not known
	allows []allow
}

// guards are the guards of one tenant's endpoints, by interface. An endpoint that no
// policy isolates has none.
type guards struct {
	out, in map[string]*guard
	chains  []chain
	excess  bool // the policies are too much
}

// chain is a guard with its direction, for rendering.
type chain struct {
	*guard
	egress bool
}

// guardsOf compiles a tenant's policies for its endpoints here. An endpoint whose pod
// is not known is closed.
func guardsOf(t Tenant) guards {
	g := guards{out: map[string]*guard{}, in: map[string]*guard{}}
	c := newCompiler(t)
	for _, egress := range []bool{true, false} {
		groups := map[string][]podnet.Endpoint{}
		chosen := map[string][]*networkingv1.NetworkPolicy{}
		for _, e := range t.Endpoints {
			pod, known := t.podOf(e)
			if !known {
				g.of(egress)[e.Interface] = &guard{closed: true}
				continue
			}
			selected, key := t.selecting(pod, egress)
			if len(selected) > 0 {
				groups[key], chosen[key] = append(groups[key], e), selected
			}
		}
		for _, key := range slices.Sorted(maps.Keys(groups)) {
			members := groups[key]
			one := c.guard(chosen[key], members, egress)
			one.chain = chainName(t, direction(egress)) + "_" + digest(key)
			for _, e := range members {
				g.of(egress)[e.Interface] = one
			}
			g.chains = append(g.chains, chain{one, egress})
		}
	}
	if g.excess = c.allows > maxAllows || c.elements > maxElements; g.excess {
		for _, one := range g.chains {
			one.allows = nil
		}
	}
	return g
}

func (g guards) of(egress bool) map[string]*guard {
	if egress {
		return g.out
	}
	return g.in
}

func direction(egress bool) string {
	if egress {
		return "out"
	}
	return "in"
}

// digest shortens a text to a part of a name.
func digest(s string) string {
	h := sha256.Sum256([]byte(s))
	return hex.EncodeToString(h[:6])
}

// podOf returns what is known of an endpoint's pod.
func (t Tenant) podOf(e podnet.Endpoint) (Pod, bool) {
	for _, a := range v4(e) {
		if pod, ok := t.Pods[a]; ok {
			return pod, true
		}
	}
	return Pod{}, false
}

// selecting returns the policies that isolate a pod in a direction, and a key that
// two pods share if those are the same.
func (t Tenant) selecting(pod Pod, egress bool) (selected []*networkingv1.NetworkPolicy, key string) {
	for _, p := range t.Policies {
		in, out := policy.Isolates(p)
		if egress && !out || !egress && !in {
			continue
		}
		selector, err := metav1.LabelSelectorAsSelector(&p.Spec.PodSelector)
		if err != nil || selector.Matches(labels.Set(pod.Labels)) { // the API takes none that is not valid
			selected, key = append(selected, p), key+p.Namespace+"/"+p.Name+"\n"
		}
	}
	return selected, key
}

// guard compiles the policies of one group of endpoints.
func (c *compiler) guard(policies []*networkingv1.NetworkPolicy, members []podnet.Endpoint, egress bool) *guard {
	var receivers []netip.Addr
	for _, e := range members {
		receivers = append(receivers, v4(e)...)
	}
	g := &guard{}
	for _, p := range policies {
		if egress {
			for _, r := range p.Spec.Egress {
				g.allows = append(g.allows, c.egress(r))
			}
			continue
		}
		for _, r := range p.Spec.Ingress {
			g.allows = append(g.allows, c.ingress(r, receivers))
		}
	}
	c.allows += len(g.allows)
	for _, a := range g.allows {
		c.elements += len(a.pods) + len(a.blocks) + len(a.ports) + len(a.named)
	}
	return g
}
