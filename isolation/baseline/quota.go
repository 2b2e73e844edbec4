package baseline

import (
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"sublet.dev/api/v1alpha1"
	"sublet.dev/isolation/policy"
	"sublet.dev/isolation/tenant"
)

// limits is how many objects of each kind a tenant may have on the host when its
// plan does not say. They bound what a tenant costs the host's store and its
// agents; a /22 has addresses for 1022 services. Compute is not among them: such a
// quota refuses every pod without requests, and defaulting them (LimitRange) would
// make the host pod differ from what the syncer wrote.
var limits = map[corev1.ResourceName]string{
	corev1.ResourcePods:                       "250",
	corev1.ResourceServices:                   "500",
	corev1.ResourceConfigMaps:                 "1000",
	corev1.ResourceSecrets:                    "1000",
	"count/endpointslices.discovery.k8s.io":   "1000",
	"count/networkpolicies.networking.k8s.io": "1000",
}

// storage is how much persistent storage a tenant may have when its plan offers
// classes and does not say.
var storage = map[corev1.ResourceName]string{
	corev1.ResourcePersistentVolumeClaims: "50",
	corev1.ResourceRequestsStorage:        "20Gi",
}

// The names of a tenant's quotas. Every pod, and the Secret with its tokens, is counted
// when it is made, and to count is to write the quota: what counts those is a small one,
// since the host reads, compares and writes all that a quota says for it, and one, since what
// is made in a namespace at the same time is counted with one write of each quota.
const (
	quotaName     = "sublet"
	quotaPodsName = "sublet-pods"
)

// ResourceRecounts is what a quota limits, beyond what [Quotas] says, while the manager
// waits for the host's quota controller to count new kinds: objects of a kind that nobody
// defines.
const ResourceRecounts corev1.ResourceName = "count/recounts." + tenant.Domain

// Quotas returns what a tenant of a plan may use up on the host. They limit different
// things, each of them once.
func Quotas(t tenant.Tenant, p v1alpha1.PlanSpec) []*corev1.ResourceQuota {
	parts := map[string]corev1.ResourceList{}
	for name, n := range hard(p) {
		part := quotaOf(name)
		if parts[part] == nil {
			parts[part] = corev1.ResourceList{}
		}
		parts[part][name] = n
	}
	var quotas []*corev1.ResourceQuota
	for _, name := range slices.Backward(slices.Sorted(maps.Keys(parts))) { // the one that all had before has less only when the others are there
		quotas = append(quotas, &corev1.ResourceQuota{
			TypeMeta:   typeMeta("v1", "ResourceQuota"),
			ObjectMeta: meta(t, t.HostNamespace, name),
			Spec:       corev1.ResourceQuotaSpec{Hard: parts[name]},
		})
	}
	return quotas
}

// quotaOf names the quota that limits a resource: what pods and the Secrets with their tokens
// use up is in one.
func quotaOf(name corev1.ResourceName) string {
	switch name {
	case corev1.ResourceSecrets, "count/secrets", corev1.ResourcePods, "count/pods", corev1.ResourceCPU, corev1.ResourceMemory, corev1.ResourceEphemeralStorage:
		return quotaPodsName
	case corev1.ResourceRequestsStorage:
		return quotaName
	}
	if strings.HasPrefix(string(name), "requests.") || strings.HasPrefix(string(name), "limits.") {
		return quotaPodsName
	}
	return quotaName
}

func hard(p v1alpha1.PlanSpec) corev1.ResourceList {
	list := corev1.ResourceList{
		corev1.ResourceServicesLoadBalancers: *resource.NewQuantity(int64(p.LoadBalancers.Count), resource.DecimalSI),
		corev1.ResourceServicesNodePorts:     *resource.NewQuantity(int64(p.NodePorts), resource.DecimalSI),
	}
	for name, n := range limits {
		list[name] = resource.MustParse(n)
	}
	for name, n := range storage {
		if len(p.StorageClasses) == 0 {
			n = "0"
		}
		list[name] = resource.MustParse(n)
	}
	for _, r := range CustomResources(p) {
		if r.Direction == v1alpha1.ToHost && policy.MayCross(r.Group, r.Resource) {
			list[corev1.ResourceName("count/"+r.Resource+"."+r.Group)] = *resource.NewQuantity(int64(most(r)), resource.DecimalSI)
		}
	}
	list["count/ingresses.networking.k8s.io"] = resource.MustParse("0")
	if len(p.Ingress.Classes) > 0 {
		list["count/ingresses.networking.k8s.io"] = resource.MustParse("200")
	}
	for name, n := range p.HostResources {
		if n.Sign() < 0 {
			n = resource.MustParse("0") // the host's API would refuse the whole quota
		}
		list[name] = n.DeepCopy()
	}
	return list
}

// Room returns how much of what nodes have there may be for all pods of a tenant of a plan
// together, by the nodes' names for it. What the plan does not bound is not in it.
func Room(p v1alpha1.PlanSpec) map[corev1.ResourceName]string {
	room, quota := map[corev1.ResourceName]string{}, hard(p)
	for _, name := range []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory, corev1.ResourceEphemeralStorage} {
		for _, bound := range []corev1.ResourceName{"limits." + name, "requests." + name} { // the scheduler goes by requests
			if q, ok := quota[bound]; ok {
				room[name] = q.String()
			}
		}
	}
	if q, ok := quota[corev1.ResourcePods]; ok {
		room[corev1.ResourcePods] = q.String()
	}
	return room
}
