package netpol

import (
	"context"
	"slices"
	"strings"

	"sublet.dev/host-agent/podnet"
)

// Facts is a tenant's part of the fence on this node: what was rendered for it and
// what the kernel has, as lines of the same kind, and what its counters saw.
type Facts struct {
	Rendered []string `json:"rendered"`
	Enforced []string `json:"enforced"`
	// Counters are packets by verdict. "denied" is what the fence refused to the
	// pod that was asked about, or to all of the tenant's pods here; "forged",
	// "unknown", "ipv6" and "stray" are the whole node's.
	Counters map[string]uint64 `json:"counters"`
}

// Facts returns the part of the fence that concerns a host namespace, and, unless
// pod is "", the refusals of that pod alone. What concerns other tenants is left
// out. It reads the kernel anew.
func (e *Enforcer) Facts(ctx context.Context, namespace, pod string) (Facts, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	part := part{prefix: "none"}
	if fence, ok := e.world.fences[namespace]; ok {
		part.prefix = prefix(fence)
	}
	var denied []string
	for _, endpoint := range e.Registry.List() {
		if endpoint.Namespace != namespace {
			continue
		}
		part.interfaces = append(part.interfaces, endpoint.Interface)
		if pod == "" || pod == endpoint.Pod {
			denied = append(denied, deniedCounter(endpoint))
		}
	}
	lines, err := readLines(ctx, e.kernel)
	if err != nil {
		return Facts{}, err
	}
	counters, err := e.kernel.Counters(ctx)
	if err != nil {
		return Facts{}, err
	}
	f := Facts{Rendered: part.of(e.printed), Enforced: part.of(lines), Counters: map[string]uint64{"denied": 0}}
	for name, packets := range counters {
		if what, own := strings.CutPrefix(name, part.prefix); own {
			f.Counters[what] = packets
		}
		if slices.Contains([]string{counterForged, counterUnknown, counterIPv6, counterStray}, name) {
			f.Counters[name] = packets
		}
		if slices.Contains(denied, name) {
			f.Counters["denied"] += packets
		}
	}
	return f, nil
}

// part is the part of a table that concerns one tenant: its own chains and sets by
// their prefix, its interfaces' elements of the shared sets and maps, and the
// shared chains and ranges, which are the same for all.
type part struct {
	prefix     string
	interfaces []string
}

func (p part) of(table []string) []string {
	var lines []string
	for _, line := range table {
		if p.concerns(line) {
			lines = append(lines, line)
		}
	}
	return lines
}

// concerns judges a line "KIND NAME element KEY..." or "KIND NAME ...".
func (p part) concerns(line string) bool {
	f := strings.Fields(line)
	if len(f) < 4 {
		return false
	}
	if strings.HasPrefix(f[1], "t_") {
		return strings.HasPrefix(f[1], p.prefix)
	}
	if f[2] != "element" || !slices.Contains(byInterface, f[1]) {
		return true
	}
	return slices.Contains(p.interfaces, f[3])
}

// byInterface are the sets and maps whose keys begin with an interface.
var byInterface = []string{"interfaces", "fenced", "sources", "dns", "api", "from_pod", "to_pod", "to_node", "node_ports", "guard_out", "guard_in", "denied"}

var _ podnet.Fence = (*Enforcer)(nil)
