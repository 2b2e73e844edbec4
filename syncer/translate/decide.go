package translate

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync"

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
	eachField(v, &place{name: path}, func(at place, d decision, v reflect.Value) {
		if reason, ok := d.refuses(v); ok {
			*found = append(*found, policy.Refusal{Rule: ruleField, Field: at.String(), Reason: reason})
		}
	})
}

// place is where a value is. Few are ever written out, so it is a list from the inside
// out: a field of what is above, or one of its elements.
type place struct {
	above *place
	name  string // of the field; "" for an element, and for what is above itself
	index int    // of the element
	one   bool   // it is an element
}

// String is the path, as kubectl explain writes it.
func (p place) String() string {
	var above string
	if p.above != nil {
		above = p.above.String()
	}
	switch {
	case p.one:
		return fmt.Sprintf("%s[%d]", above, p.index)
	case p.above == nil:
		return p.name
	default:
		return above + "." + p.name
	}
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
// leads to, with its place, its decision and its value. Only of those that are set it
// visits what is below.
func eachField(v reflect.Value, at *place, visit func(at place, d decision, v reflect.Value)) {
	switch v.Kind() {
	case reflect.Pointer:
		if !v.IsNil() {
			eachField(v.Elem(), at, visit)
		}
	case reflect.Slice:
		for i := range v.Len() {
			eachField(v.Index(i), &place{above: at, index: i, one: true}, visit)
		}
	case reflect.Struct:
		for i, f := range fieldsOf(v.Type()) {
			field, below := v.Field(i), *at
			if !f.embedded {
				below = place{above: at, name: f.name}
			}
			visit(below, f.decision, field)
			if (f.verdict == copied || f.verdict == translated) && !unset(field) {
				there := below
				eachField(field, &there, visit)
			}
		}
	}
}

// decidedField is a field of a type whose fields are decided one by one.
type decidedField struct {
	decision
	name     string // in JSON
	embedded bool
}

// known holds what fieldsOf found out, by type.
var known sync.Map

// fieldsOf returns a struct's fields in their order, none if they are not decided one by
// one.
func fieldsOf(t reflect.Type) []decidedField {
	if fields, ok := known.Load(t); ok {
		return fields.([]decidedField)
	}
	var fields []decidedField
	if decided(t) {
		table := decisions[t.Name()]
		for i := range t.NumField() {
			f := t.Field(i)
			fields = append(fields, decidedField{table[f.Name], jsonName(f), f.Anonymous})
		}
	}
	known.Store(t, fields)
	return fields
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
