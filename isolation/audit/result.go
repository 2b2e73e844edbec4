package audit

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Severity is how far a broken check lets a tenant reach, if nothing else holds.
type Severity string

// The severities, the worst first. Critical is access to another tenant or to
// the host; high is one more bug away from it; medium is harm to the service of
// others; low is hygiene.
const (
	Critical Severity = "critical"
	High     Severity = "high"
	Medium   Severity = "medium"
	Low      Severity = "low"
	Info     Severity = "info"
)

var severities = []Severity{Critical, High, Medium, Low, Info}

// ParseSeverity returns the severity called s; the error lists what there is.
func ParseSeverity(s string) (Severity, error) {
	if v := Severity(strings.ToLower(s)); slices.Contains(severities, v) {
		return v, nil
	}
	return "", fmt.Errorf("unknown severity %q: use one of critical, high, medium, low, info", s)
}

// AtLeast says whether s is as bad as other or worse.
func (s Severity) AtLeast(other Severity) bool {
	return slices.Index(severities, s) <= slices.Index(severities, other)
}

// Method is how a check knows what it says. Only [Runtime] and [Probe] are
// proof; [ByConfig] shows what was written down.
type Method string

// The methods: objects of the host API were read; the running process or the
// kernel's tables were read; somebody tried.
const (
	ByConfig Method = "config"
	Runtime  Method = "runtime"
	Probe    Method = "probe"
)

// Status is what became of a check. A check that could not find out is an
// [Error], never a [Pass].
type Status string

// The statuses. Skip is for checks that do not apply or were not asked for.
const (
	Pass  Status = "pass"
	Fail  Status = "fail"
	Error Status = "error"
	Skip  Status = "skip"
)

// Columns is one thing in four states: what the provider declared, what objects
// were made of it, what the node enforces, and what was seen to happen. A state
// that the check does not look at is "".
type Columns struct {
	Declared string `json:"declared"`
	Rendered string `json:"rendered"`
	Enforced string `json:"enforced"`
	Observed string `json:"observed"`
}

// ObjectRef names a host object.
type ObjectRef struct {
	Kind      string `json:"kind"`
	Namespace string `json:"namespace,omitempty"`
	Name      string `json:"name"`
	UID       string `json:"uid,omitempty"`
}

// String returns the reference as kind/namespace/name.
func (r ObjectRef) String() string {
	if r.Namespace == "" {
		return r.Kind + "/" + r.Name
	}
	return r.Kind + "/" + r.Namespace + "/" + r.Name
}

// Evidence is one thing that was seen. Only the fields that apply are set;
// nothing of a Secret's data ever stands in one.
type Evidence struct {
	// What says in words what was seen.
	What string `json:"what"`
	// Control is true for a positive control: it had to succeed for the
	// denials beside it to mean anything.
	Control bool       `json:"control,omitempty"`
	Object  *ObjectRef `json:"object,omitempty"`
	// Command ran in the pod Object; Address is what it tried.
	Command []string `json:"command,omitempty"`
	Address string   `json:"address,omitempty"`
	Output  string   `json:"output,omitempty"`
	// At is when the command was started.
	At *time.Time `json:"at,omitempty"`
	// PID, Exe and Argv are of a process on Node.
	Node string   `json:"node,omitempty"`
	PID  int      `json:"pid,omitempty"`
	Exe  string   `json:"exe,omitempty"`
	Argv []string `json:"argv,omitempty"`
	// Counter is a packet counter of Node's fence before and after the probes.
	Counter *Counter `json:"counter,omitempty"`
}

// Counter is a packet counter read twice.
type Counter struct {
	Name   string `json:"name"`
	Before uint64 `json:"before"`
	After  uint64 `json:"after"`
}

// Outcome is what a check's evaluation says.
type Outcome struct {
	Status Status `json:"result"`
	// Reason says why the result is not a pass; "" for a pass.
	Reason string `json:"reason,omitempty"`
	Columns
	Evidence []Evidence `json:"evidence,omitempty"`
}

// Result is a check with its outcome.
type Result struct {
	ID          string              `json:"id"`
	Title       string              `json:"title"`
	Category    string              `json:"category"`
	Severity    Severity            `json:"severity"`
	Method      Method              `json:"method"`
	Remediation string              `json:"remediation,omitempty"`
	References  map[string][]string `json:"references,omitempty"`
	Outcome
}
