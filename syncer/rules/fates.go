package rules

import (
	"sort"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"sublet.dev/isolation/tenant"
	"sublet.dev/syncer/translate"
)

// Fates says what becomes of the fields of a tenant's object on the host: of those
// that the rule names and the object has, of those that have a value whatever the
// object says, and of those that are refused.
func (r *Rule) Fates(t tenant.Tenant, tenantObject *unstructured.Unstructured) []translate.Fate {
	_, w := r.walk(t, tenantObject)
	var fates []translate.Fate
	for _, f := range w.seen {
		fates = append(fates, translate.Fate{Field: f.path, Fate: f.fate})
	}
	for _, refusal := range w.refusals {
		fates = append(fates, translate.Fate{Field: refusal.Field, Fate: "refused", Rule: refusal.Rule, Reason: refusal.Reason})
	}
	if !w.strict {
		fates = append(fates, translate.Fate{Field: "(others)", Fate: "dropped"})
	}
	sort.SliceStable(fates, func(i, j int) bool { return fates[i].Field < fates[j].Field })
	return fates
}

// fated is a field that crosses, and how.
type fated struct{ path, fate string }
