package audit

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/util/version"

	"sublet.dev/isolation/tenant"
)

// HostChecks returns the checks that are about no single tenant.
func HostChecks() []Check {
	return []Check{
		{ID: "SUB-HOST-001", Title: "no namespace or pod is left of a tenant that is gone", Category: "host", Severity: High, Method: ByConfig,
			Remediation: "delete the object that the evidence names",
			References:  map[string][]string{"iso27017": {"CLD.8.1.5"}}, Eval: evalLeftovers},
		{ID: "SUB-HOST-002", Title: "no node runs a container runtime with a known way out of it", Category: "host", Severity: High, Method: Runtime,
			Remediation: "build the newer version on the node (`make deps`) and restart `sublet agent`",
			References:  map[string][]string{"cve": {"CVE-2026-53488", "CVE-2026-41579"}}, Eval: evalVersions},
		{ID: "SUB-HOST-003", Title: "every sandbox that a node offers works there", Category: "host", Severity: Critical, Method: Runtime,
			Remediation: "restart `sublet agent` on the node: it tries every sandbox and takes back the label of one that fails",
			References:  map[string][]string{"kubescape": {"C-0242"}}, Eval: evalOffers},
	}
}

func evalLeftovers(f *Facts) Outcome {
	tenants, err := f.Tenants.Get()
	if err != nil {
		return inconclusive("the tenants were not read", err)
	}
	marked, err := f.Marked.Get()
	if err != nil {
		return inconclusive("the marked objects were not read", err)
	}
	live := map[string]bool{}
	for _, vc := range tenants {
		live[string(vc.UID)] = true
	}
	var bad findings
	for _, o := range marked {
		if id := o.Labels[tenant.LabelTenant]; !live[id] {
			bad.add(o.Ref(), "carries the mark of the tenant %q, which does not exist", id)
		}
	}
	return bad.verdict(Columns{Declared: count(len(tenants), "tenant"), Rendered: count(len(marked), "object") + " marked"})
}

// mended has, for each program, the first version of every line of releases that
// has no known escape: containerd's CVE-2026-53488 (a label of an image runs a
// program on the host) and runc's CVE-2026-41579. Newer lines are mended; older
// ones never were.
var mended = map[string][]string{
	"containerd": {"1.7.33", "2.0.10", "2.1.9", "2.2.5", "2.3.2"},
	"runc":       {"1.3.6", "1.4.3"},
}

func evalVersions(f *Facts) Outcome {
	var seen []string
	o := onNodes(f, func(n Node, bad *findings) error {
		for _, program := range slices.Sorted(maps.Keys(mended)) {
			v := n.Versions[program]
			seen = append(seen, program+" "+v)
			old, err := outdated(v, mended[program])
			if err != nil {
				return fmt.Errorf("%s on node %s: %w", program, n.Name, err)
			}
			what := Evidence{What: program + " " + v, Node: n.Name}
			if old {
				bad.said = append(bad.said, fmt.Sprintf("node %s runs %s %s; mended are %s and newer lines", n.Name, program, v, strings.Join(mended[program], ", ")))
			}
			bad.evidence = append(bad.evidence, what)
		}
		return nil
	})
	o.Observed = distinct(seen)
	return o
}

// outdated says whether v is older than the first mended version of its line.
func outdated(v string, mended []string) (bool, error) {
	have, err := version.ParseGeneric(v)
	if err != nil {
		return false, fmt.Errorf("the version %q can't be read: %w", v, err)
	}
	for _, m := range mended {
		first := version.MustParseGeneric(m) // constants of this file
		if have.Major() == first.Major() && have.Minor() == first.Minor() {
			return have.LessThan(first), nil
		}
	}
	newest := version.MustParseGeneric(mended[len(mended)-1])
	return have.LessThan(newest), nil
}

// evalOffers compares the labels by which pods find a node with what the node's
// agent found when it tried the sandboxes.
func evalOffers(f *Facts) Outcome {
	var offered, works []string
	o := onNodes(f, func(n Node, bad *findings) error {
		for _, s := range tenant.Sandboxes() {
			told, ok := n.Sandboxes[s]
			if !ok {
				return fmt.Errorf("the agent on node %s told nothing of %s", n.Name, s)
			}
			bad.evidence = append(bad.evidence, Evidence{What: fmt.Sprintf("%s: %s", s, told), Node: n.Name})
			if told == worksHere {
				works = append(works, string(s))
			}
			if n.Labels[s.NodeLabel()] != "true" {
				continue
			}
			offered = append(offered, string(s))
			if told != worksHere {
				bad.said = append(bad.said, fmt.Sprintf("node %s offers %s, and its agent says: %s", n.Name, s, told))
			}
		}
		return nil
	})
	o.Declared, o.Enforced = distinct(offered), distinct(works)
	return o
}

// onNodes looks at every node. One that cannot be looked at makes the check
// inconclusive unless another one is at fault.
func onNodes(f *Facts, look func(Node, *findings) error) Outcome {
	nodes, err := f.Nodes.Get()
	if err != nil {
		return inconclusive("the nodes were not read", err)
	}
	if len(nodes) == 0 {
		return inconclusive("the nodes were not read", errors.New("the host has none"))
	}
	var bad findings
	var unknown error
	for _, n := range nodes {
		node, err := n.Get()
		if err == nil {
			err = look(node, &bad)
		}
		if err != nil {
			unknown = err
		}
	}
	if len(bad.said) == 0 && unknown != nil {
		o := inconclusive("a node was not read", unknown)
		o.Evidence = bad.evidence
		return o
	}
	return bad.verdict(Columns{Rendered: count(len(nodes), "node")})
}
