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

// walk looks at every field below v that is set.
func walk(v reflect.Value, path string, found *[]policy.Refusal) {
	switch v.Kind() {
	case reflect.Pointer:
		if !v.IsNil() {
			walk(v.Elem(), path, found)
		}
	case reflect.Slice:
		for i := range v.Len() {
			walk(v.Index(i), fmt.Sprintf("%s[%d]", path, i), found)
		}
	case reflect.Struct:
		if decided(v.Type()) {
			walkFields(v, path, found)
		}
	}
}

func walkFields(v reflect.Value, path string, found *[]policy.Refusal) {
	table := decisions[v.Type().Name()]
	for i := range v.NumField() {
		field := v.Type().Field(i)
		if unset(v.Field(i)) {
			continue
		}
		at := path
		if !field.Anonymous {
			at = path + "." + jsonName(field)
		}
		switch d := table[field.Name]; d.verdict {
		case copied, translated:
			walk(v.Field(i), at, found)
		case undecided:
			*found = append(*found, policy.Refusal{Rule: ruleField, Field: at, Reason: "the field is not known here: remove it"})
		case refused:
			if !slices.Contains(d.allow, fmt.Sprint(reflect.Indirect(v.Field(i)))) {
				*found = append(*found, policy.Refusal{Rule: ruleField, Field: at, Reason: d.why})
			}
		}
	}
}

// decided says whether a type's fields are decided one by one: those of the core
// and networking APIs are; selectors, quantities and the like are values.
func decided(t reflect.Type) bool {
	if t.Kind() != reflect.Struct {
		return false
	}
	path := t.PkgPath()
	return strings.HasSuffix(path, "k8s.io/api/core/v1") || strings.HasSuffix(path, "k8s.io/api/networking/v1")
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
