package rules

import (
	"encoding/json"
	"maps"
	"slices"
	"strconv"
	"strings"

	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"

	"sublet.dev/isolation/policy"
	"sublet.dev/isolation/tenant"
	"sublet.dev/syncer/engine"
)

// maxText is how much of one text of the host's a tenant reads, in bytes.
const maxText = 4 << 10

// AnnotationView is the key of an annotation of objects in a tenant's API. It holds the UID of what
// they show, or were made for.
const AnnotationView = tenant.Domain + "/view-of"

// Status returns the tenant's object with what the rule names of the host object's
// status, and whether that changed anything. Names of the host in it are the tenant's
// there; hide takes more from what a driver of the host's wrote. A status that is too large
// is not brought.
func (r *Rule) Status(t tenant.Tenant, hostObject, tenantObject *unstructured.Unstructured, hide func(driverText string) string) (*unstructured.Unstructured, bool) {
	if len(r.spec.Status) == 0 {
		return tenantObject, false
	}
	w := &walker{}
	built, _ := w.object(r.status, content(hostObject), "")
	told := &teller{reveal: r.reveal(t, tenantObject, hostObject), host: hostObject.GetGeneration(), tenant: generation(hostObject)}
	status, _ := told.tell(built["status"], "").(map[string]any)
	if r.Name() == policy.Snapshots {
		maskContent(status, tenantObject)
		maskError(status, hide)
	}
	if text, err := json.Marshal(status); err != nil || len(text) > maxObject {
		return tenantObject, false
	}
	had, _ := tenantObject.Object["status"].(map[string]any)
	if len(status) == 0 && len(had) == 0 || equality.Semantic.DeepEqual(had, status) {
		return tenantObject, false
	}
	merged := tenantObject.DeepCopy()
	merged.Object["status"] = runtime.DeepCopyJSONValue(status)
	return merged, true
}

// generation is that of the tenant's object that a host object follows.
func generation(hostObject *unstructured.Unstructured) int64 {
	g, err := strconv.ParseInt(hostObject.GetAnnotations()[tenant.AnnotationGeneration], 10, 64)
	if err != nil {
		return 0
	}
	return g
}

// maskContent gives what a snapshot is on the host's storage the name that it would
// have if it were the tenant's: there is no object of that name.
func maskContent(status map[string]any, tenantObject *unstructured.Unstructured) {
	const bound = "boundVolumeSnapshotContentName"
	if _, ok := status[bound]; ok {
		status[bound] = "snapcontent-" + string(tenantObject.GetUID()) // as upstream names it
	}
}

// maskError takes the host's names from why a snapshot failed: its driver, which wrote
// that, knows no tenants.
func maskError(status map[string]any, hide func(string) string) {
	failed, _ := status["error"].(map[string]any)
	if text, ok := failed["message"].(string); ok {
		failed["message"] = hide(text)
	}
}

// reveal puts the tenant's names in the place of the host's, and the UID of the
// tenant's object in that of the host's, which may be nil.
func (r *Rule) reveal(t tenant.Tenant, tenantObject, hostObject *unstructured.Unstructured) *strings.Replacer {
	name := tenant.Name{Namespace: tenantObject.GetNamespace(), Name: tenantObject.GetName()}
	pairs := map[string]string{string(t.ID.HostName(name)): name.Name, t.HostNamespace: name.Namespace}
	if hostObject != nil && hostObject.GetUID() != "" {
		pairs[string(hostObject.GetUID())] = string(tenantObject.GetUID())
	}
	for _, u := range r.Uses(t, tenantObject) {
		pairs[r.hostName(t, tenantObject, u)] = u.Name
	}
	keys := slices.Sorted(maps.Keys(pairs))
	slices.SortStableFunc(keys, func(a, b string) int { return len(b) - len(a) })
	var all []string
	for _, k := range keys {
		all = append(all, k, pairs[k])
	}
	return strings.NewReplacer(all...)
}

// Reveal gives a text that the host wrote about an object the tenant's names.
func (r *Rule) Reveal(t tenant.Tenant, tenantObject *unstructured.Unstructured, hostText string) string {
	return r.reveal(t, tenantObject, nil).Replace(hostText)
}

// teller changes what a tenant reads of a host object's status.
type teller struct {
	reveal       *strings.Replacer
	host, tenant int64 // the generations of both objects
}

// tell returns a value in the tenant's words. A generation that the host has observed
// is the tenant's when it is the newest, and an older one otherwise.
func (t *teller) tell(v any, name string) any {
	switch v := v.(type) {
	case string:
		return cut(t.reveal.Replace(cut(v)))
	case []any:
		for i := range v {
			v[i] = t.tell(v[i], "")
		}
	case map[string]any:
		for k := range v {
			v[k] = t.tell(v[k], k)
		}
	case int64:
		if name == "observedGeneration" {
			if v >= t.host {
				return t.tenant
			}
			return max(t.tenant-1, 0)
		}
	}
	return v
}

func cut(s string) string {
	if len(s) <= maxText {
		return s
	}
	return strings.ToValidUTF8(s[:maxText], "")
}

// Shows says whether an object of the host is one that the rule shows.
func (r *Rule) Shows(hostObject *unstructured.Unstructured) bool {
	s := r.spec.Select
	if s == nil || s.Namespace != hostObject.GetNamespace() || len(s.Names) > 0 && !slices.Contains(s.Names, hostObject.GetName()) {
		return false
	}
	labels := hostObject.GetLabels()
	for k, v := range s.MatchLabels {
		if has, ok := labels[k]; !ok || has != v {
			return false
		}
	}
	return len(s.Names)+len(s.MatchLabels) > 0
}

// HostNamespace is where the host's objects are that the rule shows; "": they have no
// namespace.
func (r *Rule) HostNamespace() string {
	if r.spec.Select == nil {
		return ""
	}
	return r.spec.Select.Namespace
}

// ViewName is the tenant's name of an object of the host.
func (r *Rule) ViewName(hostName string) tenant.Name {
	n := tenant.Name{Name: hostName}
	if s := r.spec.Select; s != nil && s.Namespace != "" {
		if n.Namespace = s.TenantNamespace; n.Namespace == "" {
			n.Namespace = "default"
		}
	}
	return n
}

// View returns what a tenant sees of an object of the host; nil: it is too large. The
// caller owns it.
func (r *Rule) View(hostObject *unstructured.Unstructured) *unstructured.Unstructured {
	w := &walker{}
	built, _ := w.object(r.fields, content(hostObject), "")
	if text, err := json.Marshal(built); err != nil || len(text) > maxObject {
		return nil
	}
	view := &unstructured.Unstructured{Object: built}
	view.SetGroupVersionKind(r.Kind())
	name := r.ViewName(hostObject.GetName())
	view.SetNamespace(name.Namespace)
	view.SetName(name.Name)
	view.SetAnnotations(map[string]string{AnnotationView: string(hostObject.GetUID())})
	return view
}

// MergeView is the Merge of views: whatever the tenant changed is restored. have is
// not changed.
func (r *Rule) MergeView(have, want *unstructured.Unstructured) (*unstructured.Unstructured, engine.Difference) {
	merged := have.DeepCopy()
	same := mergeMeta(merged, want)
	if !within(content(want, "status"), have.Object) || !within(content(have, "status"), want.Object) {
		for name := range content(merged, "status") {
			delete(merged.Object, name)
		}
		for name, v := range content(want, "status") {
			merged.Object[name] = runtime.DeepCopyJSONValue(v)
		}
		same = false
	}
	if same {
		return merged, engine.Same
	}
	return merged, engine.Changed
}

// ViewStatus returns a view with the status that the rule names, and whether that
// changed anything.
func (r *Rule) ViewStatus(hostObject, view *unstructured.Unstructured) (*unstructured.Unstructured, bool) {
	want := r.View(hostObject)
	if want == nil || want.Object["status"] == nil || equality.Semantic.DeepEqual(want.Object["status"], view.Object["status"]) {
		return view, false
	}
	merged := view.DeepCopy()
	merged.Object["status"] = want.Object["status"]
	return merged, true
}
