package translate

import (
	"reflect"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"sublet.dev/isolation/policy"
)

// Fate is what becomes of a field of a tenant's pod on the host.
type Fate struct {
	// Field is the field's path, as kubectl explain writes it.
	Field string `json:"field"`
	// Fate is copied, translated, forced, dropped or refused.
	Fate string `json:"fate"`
	// Rule and Reason are those of the refusal.
	Rule   string `json:"rule,omitempty"`
	Reason string `json:"reason,omitempty"`
}

// names are the verdicts as users see them. A field that nobody decided about is
// refused.
var names = map[verdict]string{
	undecided: "refused", copied: "copied", translated: "translated", forced: "forced", dropped: "dropped", refused: "refused",
}

// Fates says of every field of a pod's spec that is set, and of those that are forced
// whether set or not, what becomes of it: by the table that Pod goes by, and by the
// rules of isolation/policy. A field that others are below is not listed
// itself.
func (t Translation) Fates(tenantPod *corev1.Pod) []Fate {
	fates := tableFates(reflect.ValueOf(&tenantPod.Spec))
	asked := *tenantPod
	t.judged(&asked.Spec)
	for _, r := range append(t.plan().CheckPod(&asked, policy.LevelFor(t.Tenant.Sandbox)), policy.CheckResources(&asked.Spec)...) {
		fates = withRefusal(fates, r)
	}
	return fates
}

// tableFates says of every field of a spec what the table of decisions says of it.
func tableFates(spec reflect.Value) []Fate {
	var fates []Fate
	eachField(spec, &place{name: "spec"}, func(at place, d decision, v reflect.Value) {
		reason, no := d.refuses(v)
		switch {
		case no:
			fates = append(fates, Fate{Field: at.String(), Fate: names[refused], Rule: ruleField, Reason: reason})
		case d.verdict == forced, !unset(v) && d.verdict != refused && (d.verdict == dropped || !above(v)):
			fates = append(fates, Fate{Field: at.String(), Fate: names[d.verdict]})
		}
	})
	return fates
}

// above says whether the fields of a value are decided one by one.
func above(v reflect.Value) bool {
	t := v.Type()
	for t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice {
		t = t.Elem()
	}
	return decided(t)
}

// withRefusal puts a refusal in the place of the field's fate, or adds it when it is
// about more or less than one field.
func withRefusal(fates []Fate, r policy.Refusal) []Fate {
	refusal := Fate{Field: r.Field, Fate: names[refused], Rule: r.Rule, Reason: r.Reason}
	for i, f := range fates {
		if strings.EqualFold(f.Field, r.Field) {
			fates[i] = refusal
			return fates
		}
	}
	return append(fates, refusal)
}
