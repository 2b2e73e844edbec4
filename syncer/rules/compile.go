package rules

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"sublet.dev/api/v1alpha1"
	"sublet.dev/isolation/policy"
)

// Namespace is the kind of reference that stands for the object's own namespace.
const Namespace = "Namespace"

// Rule is a rule of a plan, ready to be used. Make it with Compile; nobody changes it.
type Rule struct {
	spec   v1alpha1.CustomResourceRule
	fields *node
	status *node
}

// node is a place in the tree of a rule's paths. A leaf has a field and nothing below.
type node struct {
	field *leaf
	names map[string]*node // below an object
	items *node            // below each item of a list
}

// leaf is what becomes of one field.
type leaf struct {
	v1alpha1.CustomResourceField
	value any // of Value
}

// Compile makes a rule of a plan's. An error says what contradicts itself; the host's
// API refuses plans for which there is one.
func Compile(spec v1alpha1.CustomResourceRule) (*Rule, error) {
	r := &Rule{spec: *spec.DeepCopy(), fields: &node{}, status: &node{}}
	if !r.InTenant() && !policy.MayCross(spec.Group, spec.Resource) || spec.Version == "" || spec.Kind == "" || spec.Resource == "" {
		return nil, fmt.Errorf("rule for %s.%s: no rule can be made for this kind", spec.Resource, spec.Group)
	}
	if spec.Direction != v1alpha1.ToHost && spec.Direction != v1alpha1.FromHost && !r.InTenant() {
		return nil, fmt.Errorf("rule for %s: the direction %q is not known", r.Name(), spec.Direction)
	}
	if (spec.Direction == v1alpha1.FromHost) != (spec.Select != nil) {
		return nil, fmt.Errorf("rule for %s: select says which objects go FromHost", r.Name())
	}
	for _, f := range spec.Fields {
		l, err := r.leaf(f)
		if err == nil {
			err = r.fields.add(f.Path, l)
		}
		if err != nil {
			return nil, fmt.Errorf("rule for %s: %w", r.Name(), err)
		}
	}
	for _, path := range spec.Status {
		if !strings.HasPrefix(path, "status.") {
			return nil, fmt.Errorf("rule for %s: %q is not below status", r.Name(), path)
		}
		if err := r.status.add(path, &leaf{CustomResourceField: v1alpha1.CustomResourceField{Path: path}}); err != nil {
			return nil, fmt.Errorf("rule for %s: %w", r.Name(), err)
		}
	}
	return r, nil
}

// leaf checks one field by itself.
func (r *Rule) leaf(f v1alpha1.CustomResourceField) (*leaf, error) {
	l := &leaf{CustomResourceField: f}
	root, _, _ := strings.Cut(f.Path, ".")
	root = strings.TrimSuffix(root, "[]")
	toHost := r.spec.Direction == v1alpha1.ToHost
	switch {
	case slices.Contains([]string{"apiVersion", "kind", "metadata"}, root), toHost && root == "status":
		return nil, fmt.Errorf("%s never crosses in this direction", f.Path)
	case !toHost && (f.Reference != "" || f.Result != "" || len(f.Values) > 0):
		return nil, fmt.Errorf("%s goes FromHost: it is copied or has a value", f.Path)
	}
	if f.Value != nil {
		if err := json.Unmarshal(f.Value.Raw, &l.value); err != nil {
			return nil, fmt.Errorf("the value of %s: %w", f.Path, err)
		}
		l.value = whole(l.value)
	}
	return l, nil
}

// whole gives numbers the types that unstructured objects have.
func whole(v any) any {
	switch v := v.(type) {
	case map[string]any:
		for k := range v {
			v[k] = whole(v[k])
		}
	case []any:
		for i := range v {
			v[i] = whole(v[i])
		}
	case float64:
		if i := int64(v); float64(i) == v {
			return i
		}
	}
	return v
}

// add puts a field into the tree, unless it is above or below another.
func (n *node) add(path string, l *leaf) error {
	for _, part := range strings.Split(path, ".") {
		name, list := strings.CutSuffix(part, "[]")
		if name == "" || strings.ContainsAny(name, "[]") {
			return fmt.Errorf("%q is not a path", path)
		}
		if n.names == nil {
			n.names = map[string]*node{}
		}
		if n.names[name] == nil {
			n.names[name] = &node{}
		}
		if n = n.names[name]; n.field != nil {
			return fmt.Errorf("%s is below %s", path, n.field.Path)
		}
		if !list {
			continue
		}
		if n.items == nil {
			n.items = &node{}
		}
		if n = n.items; n.field != nil {
			return fmt.Errorf("%s is below %s", path, n.field.Path)
		}
	}
	if n.names != nil || n.items != nil {
		return fmt.Errorf("there are fields below %s", path)
	}
	n.field = l
	return nil
}

// Name is that of the kind's definition: RESOURCE.GROUP.
func (r *Rule) Name() string { return r.spec.Resource + "." + r.spec.Group }

// ToHost says whether the tenant's objects go to the host; otherwise the host's are
// shown to the tenant.
func (r *Rule) ToHost() bool { return r.spec.Direction == v1alpha1.ToHost }

// InTenant says whether nothing of the kind crosses: the tenant's API has it, and the
// syncer reads it there.
func (r *Rule) InTenant() bool { return r.spec.Direction == v1alpha1.InTenant }

// Resource is the kind's resource, of the version that crosses.
func (r *Rule) Resource() schema.GroupVersionResource {
	return schema.GroupVersionResource{Group: r.spec.Group, Version: r.spec.Version, Resource: r.spec.Resource}
}

// Kind is the kind, of the version that crosses.
func (r *Rule) Kind() schema.GroupVersionKind {
	return schema.GroupVersionKind{Group: r.spec.Group, Version: r.spec.Version, Kind: r.spec.Kind}
}

// Same says whether two rules say the same.
func (r *Rule) Same(o *Rule) bool {
	mine, err := json.Marshal(r.spec)
	others, otherErr := json.Marshal(o.spec)
	return err == nil && otherErr == nil && string(mine) == string(others)
}
