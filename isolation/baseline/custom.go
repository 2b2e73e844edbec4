package baseline

import (
	"slices"
	"strings"

	rbacv1 "k8s.io/api/rbac/v1"

	"sublet.dev/api/v1alpha1"
	"sublet.dev/isolation/policy"
	"sublet.dev/isolation/tenant"
)

// mostByDefault is how many objects of a custom kind a tenant may have on the host
// when its plan does not say.
const mostByDefault = 100

func most(r v1alpha1.CustomResourceRule) int32 {
	if r.Max == nil {
		return mostByDefault
	}
	return max(*r.Max, 0)
}

// CustomResources returns the rules of a plan for custom resources, and those that it
// has because it offers snapshots or gateways. The caller owns the list.
func CustomResources(p v1alpha1.PlanSpec) []v1alpha1.CustomResourceRule {
	own := slices.DeleteFunc(slices.Clone(p.CustomResources), func(r v1alpha1.CustomResourceRule) bool {
		return r.Group == policy.SnapshotGroup || r.Group == policy.GatewayGroup
	})
	return slices.Concat(own, snapshotRules(p), gatewayRules(p))
}

// customRules are the rights to a tenant's objects of custom kinds. A kind that is
// Kubernetes' own gets none, whatever a plan says; neither does a status.
func customRules(rules []v1alpha1.CustomResourceRule, verbs []string) []rbacv1.PolicyRule {
	var rights []rbacv1.PolicyRule
	for _, r := range rules {
		if r.Direction == v1alpha1.ToHost && policy.MayCross(r.Group, r.Resource) {
			rights = append(rights, rule(r.Group, verbs, r.Resource))
		}
	}
	return rights
}

// annotationShown, on the ClusterRole called ShowAll, holds the namespaces of the host,
// with commas between them, in which there are Roles called ShowIn.
const annotationShown = tenant.Domain + "/shown-in"

// ShowAll names the ClusterRole with which a tenant's cell reads what the tenant is
// shown of kinds without a namespace.
func ShowAll(t tenant.Tenant) string { return "sublet:tenant:" + string(t.ID) + ":show" }

// ShowIn names the Role, and its binding, with which it reads in a namespace.
func ShowIn(t tenant.Tenant) string { return roleShow + t.ID.Short() }

// ShownIn lists the namespaces in which there may be such Roles, by the ClusterRole.
func ShownIn(all *rbacv1.ClusterRole) []string {
	return strings.FieldsFunc(all.Annotations[annotationShown], func(c rune) bool { return c == ',' })
}

// showRights are a cell's rights to read what a tenant is shown of the host: in the
// namespaces of its plan's rules, or of kinds without a namespace. The ClusterRole is
// there without rules, too: it says where there are Roles. Its binding is there with
// rules only, for the reason that tenant.Writer gives.
func showRights(t tenant.Tenant, rules []v1alpha1.CustomResourceRule, reader rbacv1.Subject) []Object {
	all := &rbacv1.ClusterRole{TypeMeta: typeMeta(rbacV1, "ClusterRole"), ObjectMeta: meta(t, "", ShowAll(t)), Rules: []rbacv1.PolicyRule{}}
	byNamespace := map[string][]rbacv1.PolicyRule{}
	var namespaces []string
	for _, r := range rules {
		if r.Direction != v1alpha1.FromHost || r.Select == nil || !policy.MayCross(r.Group, r.Resource) {
			continue
		}
		right := rule(r.Group, read, r.Resource)
		if r.Select.Namespace == "" {
			all.Rules = append(all.Rules, right)
			continue
		}
		if byNamespace[r.Select.Namespace] == nil {
			namespaces = append(namespaces, r.Select.Namespace)
		}
		byNamespace[r.Select.Namespace] = append(byNamespace[r.Select.Namespace], right)
	}
	all.Annotations = map[string]string{annotationShown: strings.Join(namespaces, ",")}
	objects := []Object{all}
	if len(all.Rules) > 0 {
		objects = append(objects, &rbacv1.ClusterRoleBinding{
			TypeMeta: typeMeta(rbacV1, "ClusterRoleBinding"), ObjectMeta: meta(t, "", all.Name),
			RoleRef:  rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: all.Name},
			Subjects: []rbacv1.Subject{reader},
		})
	}
	for _, namespace := range namespaces {
		name := ShowIn(t)
		r, b := role(t, name, byNamespace[namespace]), roleBinding(t, name, reader)
		r.Namespace, b.Namespace = namespace, namespace
		objects = append(objects, r, b)
	}
	return objects
}
