// Package audit finds out, and proves, whether tenants are fenced.
//
// A [Check] is one question. It compares up to four states of one thing: what
// the provider declared, what objects were made of it, what the node enforces,
// and what was seen to happen; a contradiction is a finding even if no packet
// got through. Only what was tried ([Probe]) or read from the running system
// ([Runtime]) counts as proof, and the report says how much of it is. What could
// not be found out is an [Error], never a [Pass].
//
// The flow: [Run] lists the tenants; for each it reads the host objects, places
// two canaries in the tenant's host namespace, lets one try what it must not
// reach beside what it must reach (the positive controls: without them a denial
// proves nothing), asks the nodes' agents what runs around the tenant's pods and
// what fence the kernel has, and gives all of that as [Facts] to the checks, which
// are pure. Another tenant is played by a tenant of the audit's own, so that no
// audit touches one customer on behalf of another.
//
// Canaries are pods of the provider (label sublet.dev/audit), bound by the
// tenant's quota, limited in time by the kubelet, and removed when Run returns,
// interrupted or not. What a killed audit left is removed by the next one.
//
// # JSON
//
// The JSON form of [Report] has this schema, called sublet.dev/audit/v1. Fields
// may be added to it; none changes its meaning.
//
//	{
//	  "schema":   "sublet.dev/audit/v1",
//	  "run":      "0f3a9c1e",                      the label of the run's canaries
//	  "started":  RFC 3339, "finished": RFC 3339,
//	  "probing":  true,                            false: checks by probe are "skip"
//	  "failOn":   "low",
//	  "verdict":  "pass" | "fail" | "error",       the worst of the subjects'
//	  "subjects": [{
//	    "kind": "tenant" | "host", "name", "uid", "namespace", "sandbox",
//	    "verdict": "pass" | "fail" | "error",
//	    "coverage": {"checks", "passed", "failed", "errors", "skipped",
//	                 "byProbe", "byRuntime"},      numbers; the last two of the passed
//	    "results": [{
//	      "id": "SUB-NET-001",                     stable, never used again
//	      "title", "category",
//	      "severity": "critical" | "high" | "medium" | "low" | "info",
//	      "method":   "config" | "runtime" | "probe",
//	      "remediation",
//	      "references": {"mtb": ["MTB-PL1-BC-HI-1"], "cve": [...], ...},
//	      "result":   "pass" | "fail" | "error" | "skip",
//	      "reason":   why it is not a pass,
//	      "declared", "rendered", "enforced", "observed",
//	      "evidence": [{"what", "control", "object": {"kind", "namespace", "name", "uid"},
//	                    "command", "address", "output", "at", "node", "pid", "exe", "argv",
//	                    "counter": {"name", "before", "after"}}]
//	    }]
//	  }],
//	  "problems": ["..."]                          what went wrong around the checks
//	}
//
// The package never reads the data of a Secret, never changes an object that it
// did not make, and imports none of the parts that it judges.
package audit
