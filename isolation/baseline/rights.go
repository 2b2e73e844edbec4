package baseline

import (
	rbacv1 "k8s.io/api/rbac/v1"

	"sublet.dev/api/v1alpha1"
	"sublet.dev/isolation/tenant"
)

const (
	rbacV1 = "rbac.authorization.k8s.io/v1"
	// roleWrite, roleRead and roleAct name the Roles in a tenant's host namespace: of the
	// tenant's identity, and of its cell, to read and to act as that identity.
	roleWrite = "sublet-write"
	roleRead  = "sublet-read"
	roleAct   = "sublet-act"
	// roleShow names the Roles, in other namespaces of the host, with which a tenant's
	// cell reads what the tenant is shown of them.
	roleShow = "sublet-show-"
	// cellRole names the ClusterRole that all cells have.
	cellRole = "sublet:cell"
)

var (
	read  = []string{"get", "list", "watch"}
	write = []string{"get", "list", "watch", "create", "update", "patch", "delete"}
)

func rule(group string, verbs []string, resources ...string) rbacv1.PolicyRule {
	return rbacv1.PolicyRule{APIGroups: []string{group}, Resources: resources, Verbs: verbs}
}

// writeRules are what the syncer of a tenant does on the host: the kinds it
// mirrors, and the streams of its pods. There is no right to bind pods to nodes,
// to write a status, or over the namespace, roles, quotas and service accounts.
func writeRules() []rbacv1.PolicyRule {
	return []rbacv1.PolicyRule{
		rule("", write, "pods", "services", "configmaps", "secrets", "persistentvolumeclaims"),
		rule("", []string{"get", "update", "patch"}, "pods/ephemeralcontainers", "pods/resize"),
		rule("", []string{"create"}, "pods/eviction"),
		rule("", []string{"get"}, "pods/log", "pods/status"),
		// WebSocket clients are judged by "create" too since Kubernetes 1.35.
		rule("", []string{"get", "create"}, "pods/exec", "pods/attach", "pods/portforward"),
		rule("discovery.k8s.io", write, "endpointslices"),
		rule("networking.k8s.io", write, "networkpolicies", "ingresses"),
		rule("", read, "events"),
		rule("events.k8s.io", read, "events"),
		rule("metrics.k8s.io", []string{"get", "list"}, "pods"),
	}
}

// readRules are what a cell's shared informers see in each of its tenants' host
// namespaces.
func readRules() []rbacv1.PolicyRule {
	return []rbacv1.PolicyRule{
		rule("", read, "pods", "services", "configmaps", "secrets", "persistentvolumeclaims", "events"),
		rule("discovery.k8s.io", read, "endpointslices"),
		rule("networking.k8s.io", read, "networkpolicies", "ingresses"),
		rule("events.k8s.io", read, "events"),
	}
}

// ActRule is a cell's right to act as the write identity of the tenant whose host
// namespace it is in, and as nobody else.
func ActRule() rbacv1.PolicyRule {
	return rbacv1.PolicyRule{APIGroups: []string{""}, Resources: []string{"serviceaccounts"}, Verbs: []string{"impersonate"}, ResourceNames: []string{tenant.Writer}}
}

// tenantRights returns the rights of a tenant's identity, and those of its cell to read
// and to act as that identity: in the tenant's host namespace, but for what the tenant
// is shown of the host.
func tenantRights(t tenant.Tenant, cell string, p v1alpha1.PlanSpec) []Object {
	writer := rbacv1.Subject{Kind: rbacv1.ServiceAccountKind, Namespace: t.HostNamespace, Name: tenant.Writer}
	reader := user(tenant.CellUser(cell))
	custom := CustomResources(p)
	objects := []Object{
		role(t, roleWrite, append(writeRules(), customRules(custom, write)...)), roleBinding(t, roleWrite, writer),
		role(t, roleRead, append(readRules(), customRules(custom, read)...)), roleBinding(t, roleRead, reader),
		role(t, roleAct, []rbacv1.PolicyRule{ActRule()}), roleBinding(t, roleAct, reader),
	}
	return append(objects, showRights(t, custom, reader)...)
}

func role(t tenant.Tenant, name string, rules []rbacv1.PolicyRule) *rbacv1.Role {
	return &rbacv1.Role{TypeMeta: typeMeta(rbacV1, "Role"), ObjectMeta: meta(t, t.HostNamespace, name), Rules: rules}
}

func roleBinding(t tenant.Tenant, name string, subject rbacv1.Subject) *rbacv1.RoleBinding {
	return &rbacv1.RoleBinding{
		TypeMeta:   typeMeta(rbacV1, "RoleBinding"),
		ObjectMeta: meta(t, t.HostNamespace, name),
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: name},
		Subjects:   []rbacv1.Subject{subject},
	}
}

func user(name string) rbacv1.Subject {
	return rbacv1.Subject{APIGroup: rbacv1.GroupName, Kind: rbacv1.UserKind, Name: name}
}

// Cell returns the host objects that give a cell what it needs beside its
// tenants' namespaces: to read the nodes, storage, priority and ingress classes, of which its
// tenants get masked views, and the definitions of custom resources.
func Cell(cell string) []Object {
	return []Object{
		&rbacv1.ClusterRole{
			TypeMeta:   typeMeta(rbacV1, "ClusterRole"),
			ObjectMeta: hostMeta(cellRole),
			Rules: []rbacv1.PolicyRule{rule("", read, "nodes"), rule("storage.k8s.io", read, "storageclasses"), rule("scheduling.k8s.io", read, "priorityclasses"), rule("networking.k8s.io", read, "ingressclasses"),
				rule("apiextensions.k8s.io", read, "customresourcedefinitions")},
		},
		&rbacv1.ClusterRoleBinding{
			TypeMeta:   typeMeta(rbacV1, "ClusterRoleBinding"),
			ObjectMeta: hostMeta(tenant.CellUser(cell)),
			RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: cellRole},
			Subjects:   []rbacv1.Subject{user(tenant.CellUser(cell))},
		},
	}
}
