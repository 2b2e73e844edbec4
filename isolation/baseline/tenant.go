package baseline

import (
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"sublet.dev/api/v1alpha1"
	"sublet.dev/isolation/policy"
	"sublet.dev/isolation/tenant"
)

// Tenant returns the host objects of a tenant of a plan whose control plane runs in
// a cell, in the order in which to create them; delete them in the opposite one.
// The caller owns them.
func Tenant(t tenant.Tenant, cell string, p v1alpha1.PlanSpec) []Object {
	ns := Namespace(t)
	ns.Annotations = map[string]string{
		tenant.AnnotationStorageClasses:      strings.Join(p.StorageClasses, ","),
		tenant.AnnotationSnapshotClasses:     strings.Join(p.SnapshotClasses, ","),
		tenant.AnnotationLoadBalancerClasses: strings.Join(p.LoadBalancers.Classes, ","),
		tenant.AnnotationIngressClasses:      strings.Join(p.Ingress.Classes, ","),
		tenant.AnnotationGatewayClasses:      strings.Join(p.Ingress.GatewayClasses, ","),
		tenant.AnnotationForced:              forced(p),
		tenant.AnnotationTolerations:         tolerable(p),
		tenant.AnnotationCSIDrivers:          strings.Join(p.CSIDrivers, ","),
		tenant.AnnotationImageRegistries:     strings.Join(p.ImageRegistries, ","),
		tenant.AnnotationPriorityClasses:     strings.Join(p.PriorityClasses, ","),
	}
	objects := []Object{ns, ServiceAccount(t)}
	for _, q := range Quotas(t, p) {
		objects = append(objects, q)
	}
	return append(objects, tenantRights(t, cell, p)...)
}

// forced lists the annotations that a plan puts on host objects.
func forced(p v1alpha1.PlanSpec) string {
	var lines []string
	for _, annotations := range []map[string]string{p.LoadBalancers.Annotations, p.Ingress.Annotations} {
		for k, v := range annotations {
			lines = append(lines, k+"="+v)
		}
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

// Tolerations returns the taints that a plan's pods may tolerate.
func Tolerations(p v1alpha1.PlanSpec) []policy.Taint {
	var taints []policy.Taint
	for _, t := range p.Tolerations {
		taints = append(taints, policy.Taint{Key: t.Key, Value: t.Value, Effect: t.Effect})
	}
	return taints
}

// tolerable lists the taints that a plan's pods may tolerate.
func tolerable(p v1alpha1.PlanSpec) string {
	var list []string
	for _, t := range Tolerations(p) {
		list = append(list, t.String())
	}
	return strings.Join(list, ",")
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
