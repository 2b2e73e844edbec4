package translate

import (
	"fmt"
	"reflect"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"sublet.dev/isolation/policy"
)

// ruleField is the rule of refusals that come from the table of decisions.
const ruleField = "pod-fields"

// refusals lists the fields of a tenant's pod that are refused or undecided.
func refusals(spec *corev1.PodSpec) []policy.Refusal {
	var found []policy.Refusal
	walk(reflect.ValueOf(spec), "spec", &found)
	return found
}

// walk adds the refused and undecided fields below v to found.
func walk(v reflect.Value, path string, found *[]policy.Refusal) {
	eachField(v, path, func(at string, d decision, v reflect.Value) {
		if reason, ok := d.refuses(v); ok {
			*found = append(*found, policy.Refusal{Rule: ruleField, Field: at, Reason: reason})
		}
	})
}

// CheckFields returns the fields of a tenant's pod that are refused by the table of
// decisions, beside what isolation/policy refuses.
func CheckFields(tenantPod *corev1.Pod) []policy.Refusal { return refusals(&tenantPod.Spec) }

// refuses says whether a pod whose field has that value is refused, and why.
func (d decision) refuses(v reflect.Value) (reason string, ok bool) {
	switch {
	case unset(v):
		return "", false
	case d.verdict == undecided:
		return "the field is not known here: remove it", true
	case d.verdict == refused && !slices.Contains(d.allow, fmt.Sprint(reflect.Indirect(v))):
		return d.why, true
	default:
		return "", false
	}
}

// eachField visits every field below v, set or not, that a decision on a field above it
// leads to, with its path, its decision and its value. Only of those that are set it
// visits what is below.
func eachField(v reflect.Value, path string, visit func(at string, d decision, v reflect.Value)) {
	switch v.Kind() {
	case reflect.Pointer:
		if !v.IsNil() {
			eachField(v.Elem(), path, visit)
		}
	case reflect.Slice:
		for i := range v.Len() {
			eachField(v.Index(i), fmt.Sprintf("%s[%d]", path, i), visit)
		}
	case reflect.Struct:
		if decided(v.Type()) {
			walkFields(v, path, visit)
		}
	}
}

func walkFields(v reflect.Value, path string, visit func(at string, d decision, v reflect.Value)) {
	table := decisions[v.Type().Name()]
	for i := range v.NumField() {
		field := v.Type().Field(i)
		at := path
		if !field.Anonymous {
			at = path + "." + jsonName(field)
		}
		d := table[field.Name]
		visit(at, d, v.Field(i))
		if (d.verdict == copied || d.verdict == translated) && !unset(v.Field(i)) {
			eachField(v.Field(i), at, visit)
		}
	}
}

// decided says whether a type's fields are decided one by one: those of the core,
// networking and gateway APIs are; selectors, quantities and the like are values.
func decided(t reflect.Type) bool {
	if t.Kind() != reflect.Struct {
		return false
	}
	path := t.PkgPath()
	return strings.HasSuffix(path, "k8s.io/api/core/v1") || strings.HasSuffix(path, "k8s.io/api/networking/v1") ||
		strings.HasSuffix(path, "gateway-api/apis/v1")
}

// unset says whether a field has no value; a pointer to false or to nothing says
// what its absence says.
func unset(v reflect.Value) bool {
	switch v.Kind() {
	case reflect.Pointer:
		return v.IsNil() || v.Elem().Kind() != reflect.Struct && v.Elem().IsZero()
	case reflect.Slice, reflect.Map:
		return v.Len() == 0
	default:
		return v.IsZero()
	}
}

func jsonName(f reflect.StructField) string {
	name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
	return name
}
