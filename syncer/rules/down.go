package rules

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"strconv"
	"strings"

	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"

	"sublet.dev/isolation/policy"
	"sublet.dev/isolation/tenant"
	"sublet.dev/syncer/engine"
)

// maxObject is how large an object may be that crosses, in bytes of JSON: what most
// definitions mean is a few hundred.
const maxObject = 64 << 10

// content returns what of an object a rule can be about.
func content(o *unstructured.Unstructured, but ...string) map[string]any {
	fields := maps.Clone(o.Object)
	for _, name := range append(but, "apiVersion", "kind", "metadata") {
		delete(fields, name)
	}
	return fields
}

// walk builds what of a tenant's object goes to the host.
func (r *Rule) walk(t tenant.Tenant, tenantObject *unstructured.Unstructured) (map[string]any, *walker) {
	w := &walker{own: tenantObject.GetNamespace(), strict: r.spec.OtherFields != "Drop", refer: func(u Use) string { return r.hostName(t, tenantObject, u) }}
	built, _ := w.object(r.fields, content(tenantObject, "status"), "")
	return built, w
}

// Down returns the host object of a tenant's, or the reasons for which there must be
// none. The caller owns it.
func (r *Rule) Down(t tenant.Tenant, tenantObject *unstructured.Unstructured) (*unstructured.Unstructured, []policy.Refusal) {
	built, w := r.walk(t, tenantObject)
	return r.finish(t, tenantObject, built, w)
}

// With returns the host object of a tenant's whose fields somebody else has translated,
// or why there can be none. The fields are the caller's no longer; it owns the result.
func (r *Rule) With(t tenant.Tenant, tenantObject *unstructured.Unstructured, fields map[string]any) (*unstructured.Unstructured, []policy.Refusal) {
	return r.finish(t, tenantObject, fields, &walker{})
}

// finish makes a host object of its fields, unless w has refused some.
func (r *Rule) finish(t tenant.Tenant, tenantObject *unstructured.Unstructured, built map[string]any, w *walker) (*unstructured.Unstructured, []policy.Refusal) {
	text, err := json.Marshal(built)
	if err == nil && len(text) > maxObject {
		w.refuse("", fmt.Sprintf("it has %d bytes of JSON, and %d can cross", len(text), maxObject))
	}
	if err != nil {
		w.refuse("", "it cannot be encoded")
	}
	if len(w.refusals) > 0 {
		return nil, w.refusals
	}
	hostObject := &unstructured.Unstructured{Object: built}
	hostObject.SetGroupVersionKind(r.Kind())
	name := tenant.Name{Namespace: tenantObject.GetNamespace(), Name: tenantObject.GetName()}
	labels, annotations := tenant.Owner{Tenant: t.ID, Name: name, UID: string(tenantObject.GetUID())}.Marks()
	for _, l := range r.spec.HostLabels {
		if _, ours := labels[l.Name]; !ours {
			labels[l.Name] = l.Value
		}
	}
	annotations[tenant.AnnotationGeneration] = strconv.FormatInt(tenantObject.GetGeneration(), 10)
	annotations[tenant.AnnotationWritten] = digest(text)
	hostObject.SetName(string(t.ID.HostName(name)))
	hostObject.SetNamespace(t.HostNamespace)
	hostObject.SetLabels(labels)
	hostObject.SetAnnotations(annotations)
	return hostObject, nil
}

func digest(text []byte) string {
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:16])
}

// hostName is what a name in a tenant's object becomes.
func (r *Rule) hostName(t tenant.Tenant, tenantObject metav1.Object, u Use) string {
	name := tenant.Name{Namespace: tenantObject.GetNamespace(), Name: u.Name}
	switch {
	case u.Kind == Namespace:
		return t.HostNamespace
	case u.Result:
		name = r.ResultName(tenantObject, u.Name)
	}
	return string(t.ID.HostName(name))
}

// Uses lists the objects that a tenant's object refers to, if it can go to the host.
func (r *Rule) Uses(t tenant.Tenant, tenantObject *unstructured.Unstructured) []Use {
	_, w := r.walk(t, tenantObject)
	if len(w.refusals) > 0 {
		return nil
	}
	return w.uses
}

// Merge makes have what want is, where want says something, and leaves what
// controllers of the host have added. have is not changed.
func (r *Rule) Merge(have, want *unstructured.Unstructured) (*unstructured.Unstructured, engine.Difference) {
	merged := have.DeepCopy()
	same := mergeMeta(merged, want)
	written := have.GetAnnotations()[tenant.AnnotationWritten] == want.GetAnnotations()[tenant.AnnotationWritten]
	if !written || !within(content(want), have.Object) {
		mergeNode(r.fields, merged.Object, want.Object)
		same = same && equality.Semantic.DeepEqual(merged.Object, have.Object)
	}
	if same {
		return merged, engine.Same
	}
	return merged, engine.Changed
}

// mergeMeta puts our keys into merged, and says whether they were there.
func mergeMeta(merged, want *unstructured.Unstructured) bool {
	labels, annotations := mergeKeys(merged.GetLabels(), want.GetLabels()), mergeKeys(merged.GetAnnotations(), want.GetAnnotations())
	same := maps.Equal(labels, merged.GetLabels()) && maps.Equal(annotations, merged.GetAnnotations())
	merged.SetLabels(labels)
	merged.SetAnnotations(annotations)
	return same
}

// mergeKeys returns have with what want says; keys of ours that want has not go.
func mergeKeys(have, want map[string]string) map[string]string {
	merged := maps.Clone(want)
	if merged == nil {
		merged = map[string]string{}
	}
	for k, v := range have {
		if _, wanted := want[k]; !wanted && !tenant.IsKey(k) {
			merged[k] = v
		}
	}
	return merged
}

// mergeNode gives have the fields of a rule that want has, and takes away the others
// of them.
func mergeNode(n *node, have, want map[string]any) {
	for name, below := range n.names {
		wanted, ok := want[name]
		before, had := have[name].(map[string]any)
		object, isObject := wanted.(map[string]any)
		switch {
		case !ok && had && below.names != nil:
			mergeNode(below, before, nil)
		case !ok:
			delete(have, name)
		case had && isObject && below.names != nil:
			mergeNode(below, before, object)
		default:
			have[name] = runtime.DeepCopyJSONValue(wanted)
		}
	}
}

// within says whether all that want says stands in have.
func within(want, have any) bool {
	switch want := want.(type) {
	case map[string]any:
		have, ok := have.(map[string]any)
		for name := range want {
			if !ok || !within(want[name], have[name]) {
				return false
			}
		}
		return ok
	case []any:
		have, ok := have.([]any)
		if !ok || len(have) != len(want) {
			return false
		}
		for i := range want {
			if !within(want[i], have[i]) {
				return false
			}
		}
		return true
	default:
		return equality.Semantic.DeepEqual(want, have)
	}
}

// Refused is what a tenant is told about an object that does not get to the host.
func Refused(refusals []policy.Refusal) string {
	const most = 8
	var lines []string
	for i, r := range refusals {
		if i == most {
			lines = append(lines, fmt.Sprintf("and %d more", len(refusals)-most))
			break
		}
		lines = append(lines, r.String())
	}
	return "it does not get to the host: " + strings.Join(lines, "; ")
}
