package audit

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// fenceChecks compare what the fence should be with what the kernel has.
func fenceChecks() []Check {
	return []Check{
		{ID: "SUB-NET-006", Title: "the fence in the kernel is the fence that was rendered, on every node", Category: "network", Severity: Critical, Method: Runtime,
			Remediation: "restart `sublet agent` on the node: it writes the whole fence again. Find out who changed the table",
			References:  map[string][]string{"iso27017": {"CLD.9.5.1"}, "ccm": {"IVS-06"}}, Eval: evalFence},
	}
}

func evalFence(f *Facts) Outcome {
	fences, err := f.Fences.Get()
	if err != nil {
		return inconclusive("the fence was not read", err)
	}
	if len(fences) == 0 {
		return inconclusive("the fence was not read", fmt.Errorf("no node was asked"))
	}
	var bad findings
	var unknown error
	rendered, enforced := 0, 0
	for _, fence := range fences {
		state, err := fence.State.Get()
		if err != nil {
			unknown = fmt.Errorf("node %s: %w", fence.Node, err)
			continue
		}
		rendered, enforced = rendered+len(state.Rendered), enforced+len(state.Enforced)
		ref := &ObjectRef{Kind: "Node", Name: fence.Node}
		for _, d := range differences(state) {
			bad.add(ref, "%s", d)
		}
		if len(state.Rendered) == 0 {
			bad.add(ref, "has no fence for the tenant")
		}
		bad.evidence = append(bad.evidence, Evidence{What: fmt.Sprintf("%d lines rendered, %d in the kernel", len(state.Rendered), len(state.Enforced)), Node: fence.Node})
	}
	cols := Columns{Rendered: fmt.Sprintf("%d lines", rendered), Enforced: fmt.Sprintf("%d lines", enforced)}
	if len(bad.said) == 0 && unknown != nil {
		o := inconclusive("a node's fence was not read", unknown)
		o.Columns, o.Evidence = cols, bad.evidence
		return o
	}
	return bad.verdict(cols)
}

// place is the number of a rule in its chain, as lines have it.
var place = regexp.MustCompile(`(chain \S+ rule) \d+ `)

// differences lists what a fence lacks and what it has too much. A rule that only
// moved because of another one is not told of, unless nothing else differs.
func differences(s FenceState) []string {
	anywhere := func(lines []string) []string {
		out := make([]string, len(lines))
		for i, line := range lines {
			out[i] = place.ReplaceAllString(line, "$1 ")
		}
		return out
	}
	out := compare(anywhere(s.Rendered), anywhere(s.Enforced))
	if len(out) == 0 {
		return compare(s.Rendered, s.Enforced)
	}
	return out
}

func compare(rendered, enforced []string) []string {
	var out []string
	for _, line := range without(rendered, enforced) {
		out = append(out, fmt.Sprintf("lacks %q", line))
	}
	for _, line := range without(enforced, rendered) {
		out = append(out, fmt.Sprintf("has, and should not have, %q", line))
	}
	return out
}

// without returns the lines of a that b does not have, compared without regard
// to white space and order.
func without(a, b []string) []string {
	have := map[string]int{}
	for _, line := range b {
		have[strings.Join(strings.Fields(line), " ")]++
	}
	var out []string
	for _, line := range a {
		plain := strings.Join(strings.Fields(line), " ")
		if have[plain]--; have[plain] < 0 {
			out = append(out, plain)
		}
	}
	slices.Sort(out)
	return out
}
