package baseline

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"sublet.dev/isolation/policy"
	"sublet.dev/isolation/tenant"
)

// Tenant returns the host objects of a tenant whose control plane runs in a
// cell, in the order in which to create them; delete them in the opposite one.
// The caller owns them.
func Tenant(t tenant.Tenant, cell string) []Object {
	objects := []Object{Namespace(t), ServiceAccount(t), Quota(t)}
	return append(objects, tenantRights(t, cell)...)
}

// Namespace returns the one host namespace of a tenant. Its labels are the
// provider's: no identity of the tenant's may write it.
func Namespace(t tenant.Tenant) *corev1.Namespace {
	ns := &corev1.Namespace{TypeMeta: typeMeta("v1", "Namespace"), ObjectMeta: meta(t, "", t.HostNamespace)}
	ns.Labels[tenant.LabelSandbox] = string(t.Sandbox)
	ns.Labels["pod-security.kubernetes.io/enforce"] = string(policy.LevelFor(t.Sandbox))
	ns.Labels["pod-security.kubernetes.io/enforce-version"] = "latest"
	return ns
}

// ServiceAccount returns the host service account that all pods of a tenant have:
// it has no rights, and its token is not mounted.
func ServiceAccount(t tenant.Tenant) *corev1.ServiceAccount {
	no := false
	return &corev1.ServiceAccount{
		TypeMeta:                     typeMeta("v1", "ServiceAccount"),
		ObjectMeta:                   meta(t, t.HostNamespace, "default"),
		AutomountServiceAccountToken: &no,
	}
}

// limits is how many objects of each kind a tenant may have on the host. They
// bound what a tenant costs the host's store and its agents; a /22 has addresses
// for 1022 services. Compute is not limited here: such a quota would refuse every
// pod without requests, and defaulting them (LimitRange) would make the host pod
// differ from what the syncer wrote.
var limits = map[corev1.ResourceName]string{
	corev1.ResourcePods:                     "250",
	corev1.ResourceServices:                 "500",
	corev1.ResourceServicesNodePorts:        "0",
	corev1.ResourceServicesLoadBalancers:    "0",
	corev1.ResourceConfigMaps:               "1000",
	corev1.ResourceSecrets:                  "1000",
	corev1.ResourcePersistentVolumeClaims:   "0",
	"count/endpointslices.discovery.k8s.io": "1000",
}

// Quota returns what a tenant may use up on the host.
func Quota(t tenant.Tenant) *corev1.ResourceQuota {
	hard := corev1.ResourceList{}
	for name, n := range limits {
		hard[name] = resource.MustParse(n)
	}
	return &corev1.ResourceQuota{
		TypeMeta:   typeMeta("v1", "ResourceQuota"),
		ObjectMeta: meta(t, t.HostNamespace, "sublet"),
		Spec:       corev1.ResourceQuotaSpec{Hard: hard},
	}
}
