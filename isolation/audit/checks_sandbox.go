package audit

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	"sublet.dev/isolation/tenant"
)

// sandboxChecks are about what really runs around the tenant's pods.
func sandboxChecks() []Check {
	return []Check{
		{ID: "SUB-SBX-001", Title: "the process around every running pod is the declared sandbox", Category: "sandbox", Severity: Critical, Method: Runtime,
			Remediation: "drain the node: its runtime does not do what it says. Compare the runtime handlers in its containerd configuration",
			References:  map[string][]string{"kubescape": {"C-0242"}, "iso27017": {"CLD.9.5.1"}}, Eval: evalProcess},
		{ID: "SUB-SBX-002", Title: "the container runtime started every pod with the declared handler", Category: "sandbox", Severity: Critical, Method: Runtime,
			Remediation: "delete the pod that the evidence names, and look at the RuntimeClass and at the node's containerd configuration",
			References:  map[string][]string{"kubescape": {"C-0242"}}, Eval: evalHandler},
		{ID: "SUB-SBX-003", Title: "a program inside sees the sandbox's kernel, not the host's", Category: "sandbox", Severity: Critical, Method: Probe,
			Remediation: "drain the node: its runtime does not do what it says",
			References:  map[string][]string{"iso27017": {"CLD.9.5.1"}}, Eval: evalKernel},
	}
}

// running are the sandboxes to judge; a non-nil outcome ends the check.
func running(f *Facts) (tenant.Sandbox, []Sandbox, *Outcome) {
	end := func(o Outcome) (tenant.Sandbox, []Sandbox, *Outcome) { return "", nil, &o }
	vc, err := f.Tenant.Get()
	if err != nil {
		return end(inconclusive("the tenant was not read", err))
	}
	want := tenant.Sandbox(vc.Spec.Sandbox)
	if err := want.Validate(); err != nil {
		return end(inconclusive("the tenant's sandbox is not known", err))
	}
	boxes, err := f.Sandboxes.Get()
	if err != nil {
		return end(inconclusive("the sandboxes were not read from the nodes", err))
	}
	if len(boxes) == 0 {
		return end(Outcome{Status: Skip, Reason: "no pod of the tenant runs", Columns: Columns{Declared: string(want)}})
	}
	return want, boxes, nil
}

// judge runs fault over every sandbox's process. A pod whose process is not
// known makes the check inconclusive unless another one is at fault.
func judge(f *Facts, fault func(tenant.Sandbox, Process) string, enforced, observed func(Process) string) Outcome {
	want, boxes, end := running(f)
	if end != nil {
		return *end
	}
	var bad findings
	var unknown error
	var sawEnforced, sawObserved []string
	for i := range boxes {
		b := &boxes[i]
		p, err := b.Process.Get()
		if err != nil {
			unknown = fmt.Errorf("%s on node %s: %w", b.Pod, b.Node, err)
			continue
		}
		what := fault(want, p)
		if what != "" {
			bad.said = append(bad.said, b.Pod.String()+" "+what)
		} else {
			what = "runs under the handler " + p.Handler
		}
		bad.evidence = append(bad.evidence, Evidence{What: what, Object: &b.Pod, Node: b.Node, PID: p.PID, Exe: p.Exe, Argv: p.Argv})
		sawEnforced, sawObserved = append(sawEnforced, enforced(p)), append(sawObserved, observed(p))
	}
	cols := Columns{Declared: string(want), Rendered: want.RuntimeClass(), Enforced: distinct(sawEnforced), Observed: distinct(sawObserved)}
	if len(bad.said) == 0 && unknown != nil {
		o := inconclusive("a sandbox was not read", unknown)
		o.Columns, o.Evidence = cols, bad.evidence
		return o
	}
	return bad.verdict(cols)
}

// distinct writes each value once with how often it occurs.
func distinct(values []string) string {
	n := map[string]int{}
	for _, v := range values {
		n[v]++
	}
	slices.Sort(values)
	var out []string
	for _, v := range slices.Compact(values) {
		out = append(out, fmt.Sprintf("%d× %s", n[v], v))
	}
	return strings.Join(out, ", ")
}

func evalProcess(f *Facts) Outcome {
	return judge(f, processFault,
		func(p Process) string { return "handler " + p.Handler },
		func(p Process) string { return path.Base(p.Exe) })
}

// processFault says why a process is not the sandbox, "" when it is.
func processFault(want tenant.Sandbox, p Process) string {
	isRunsc := path.Base(strings.TrimSuffix(p.Exe, " (deleted)")) == "runsc"
	switch {
	case p.PID <= 0 || p.Exe == "":
		return "has no process that the node could name"
	case want == tenant.GVisor && !isRunsc:
		return fmt.Sprintf("runs in the process %d %q, which is not gVisor's runsc", p.PID, p.Exe)
	case want == tenant.GVisor && !slices.Contains(p.Argv, "boot"):
		return fmt.Sprintf("runs in the process %d, a runsc that is no sandbox: %q", p.PID, strings.Join(p.Argv, " "))
	case want == tenant.RuncUserNS:
		return mapFault(p.UIDMap)
	}
	return ""
}

// mapFault says why a uid_map (user_namespaces(7)) does not keep the pod's users
// apart from the host's, "" when it does.
func mapFault(uidMap string) string {
	lines := strings.Split(strings.TrimSpace(uidMap), "\n")
	for _, line := range lines {
		fields := strings.Fields(line)
		if len(fields) != 3 {
			return fmt.Sprintf("has the unreadable user map %q", uidMap)
		}
		first, err := strconv.ParseUint(fields[1], 10, 32)
		if err != nil {
			return fmt.Sprintf("has the unreadable user map %q", uidMap)
		}
		// 0..65535 are the host's own users.
		if first < 1<<16 {
			return fmt.Sprintf("maps users to the host's own: %q", line)
		}
	}
	return ""
}

func evalHandler(f *Facts) Outcome {
	return judge(f,
		func(want tenant.Sandbox, p Process) string {
			if p.Handler != want.Handler() {
				return fmt.Sprintf("was started with the handler %q, not %q", p.Handler, want.Handler())
			}
			return ""
		},
		func(p Process) string { return "handler " + p.Handler },
		func(p Process) string { return "CRI: " + p.Handler })
}

func evalKernel(f *Facts) Outcome {
	vc, err := f.Tenant.Get()
	if err != nil {
		return inconclusive("the tenant was not read", err)
	}
	want := tenant.Sandbox(vc.Spec.Sandbox)
	if err := want.Validate(); err != nil {
		return inconclusive("the tenant's sandbox is not known", err)
	}
	if want != tenant.GVisor {
		return Outcome{Status: Skip, Reason: "the declared sandbox shares the host's kernel: there is no other kernel to see", Columns: Columns{Declared: string(want)}}
	}
	probes, err := f.Probes.Get()
	if err != nil {
		return inconclusive("no canary could try", err)
	}
	uname, err := probes.Uname.Get()
	if err != nil {
		return inconclusive("uname was not run in the canary", err)
	}
	dmesg, err := probes.Dmesg.Get()
	if err != nil {
		return inconclusive("dmesg was not run in the canary", err)
	}
	if uname == "" && dmesg == "" {
		return inconclusive("the kernel says nothing in the canary", errors.New("uname and dmesg are empty"))
	}
	var bad findings
	for _, said := range []struct{ command, output, sign string }{{"uname", uname, "gvisor"}, {"dmesg", dmesg, "Starting gVisor"}} {
		first, _, _ := strings.Cut(strings.TrimSpace(said.output), "\n")
		e := Evidence{What: "said inside the canary", Object: &probes.Canary, Node: probes.Node, Command: []string{canaryBinary, said.command}, Output: first}
		if !strings.Contains(said.output, said.sign) {
			e.What = fmt.Sprintf("does not say %q", said.sign)
			bad.said = append(bad.said, fmt.Sprintf("%s inside the canary says %q: no sign of gVisor", said.command, first))
		}
		bad.evidence = append(bad.evidence, e)
	}
	return bad.verdict(Columns{Declared: string(want), Rendered: want.RuntimeClass(), Observed: firstLine(uname)})
}

func firstLine(s string) string {
	s, _, _ = strings.Cut(strings.TrimSpace(s), "\n")
	return s
}
