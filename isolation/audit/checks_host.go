package audit

import (
	"sublet.dev/isolation/tenant"
)

// HostChecks returns the checks that are about no single tenant.
func HostChecks() []Check {
	return []Check{
		{ID: "SUB-HOST-001", Title: "no namespace or pod is left of a tenant that is gone", Category: "host", Severity: High, Method: ByConfig,
			Remediation: "delete the object that the evidence names",
			References:  map[string][]string{"iso27017": {"CLD.8.1.5"}}, Eval: evalLeftovers},
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
