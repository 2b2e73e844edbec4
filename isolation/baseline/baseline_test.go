package baseline_test

import (
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/client-go/kubernetes/scheme"

	"sublet.dev/api/v1alpha1"
	"sublet.dev/isolation/baseline"
	"sublet.dev/isolation/tenant"
)

func acme(s tenant.Sandbox) tenant.Tenant {
	id := tenant.ID("0d9f2c1e-1111-2222-3333-444455556666")
	return tenant.Tenant{ID: id, Name: "acme", HostNamespace: tenant.HostNamespace("acme", id), Sandbox: s,
		ServiceCIDR: netip.MustParsePrefix("10.96.4.0/22")}
}

// Whoever applies the objects needs their kind; whoever deletes a tenant finds
// them by its mark.
func TestObjectsSayWhatTheyAre(t *testing.T) {
	tn := acme(tenant.GVisor)
	for _, o := range slices.Concat(baseline.Host(), baseline.Cell("cell-0"), baseline.Tenant(tn, "cell-0", v1alpha1.PlanSpec{})) {
		gvks, _, err := scheme.Scheme.ObjectKinds(o)
		if err != nil || o.GetObjectKind().GroupVersionKind() != gvks[0] {
			t.Errorf("%T %s says it is %v, want %v (%v)", o, o.GetName(), o.GetObjectKind().GroupVersionKind(), gvks, err)
		}
		if o.GetLabels()[tenant.LabelManagedBy] != tenant.ManagedByManager {
			t.Errorf("%T %s: no one manages it", o, o.GetName())
		}
	}
	for _, o := range baseline.Tenant(tn, "cell-0", v1alpha1.PlanSpec{}) {
		if o.GetLabels()[tenant.LabelTenant] != string(tn.ID) {
			t.Errorf("%T %s has not the tenant's mark", o, o.GetName())
		}
		_, cluster := o.(*rbacv1.ClusterRole) // where no object of a tenant's goes
		for k := range o.GetAnnotations() {   // an audit takes others for something that the tenant chose
			if !cluster && strings.HasPrefix(k, tenant.Domain+"/") && !tenant.IsKey(k) {
				t.Errorf("%T %s has the annotation %s, which is not among the keys that we write", o, o.GetName(), k)
			}
		}
		if ns := o.GetNamespace(); ns != "" && ns != tn.HostNamespace {
			t.Errorf("%T %s is in namespace %s", o, o.GetName(), ns)
		}
	}
}

func TestNamespaceLevel(t *testing.T) {
	for s, want := range map[tenant.Sandbox]string{tenant.GVisor: "baseline", tenant.RuncUserNS: "restricted"} {
		if got := baseline.Namespace(acme(s)).Labels["pod-security.kubernetes.io/enforce"]; got != want {
			t.Errorf("%s: Pod Security %q, want %q", s, got, want)
		}
	}
}

// The identities of a tenant get no right beyond its namespace, and none to widen
// theirs. Its cell may act as the tenant's identity, and as nobody else. No binding
// is without a namespace: those cost every request of the host.
func TestRights(t *testing.T) {
	tn := acme(tenant.GVisor)
	for _, o := range baseline.Tenant(tn, "cell-0", v1alpha1.PlanSpec{}) {
		switch o := o.(type) {
		case *rbacv1.Role:
			if o.Name == "sublet-act" {
				if !reflect.DeepEqual(o.Rules, []rbacv1.PolicyRule{{APIGroups: []string{""}, Resources: []string{"serviceaccounts"}, ResourceNames: []string{"sublet-writer"}, Verbs: []string{"impersonate"}}}) {
					t.Errorf("Role %s grants %v", o.Name, o.Rules)
				}
				continue
			}
			for _, r := range o.Rules {
				for _, word := range slices.Concat(r.Verbs, r.APIGroups, r.Resources) {
					if slices.Contains([]string{"*", "impersonate", "bind", "escalate", "roles", "rolebindings", "namespaces", "pods/binding", "serviceaccounts", "serviceaccounts/token", "resourcequotas"}, word) {
						t.Errorf("Role %s grants %q", o.Name, word)
					}
				}
			}
		case *rbacv1.RoleBinding:
			want := rbacv1.Subject{APIGroup: rbacv1.GroupName, Kind: "User", Name: tenant.CellUser("cell-0")}
			if o.Name == "sublet-write" {
				want = rbacv1.Subject{Kind: "ServiceAccount", Namespace: tn.HostNamespace, Name: "sublet-writer"}
			}
			if len(o.Subjects) != 1 || o.Subjects[0] != want {
				t.Errorf("RoleBinding %s is for %v, want %v", o.Name, o.Subjects, want)
			}
		case *rbacv1.ClusterRole:
			if o.Name != baseline.ShowAll(tn) || len(o.Rules) != 0 { // see TestCustomRights
				t.Errorf("ClusterRole %s grants %v", o.Name, o.Rules)
			}
		case *rbacv1.ClusterRoleBinding, *corev1.ServiceAccount:
			if o.GetName() != "default" {
				t.Errorf("%T %s is made", o, o.GetName())
			}
		}
	}
}

// A rule for custom resources gives rights to its kind alone: to the tenant in its
// namespace, or to its cell to read where the rule says. One for a kind of Kubernetes
// gives none.
func TestCustomRights(t *testing.T) {
	tn := acme(tenant.GVisor)
	rule := func(group, resource, direction string, s *v1alpha1.HostSelection) v1alpha1.CustomResourceRule {
		return v1alpha1.CustomResourceRule{Group: group, Version: "v1", Kind: "K", Resource: resource, Direction: direction, Select: s}
	}
	three := int32(3)
	p := v1alpha1.PlanSpec{CustomResources: []v1alpha1.CustomResourceRule{
		rule("example.org", "things", v1alpha1.ToHost, nil), rule("example.org", "offers", v1alpha1.FromHost, &v1alpha1.HostSelection{Namespace: "catalogue"}),
		rule("example.org", "globals", v1alpha1.FromHost, &v1alpha1.HostSelection{}),
		rule("rbac.authorization.k8s.io", "roles", v1alpha1.ToHost, nil), rule("", "secrets", v1alpha1.FromHost, &v1alpha1.HostSelection{Namespace: "kube-system"}),
	}}
	p.CustomResources[0].Max = &three
	bound := 0
	got := map[string][]string{}
	for _, o := range baseline.Tenant(tn, "cell-0", p) {
		var rules []rbacv1.PolicyRule
		switch o := o.(type) {
		case *rbacv1.Role:
			rules = o.Rules
		case *rbacv1.ClusterRole:
			rules = o.Rules
			if o.Name == baseline.ShowAll(tn) && !slices.Equal(baseline.ShownIn(o), []string{"catalogue"}) {
				t.Errorf("the record of namespaces says %v", baseline.ShownIn(o))
			}
		case *rbacv1.RoleBinding:
			if want := map[bool]string{true: tenant.Writer, false: tenant.CellUser("cell-0")}[o.Name == "sublet-write"]; o.Subjects[0].Name != want {
				t.Errorf("RoleBinding %s/%s is for %v", o.Namespace, o.Name, o.Subjects)
			}
		case *rbacv1.ClusterRoleBinding:
			if o.Name != baseline.ShowAll(tn) || o.RoleRef.Name != o.Name || o.Subjects[0].Name != tenant.CellUser("cell-0") {
				t.Errorf("ClusterRoleBinding %s of %s is for %v", o.Name, o.RoleRef.Name, o.Subjects)
			}
			bound++
		}
		for _, r := range rules {
			if r.APIGroups[0] == "example.org" || slices.Contains(r.Resources, "roles") {
				at := o.GetNamespace() + ":" + strings.Join(r.Resources, ",")
				got[at] = append(got[at], strings.Join(r.Verbs, " "))
			}
		}
	}
	if bound != 1 {
		t.Errorf("%d cluster role bindings with a rule for a kind without a namespace", bound)
	}
	want := map[string][]string{
		tn.HostNamespace + ":things": {"get list watch create update patch delete", "get list watch"},
		"catalogue:offers":           {"get list watch"}, ":globals": {"get list watch"},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("rights %v, want %v", got, want)
	}
	hard := limitsOf(t, tn, p)
	if n := hard["count/things.example.org"]; n.Value() != 3 || len(hard) != len(limitsOf(t, tn, v1alpha1.PlanSpec{}))+1 {
		t.Errorf("quota %v", hard)
	}
}

// A plan that offers snapshots gives rights to snapshots and to read their classes,
// and none to what lies on the storage. A rule of the plan's own for them gives none.
func TestSnapshotRights(t *testing.T) {
	tn := acme(tenant.GVisor)
	own := v1alpha1.PlanSpec{CustomResources: []v1alpha1.CustomResourceRule{
		{Group: "snapshot.storage.k8s.io", Version: "v1", Kind: "VolumeSnapshot", Resource: "volumesnapshots", Direction: v1alpha1.ToHost},
		{Group: "snapshot.storage.k8s.io", Version: "v1", Kind: "VolumeSnapshotContent", Resource: "volumesnapshotcontents", Direction: v1alpha1.ToHost}}}
	offered := v1alpha1.PlanSpec{SnapshotClasses: []string{"fast"}, CustomResources: own.CustomResources}
	rights := func(p v1alpha1.PlanSpec) []string {
		var got []string
		add := func(at string, rules []rbacv1.PolicyRule) {
			for _, r := range rules {
				if r.APIGroups[0] == "snapshot.storage.k8s.io" {
					got = append(got, at+":"+strings.Join(r.Resources, ",")+":"+r.Verbs[len(r.Verbs)-1])
				}
			}
		}
		for _, o := range baseline.Tenant(tn, "cell-0", p) {
			switch o := o.(type) {
			case *rbacv1.Role:
				add(o.Name, o.Rules)
			case *rbacv1.ClusterRole:
				add(o.Name, o.Rules)
			}
		}
		return got
	}
	want := []string{"sublet-write:volumesnapshots:delete", "sublet-read:volumesnapshots:watch", baseline.ShowAll(tn) + ":volumesnapshotclasses:watch"}
	if got := rights(offered); !slices.Equal(got, want) {
		t.Errorf("rights %v, want %v", got, want)
	}
	if got := rights(own); len(got) > 0 {
		t.Errorf("rules of the plan's own give %v", got)
	}
	if n := limitsOf(t, tn, offered)["count/volumesnapshots.snapshot.storage.k8s.io"]; n.Value() != 100 {
		t.Errorf("quota %v", n)
	}
}

// limitsOf is what all quotas of a tenant limit. Each limits something, and none what
// another does.
func limitsOf(t *testing.T, tn tenant.Tenant, p v1alpha1.PlanSpec) corev1.ResourceList {
	t.Helper()
	all, names := corev1.ResourceList{}, map[string]bool{}
	for _, q := range baseline.Quotas(tn, p) {
		if names[q.Name] || len(q.Spec.Hard) == 0 || q.Namespace != tn.HostNamespace {
			t.Errorf("quota %s/%s: %v", q.Namespace, q.Name, q.Spec)
		}
		names[q.Name] = true
		for name, n := range q.Spec.Hard {
			if _, twice := all[name]; twice {
				t.Errorf("two quotas limit %s", name)
			}
			all[name] = n
		}
	}
	return all
}

// What a pod uses up, with the Secret of its tokens, is in one quota, and that is small: each
// pod writes it.
func TestPodsAreCountedInOneQuota(t *testing.T) {
	quantity := resource.MustParse
	plan := v1alpha1.PlanSpec{StorageClasses: []string{"local"}, HostResources: corev1.ResourceList{
		"requests.cpu": quantity("2"), "limits.memory": quantity("2"), "cpu": quantity("2"), "requests.ephemeral-storage": quantity("2"), "count/pods": quantity("2"), "count/secrets": quantity("2"),
		"requests.storage": quantity("2"), "local.storageclass.storage.k8s.io/requests.storage": quantity("2")}}
	got := map[string]corev1.ResourceList{}
	for _, q := range baseline.Quotas(acme(tenant.GVisor), plan) {
		got[q.Name] = q.Spec.Hard
	}
	for quota, want := range map[string][]corev1.ResourceName{
		"sublet-pods": {"pods", "count/pods", "requests.cpu", "limits.memory", "cpu", "requests.ephemeral-storage", "secrets", "count/secrets"},
	} {
		for _, name := range want {
			if _, ok := got[quota][name]; !ok {
				t.Errorf("%s does not limit %s", quota, name)
			}
		}
		if len(got[quota]) != len(want) {
			t.Errorf("%s: %v", quota, got[quota])
		}
	}
	if len(got) != 2 || len(got["sublet"]) < 10 {
		t.Errorf("quotas %v", got)
	}
}

func TestQuota(t *testing.T) {
	quantity := resource.MustParse
	want := corev1.ResourceList{"pods": quantity("250"), "services": quantity("500"), "configmaps": quantity("1000"), "secrets": quantity("1000"),
		"count/endpointslices.discovery.k8s.io": quantity("1000"), "count/networkpolicies.networking.k8s.io": quantity("1000"), "services.loadbalancers": quantity("0"), "services.nodeports": quantity("0"), "count/ingresses.networking.k8s.io": quantity("0"),
		"persistentvolumeclaims": quantity("0"), "requests.storage": quantity("0")}
	for name, c := range map[string]struct {
		plan   v1alpha1.PlanSpec
		change func(corev1.ResourceList)
	}{
		"nothing said": {v1alpha1.PlanSpec{}, func(corev1.ResourceList) {}},
		"pods and compute": {v1alpha1.PlanSpec{HostResources: corev1.ResourceList{"pods": quantity("3"), "limits.cpu": quantity("2")}},
			func(w corev1.ResourceList) { w["pods"], w["limits.cpu"] = quantity("3"), quantity("2") }},
		"less than nothing": {v1alpha1.PlanSpec{HostResources: corev1.ResourceList{"pods": quantity("-3")}}, func(w corev1.ResourceList) { w["pods"] = quantity("0") }},
		"storage": {v1alpha1.PlanSpec{StorageClasses: []string{"local"}}, func(w corev1.ResourceList) {
			w["persistentvolumeclaims"], w["requests.storage"] = quantity("50"), quantity("20Gi")
		}},
		"node ports":     {v1alpha1.PlanSpec{NodePorts: 2}, func(w corev1.ResourceList) { w["services.nodeports"] = quantity("2") }},
		"ingress":        {v1alpha1.PlanSpec{Ingress: v1alpha1.IngressTerms{Classes: []string{"nginx"}}}, func(w corev1.ResourceList) { w["count/ingresses.networking.k8s.io"] = quantity("200") }},
		"load balancers": {v1alpha1.PlanSpec{LoadBalancers: v1alpha1.LoadBalancerTerms{Count: 3}}, func(w corev1.ResourceList) { w["services.loadbalancers"] = quantity("3") }},
	} {
		want := want.DeepCopy()
		c.change(want)
		if got := limitsOf(t, acme(tenant.GVisor), c.plan); !equality.Semantic.DeepEqual(got, want) {
			t.Errorf("%s: %v, want %v", name, got, want)
		}
	}
}
