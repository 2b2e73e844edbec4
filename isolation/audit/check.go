package audit

import (
	"fmt"
	"slices"
	"strings"
)

// Check is one question about a subject. Eval is pure: it reads facts and does
// nothing else, and gives [Error] for a fact it needs and does not have.
type Check struct {
	// ID is stable: it never gets another meaning and is never used again.
	ID          string
	Title       string
	Category    string
	Severity    Severity
	Method      Method
	Remediation string
	// References maps a catalogue (mtb, kubescape, pss, cve, iso27017, ccm, pci)
	// to ids in it.
	References map[string][]string
	Eval       func(*Facts) Outcome
}

// TenantChecks returns the checks of a tenant in the order of reports.
func TenantChecks() []Check {
	return slices.Concat(tenantChecks(), baselineChecks(), podChecks(), serviceChecks(), sandboxChecks(), probeChecks(), fenceChecks())
}

// Evaluate runs checks over facts, in order. The method of checks that need
// canaries is skipped, with that reason, when probing is false.
func Evaluate(checks []Check, facts *Facts, probing bool) []Result {
	results := make([]Result, 0, len(checks))
	for _, c := range checks {
		var o Outcome
		if c.Method == Probe && !probing {
			o = Outcome{Status: Skip, Reason: "probing was switched off"}
		} else {
			o = c.Eval(facts)
		}
		results = append(results, Result{
			ID: c.ID, Title: c.Title, Category: c.Category, Severity: c.Severity, Method: c.Method,
			Remediation: c.Remediation, References: c.References, Outcome: o,
		})
	}
	return results
}

// inconclusive is the outcome of a check that could not find out.
func inconclusive(what string, err error) Outcome {
	return Outcome{Status: Error, Reason: fmt.Sprintf("cannot tell: %s: %v", what, err)}
}

// verdict is a fail when something was found, else a pass. Every finding is a
// sentence; the first few become the reason.
func verdict(found []string, cols Columns, evidence []Evidence) Outcome {
	o := Outcome{Status: Pass, Columns: cols, Evidence: evidence}
	if len(found) > 0 {
		o.Status, o.Reason = Fail, sentence(found)
	}
	return o
}

// shown is how many findings a reason spells out.
const shown = 3

func sentence(found []string) string {
	if len(found) <= shown {
		return strings.Join(found, "; ")
	}
	return fmt.Sprintf("%s; and %d more", strings.Join(found[:shown], "; "), len(found)-shown)
}

// finding makes the evidence of a finding about an object and its sentence.
func finding(ref *ObjectRef, format string, args ...any) (string, Evidence) {
	what := fmt.Sprintf(format, args...)
	return ref.String() + " " + what, Evidence{What: what, Object: ref}
}

// findings collects sentences with their evidence.
type findings struct {
	said     []string
	evidence []Evidence
}

func (f *findings) add(ref *ObjectRef, format string, args ...any) {
	s, e := finding(ref, format, args...)
	f.said, f.evidence = append(f.said, s), append(f.evidence, e)
}

func (f *findings) verdict(cols Columns) Outcome { return verdict(f.said, cols, f.evidence) }

// count writes a number with its noun.
func count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
