package translate

import (
	"maps"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"sublet.dev/isolation/policy"
	"sublet.dev/isolation/tenant"
)

// Lookup answers from the caches of both sides. What it returns is shared.
type Lookup interface {
	// HostNode returns the host node that the tenant knows under that name.
	HostNode(nodeName string) (*corev1.Node, bool)
	// TenantNodes returns the nodes that the tenant sees, with the labels that they
	// have there.
	TenantNodes() []*corev1.Node
	// HostPodWithIP returns the tenant's host pod that has the address now; pods
	// that have ended have none.
	HostPodWithIP(ip string) (*corev1.Pod, bool)
	// RuntimeHandler returns the handler of the tenant's RuntimeClass of that name.
	RuntimeHandler(class string) (string, bool)
	// HostPriority returns the value of the host's PriorityClass of that name; false if
	// there is none, or the tenant has one of its own in that place.
	HostPriority(class string) (int32, bool)
	// Services returns the tenant's Services in a namespace of the tenant.
	Services(namespace string) []*corev1.Service
	// Namespaces returns the names of the tenant's namespaces that are selected.
	Namespaces(selector labels.Selector) []string
}

// Data answers what a tenant's ConfigMaps and Secrets hold.
type Data interface {
	ConfigMap(name tenant.Name) (*corev1.ConfigMap, bool)
	Secret(name tenant.Name) (*corev1.Secret, bool)
}

// Translation translates for one tenant.
type Translation struct {
	Tenant tenant.Tenant
	Lookup Lookup
	Data   Data
	// Plan is what the tenant's plan gives its pods now; nil: nothing.
	Plan func() PodTerms
}

// PodTerms are what of a plan concerns pods and the nodes that they run on.
type PodTerms struct {
	// Tolerations are the taints of host nodes that the pods may tolerate.
	Tolerations []policy.Taint `json:"tolerations,omitempty"`
	// Room is how much of cpu, memory, ephemeral-storage and pods there may be for all of
	// the pods together; what is not in it is not bounded.
	Room map[corev1.ResourceName]string `json:"room,omitempty"`
	policy.Offer
}

func (t Translation) plan() PodTerms {
	if t.Plan == nil {
		return PodTerms{}
	}
	return t.Plan()
}

// NameOf returns the tenant's name of a tenant's object.
func NameOf(tenantObject metav1.Object) tenant.Name {
	return tenant.Name{Namespace: tenantObject.GetNamespace(), Name: tenantObject.GetName()}
}

// hostName returns the host's name of an object in a namespace of the tenant.
func (t Translation) hostName(namespace, name string) string {
	return string(t.Tenant.ID.HostName(tenant.Name{Namespace: namespace, Name: name}))
}

// hostMeta returns the metadata of the host object called name+suffix that is made
// for a tenant's object: our marks and nothing of the tenant's.
func (t Translation) hostMeta(tenantObject metav1.Object, suffix string) metav1.ObjectMeta {
	name := NameOf(tenantObject)
	name.Name += suffix
	l, a := tenant.Owner{Tenant: t.Tenant.ID, Name: name, UID: string(tenantObject.GetUID())}.Marks()
	return metav1.ObjectMeta{
		Name:        string(t.Tenant.ID.HostName(name)),
		Namespace:   t.Tenant.HostNamespace,
		Labels:      l,
		Annotations: a,
	}
}

// mergeMeta makes the keys of have that are ours those of want, leaves the others
// (a host's network plug-in annotates pods), and says whether that changed
// anything. have must be a copy.
func mergeMeta(have *metav1.ObjectMeta, want metav1.ObjectMeta) bool {
	l, a := mergeKeys(have.Labels, want.Labels), mergeKeys(unforced(have.Annotations), want.Annotations)
	changed := !maps.Equal(l, have.Labels) || !maps.Equal(a, have.Annotations)
	have.Labels, have.Annotations = l, a
	return changed
}

// unforced returns annotations without those that stand there because a plan said so.
func unforced(annotations map[string]string) map[string]string {
	forced, ok := annotations[tenant.AnnotationForcedKeys]
	if !ok {
		return annotations
	}
	left := maps.Clone(annotations)
	for _, key := range strings.Split(forced, ",") {
		delete(left, key)
	}
	return left
}

func mergeKeys(have, want map[string]string) map[string]string {
	merged := maps.Clone(want)
	if merged == nil {
		merged = map[string]string{}
	}
	for k, v := range have {
		if _, wanted := want[k]; !wanted && !ours(k) {
			merged[k] = v
		}
	}
	return merged
}

// ours says whether a key belongs to us: its prefix is our domain or below it.
func ours(key string) bool {
	prefix, _, found := strings.Cut(key, "/")
	return found && (prefix == tenant.Domain || strings.HasSuffix(prefix, "."+tenant.Domain))
}

// set puts want in place of *have and says whether they differed. Absent and empty
// are the same to it.
func set[T any](have *T, want T) bool {
	if equality.Semantic.DeepEqual(*have, want) {
		return false
	}
	*have = want
	return true
}
