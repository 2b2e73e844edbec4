package rules

import (
	"fmt"
	"slices"
	"sort"
	"strings"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation"

	"sublet.dev/isolation/policy"
)

// fieldRule is the rule of refusals that come from a plan's rule.
const fieldRule = "custom-resource-fields"

// Use is a name of another object that stands in an object.
type Use struct {
	Field string // the path, as it stands in the rule
	Kind  string // Secret, ConfigMap, Service, …
	Name  string
	// Result: a controller of the host makes the object.
	Result bool
}

// walker builds what crosses of one object.
type walker struct {
	// refer returns what stands on the other side for a name; nil: none is changed.
	refer    func(Use) string
	own      string // the object's namespace, on the side it comes from
	strict   bool   // fields outside of the rule are refused
	uses     []Use
	seen     []fated // what crosses
	refusals []policy.Refusal
}

func (w *walker) refuse(field, reason string) {
	w.refusals = append(w.refusals, policy.Refusal{Rule: fieldRule, Field: field, Reason: reason})
}

// build returns what of a value crosses; false: nothing does.
func (w *walker) build(n *node, v any, there bool, path string) (any, bool) {
	if n.field != nil {
		return w.leaf(n.field, v, there, path)
	}
	switch v := v.(type) {
	case []any:
		if n.items == nil {
			break
		}
		built := make([]any, len(v))
		for i := range v {
			item, ok := w.build(n.items, v[i], true, fmt.Sprintf("%s[%d]", path, i))
			if !ok {
				item = map[string]any{} // as many items as there were
			}
			built[i] = item
		}
		return built, true
	case map[string]any:
		if n.names != nil {
			return w.object(n, v, path)
		}
	case nil:
		if n.names != nil {
			built, _ := w.object(n, nil, path)
			return built, len(built) > 0
		}
		return nil, false
	}
	w.refuse(path, "it is not what the rule for this kind expects")
	return nil, false
}

// object builds an object's fields. One that is not there may have values of its own.
func (w *walker) object(n *node, v map[string]any, path string) (map[string]any, bool) {
	built := map[string]any{}
	for _, name := range sorted(n.names) {
		value, there := v[name]
		if field, ok := w.build(n.names[name], value, there, join(path, name)); ok {
			built[name] = field
		}
	}
	if w.strict {
		for _, name := range sorted(v) {
			if _, known := n.names[name]; !known {
				w.refuse(join(path, name), "your plan does not bring this field to the host: remove it")
			}
		}
	}
	return built, v != nil
}

// leaf decides about one field.
func (w *walker) leaf(f *leaf, v any, there bool, path string) (any, bool) {
	there = there && v != nil
	switch {
	case f.Value != nil:
		w.cross(path, "forced")
		return runtime.DeepCopyJSONValue(f.value), true
	case len(f.Values) > 0 && !there:
		w.cross(path, "forced")
		return f.Values[0], true
	case !there:
		return nil, false
	case len(f.Values) > 0:
		if !scalar(v) || !slices.Contains(f.Values, fmt.Sprint(v)) {
			w.refuse(path, "use "+strings.Join(f.Values, " or "))
			return nil, false
		}
	case f.Reference != "" || f.Result != "":
		return w.reference(f, v, path)
	}
	w.cross(path, "copied")
	return runtime.DeepCopyJSONValue(v), true
}

func (w *walker) cross(path, fate string) { w.seen = append(w.seen, fated{path, fate}) }

// reference puts the other side's name in the place of one.
func (w *walker) reference(f *leaf, v any, path string) (any, bool) {
	name, ok := v.(string)
	use := Use{Field: path, Kind: f.Reference, Name: name}
	if f.Result != "" {
		use.Kind, use.Result = f.Result, true
	}
	switch {
	case ok && name == "":
		return nil, false
	case use.Kind == Namespace && name != w.own:
		w.refuse(path, "it must be the object's own namespace")
		return nil, false
	case !ok || len(validation.IsDNS1123Subdomain(name)) > 0:
		w.refuse(path, "it must be the name of a "+use.Kind+" in the object's namespace")
		return nil, false
	}
	w.uses = append(w.uses, use)
	w.cross(path, "translated")
	if w.refer == nil {
		return name, true
	}
	return w.refer(use), true
}

func scalar(v any) bool {
	switch v.(type) {
	case string, bool, int64, float64:
		return true
	default:
		return false
	}
}

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}

func sorted[T any](m map[string]T) []string {
	names := make([]string, 0, len(m))
	for name := range m {
		names = append(names, name)
	}
	sort.Strings(names)
	return names
}
