package audit

import (
	"encoding/json"
	"io"
	"time"
)

// Schema names the form of [Report] as JSON. Fields may be added under the same
// name; one that changes its meaning or goes changes the name.
const Schema = "sublet.dev/audit/v1"

// The exit codes of an audit.
const (
	ExitPass         = 0 // nothing at or above the threshold
	ExitInternal     = 1 // the audit itself could not be done, or was called wrongly
	ExitFindings     = 2 // findings at or above the threshold
	ExitInconclusive = 3 // no such finding, but something could not be found out
)

// Report is one audit.
type Report struct {
	Schema   string    `json:"schema"`
	Run      string    `json:"run"`
	Started  time.Time `json:"started"`
	Finished time.Time `json:"finished"`
	// Probing says whether canaries tried, or only reading was allowed.
	Probing bool     `json:"probing"`
	FailOn  Severity `json:"failOn"`
	Verdict Status   `json:"verdict"`
	// Subjects is every tenant that was audited, by name, and then the host.
	Subjects []Subject `json:"subjects"`
	// Problems is what went wrong around the checks, for example a canary that
	// could not be removed. With one the audit is inconclusive.
	Problems []string `json:"problems,omitempty"`
}

// SubjectKind is what kind of thing was audited.
type SubjectKind string

// The kinds of subjects.
const (
	SubjectTenant SubjectKind = "tenant"
	SubjectHost   SubjectKind = "host"
)

// Subject is what one audited thing gave.
type Subject struct {
	Kind      SubjectKind `json:"kind"`
	Name      string      `json:"name"`
	UID       string      `json:"uid,omitempty"`
	Namespace string      `json:"namespace,omitempty"`
	Sandbox   string      `json:"sandbox,omitempty"`
	Verdict   Status      `json:"verdict"`
	Coverage  Coverage    `json:"coverage"`
	Results   []Result    `json:"results"`
}

// Coverage counts a subject's results. ByProbe and ByRuntime count the passes
// that are proof.
type Coverage struct {
	Checks    int `json:"checks"`
	Passed    int `json:"passed"`
	Failed    int `json:"failed"`
	Errors    int `json:"errors"`
	Skipped   int `json:"skipped"`
	ByProbe   int `json:"byProbe"`
	ByRuntime int `json:"byRuntime"`
}

// cover counts results and gives their verdict: the worst of them, where one
// that could not be found out is worse than any number of passes.
func cover(results []Result) (Coverage, Status) {
	var c Coverage
	for _, r := range results {
		c.Checks++
		switch r.Status {
		case Fail:
			c.Failed++
		case Error:
			c.Errors++
		case Skip:
			c.Skipped++
		case Pass:
			c.Passed++
			switch r.Method {
			case Probe:
				c.ByProbe++
			case Runtime:
				c.ByRuntime++
			}
		}
	}
	switch {
	case c.Failed > 0:
		return c, Fail
	case c.Errors > 0 || c.Passed == 0:
		return c, Error
	}
	return c, Pass
}

// conclude sets the report's verdict from its subjects and problems.
func (r *Report) conclude() {
	r.Verdict = Pass
	if len(r.Problems) > 0 || len(r.Subjects) == 0 {
		r.Verdict = Error
	}
	for _, s := range r.Subjects {
		if s.Verdict == Fail {
			r.Verdict = Fail
			return
		}
		if s.Verdict == Error {
			r.Verdict = Error
		}
	}
}

// ExitCode returns the exit code that says what the report says.
func (r *Report) ExitCode() int {
	code := ExitPass
	if len(r.Problems) > 0 {
		code = ExitInconclusive
	}
	for _, s := range r.Subjects {
		for _, res := range s.Results {
			switch {
			case res.Status == Fail && res.Severity.AtLeast(r.FailOn):
				return ExitFindings
			case res.Status == Error:
				code = ExitInconclusive
			}
		}
	}
	return code
}

// WriteJSON writes the report as indented JSON.
func (r *Report) WriteJSON(w io.Writer) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(r)
}
