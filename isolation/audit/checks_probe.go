package audit

import (
	"errors"
	"fmt"
	"strings"
)

// probeChecks are about what a pod of the tenant can reach. In every one the
// same canary reaches what it may at the same time; else nothing is proven.
func probeChecks() []Check {
	segregation := map[string][]string{"iso27017": {"CLD.9.5.1"}, "ccm": {"IVS-06"}, "pci": {"A1.1.4"}, "kubescape": {"C-0054", "C-0260"}}
	restart := "restart `sublet agent` on the canary's node; if it goes on, stop the tenant's pods and report it"
	return []Check{
		{ID: "SUB-NET-001", Title: "a pod of the tenant cannot reach another tenant's pod", Category: "network", Severity: Critical, Method: Probe,
			Remediation: restart, References: segregation,
			Eval: evalDenied("another tenant's pod", func(p Probes) []Attempt { return p.Stranger }, func(p Probes) []Attempt { return p.InboundControls })},
		{ID: "SUB-NET-002", Title: "a pod of the tenant cannot reach the cloud's metadata service", Category: "network", Severity: Critical, Method: Probe,
			Remediation: restart, References: map[string][]string{"kubescape": {"C-0052"}},
			Eval: evalMetadata},
		{ID: "SUB-NET-003", Title: "a pod of the tenant cannot reach the node or the host's API", Category: "network", Severity: Critical, Method: Probe,
			Remediation: restart, References: segregation,
			Eval: evalDenied("the node", func(p Probes) []Attempt { return p.Host }, nil)},
		{ID: "SUB-NET-004", Title: "a pod of the tenant cannot reach another tenant's API", Category: "network", Severity: Critical, Method: Probe,
			Remediation: restart, References: segregation,
			Eval: evalDenied("another tenant's API", func(p Probes) []Attempt { return p.StrangerAPI }, func(p Probes) []Attempt { return p.InboundControls })},
		{ID: "SUB-NET-005", Title: "another tenant's pod cannot reach a pod of the tenant", Category: "network", Severity: Critical, Method: Probe,
			Remediation: restart, References: segregation,
			Eval: evalInbound},
		{ID: "SUB-DNS-001", Title: "a pod of the tenant gets the tenant's own answers from DNS", Category: "network", Severity: High, Method: Probe,
			Remediation: restart, References: map[string][]string{"iso27017": {"CLD.9.5.1"}}, Eval: evalDNS},
	}
}

// evalDenied makes the evaluation of attempts that must all fail while the
// canary's controls, and those of extra when given, succeed.
func evalDenied(what string, attempts, extra func(Probes) []Attempt) func(*Facts) Outcome {
	return func(f *Facts) Outcome {
		p, err := f.Probes.Get()
		if err != nil {
			return inconclusive("no canary could try", err)
		}
		controls := p.Controls
		if extra != nil {
			controls = append(append([]Attempt{}, controls...), extra(p)...)
		}
		return denied(what, attempts(p), controls)
	}
}

func evalInbound(f *Facts) Outcome {
	p, err := f.Probes.Get()
	if err != nil {
		return inconclusive("no canary could try", err)
	}
	return denied("the tenant's pod", p.Inbound, append(append([]Attempt{}, p.InboundControls...), p.Controls...))
}

// evalDNS looks at the answer to a name that every tenant has, and that stands
// for another address in each.
func evalDNS(f *Facts) Outcome {
	p, err := f.Probes.Get()
	if err != nil {
		return inconclusive("no canary could try", err)
	}
	e, ok, err := tried(p.DNS, true)
	cols := Columns{Declared: p.APIAddress}
	if err == nil && !ok {
		err = errors.New(e.Output)
	}
	if err == nil && p.APIAddress == "" {
		err = errors.New("the address of the tenant's API is not known")
	}
	if err != nil {
		o := inconclusive("the tenant's DNS did not answer", err)
		o.Columns, o.Evidence = cols, []Evidence{e}
		return o
	}
	r, _ := p.DNS.Reply.Get() // tried looked at the error
	cols.Observed = strings.Join(r.Addresses, " ")
	var bad []string
	if cols.Observed != p.APIAddress {
		bad = append(bad, fmt.Sprintf("%s stands for %q, not for the tenant's own API at %s", apiName, cols.Observed, p.APIAddress))
	}
	return verdict(bad, cols, []Evidence{e})
}

// evalMetadata is evalDenied, and where nothing can listen at the address the
// fence's own counter must show that it was the fence that refused.
func evalMetadata(f *Facts) Outcome {
	p, err := f.Probes.Get()
	if err != nil {
		return inconclusive("no canary could try", err)
	}
	o := denied("the metadata service", p.Metadata, p.Controls)
	if o.Status != Pass {
		return o
	}
	c, err := p.Denied.Get()
	if err != nil {
		end := inconclusive("nobody may listen there, and the fence's counter was not read", err)
		end.Columns, end.Evidence = o.Columns, o.Evidence
		return end
	}
	o.Evidence = append(o.Evidence, Evidence{What: "the fence counted the refused packets", Node: p.Node, Counter: &c})
	// At least a packet for each attempt; a fence that was made anew counts from 0.
	if c.After < c.Before+uint64(len(p.Metadata)) {
		o.Status, o.Reason = Error, fmt.Sprintf("cannot tell: the fence refused %d attempts and counted from %d to %d: something else refused, or nobody listens", len(p.Metadata), c.Before, c.After)
		return o
	}
	o.Enforced = fmt.Sprintf("%s +%d", c.Name, c.After-c.Before)
	return o
}

// denied judges attempts that must fail beside controls that must succeed. A
// success where none may be is a finding whatever the controls say.
func denied(what string, attempts, controls []Attempt) Outcome {
	o := Outcome{Columns: Columns{Declared: "deny"}}
	var reached []string
	var unknown []error
	for _, a := range attempts {
		e, ok, err := tried(a, false)
		o.Evidence = append(o.Evidence, e)
		if err != nil {
			unknown = append(unknown, err)
		} else if ok {
			reached = append(reached, fmt.Sprintf("%s reached %s at %s", a.From, a.To, a.Address))
		}
	}
	if len(attempts) == 0 {
		unknown = append(unknown, fmt.Errorf("nothing tried to reach %s", what))
	}
	proven := 0
	for _, a := range controls {
		e, ok, err := tried(a, true)
		o.Evidence = append(o.Evidence, e)
		switch {
		case err != nil:
			unknown = append(unknown, fmt.Errorf("the positive control failed: %w", err))
		case !ok:
			unknown = append(unknown, fmt.Errorf("the positive control failed: %s did not reach %s at %s: %s", a.From, a.To, a.Address, e.Output))
		default:
			proven++
		}
	}
	if len(controls) == 0 {
		unknown = append(unknown, errors.New("there was no positive control"))
	}
	o.Observed = fmt.Sprintf("%d/%d refused, %d/%d controls", len(attempts)-len(reached), len(attempts), proven, len(controls))
	switch {
	case len(reached) > 0:
		o.Status, o.Reason = Fail, sentence(reached)
	case len(unknown) > 0:
		o.Status, o.Reason = Error, "cannot tell: "+errors.Join(unknown...).Error()
		o.Reason = strings.ReplaceAll(o.Reason, "\n", "; ")
	default:
		o.Status = Pass
	}
	return o
}

// tried makes the evidence of an attempt and says whether it succeeded.
func tried(a Attempt, control bool) (Evidence, bool, error) {
	from, at := a.From, a.At
	e := Evidence{What: "tried to reach " + a.To, Control: control, Object: &from, Command: a.Command, Address: a.Address, At: &at}
	r, err := a.Reply.Get()
	if err != nil {
		e.Output = "not tried: " + err.Error()
		return e, false, fmt.Errorf("%s did not try %s: %w", from, a.To, err)
	}
	e.Output = "refused: " + r.Error
	if r.OK {
		e.Output = fmt.Sprintf("reached in %d ms", r.Millis)
	}
	return e, r.OK, nil
}
