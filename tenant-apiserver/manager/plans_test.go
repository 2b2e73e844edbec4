package manager_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"sublet.dev/api/v1alpha1"
	"sublet.dev/isolation/baseline"
	"sublet.dev/isolation/tenant"
	"sublet.dev/tenant-apiserver/manager"
	"sublet.dev/tenant-apiserver/plan"
)

func ptr[T any](v T) *T { return &v }

// planValidation wants plans that mean nothing to be refused, each with what is
// wrong; the same plan without that is accepted.
func (h *host) planValidation(t *testing.T) {
	quantity := func(s string) *resource.Quantity { return ptr(resource.MustParse(s)) }
	duration := func(d time.Duration) *metav1.Duration { return &metav1.Duration{Duration: d} }
	for says, change := range map[string]func(*v1alpha1.Plan){
		"a plan's name is a DNS-1123 label":      func(p *v1alpha1.Plan) { p.Name = "a.b" },
		"spec.sandboxes":                         func(p *v1alpha1.Plan) { p.Spec.Sandboxes = []string{"docker"} },
		"idleAfter is between":                   func(p *v1alpha1.Plan) { p.Spec.IdleAfter = duration(-time.Second) },
		"storeQuota is at least 16Mi":            func(p *v1alpha1.Plan) { p.Spec.StoreQuota = quantity("1Mi") },
		"hostResources knows":                    func(p *v1alpha1.Plan) { p.Spec.HostResources = corev1.ResourceList{"widgets": *quantity("1")} },
		"spec.nodePorts":                         func(p *v1alpha1.Plan) { p.Spec.NodePorts = -1 },
		"spec.objects.total":                     func(p *v1alpha1.Plan) { p.Spec.Objects.Total = 1 },
		"a limit is at least 0":                  func(p *v1alpha1.Plan) { p.Spec.Objects.Resources = map[string]int64{"pods": -1} },
		"spec.objects.customResourceDefinitions": func(p *v1alpha1.Plan) { p.Spec.Objects.CustomResourceDefinitions = ptr[int64](-1) },
		"size is between 64Ki and 1536Ki":        func(p *v1alpha1.Plan) { p.Spec.Objects.Size = quantity("1Gi") },
		"spec.requests.concurrent":               func(p *v1alpha1.Plan) { p.Spec.Requests.Concurrent = 1 },
		"spec.requests.streams":                  func(p *v1alpha1.Plan) { p.Spec.Requests.Streams = 1 },
		"lifetime is at most maxLifetime":        func(p *v1alpha1.Plan) { p.Spec.Credentials.MaxLifetime = duration(time.Hour) },
		"lifetime is at least 1s":                func(p *v1alpha1.Plan) { p.Spec.Credentials.Lifetime = duration(0) },
		"maxLifetime is at most 87600h":          func(p *v1alpha1.Plan) { p.Spec.Credentials.MaxLifetime = duration(100000 * time.Hour) },
		"spec.audit":                             func(p *v1alpha1.Plan) { p.Spec.Audit = "Everything" },
	} {
		p := &v1alpha1.Plan{ObjectMeta: metav1.ObjectMeta{Name: "good"}}
		if err := h.api.Create(t.Context(), p.DeepCopy(), client.DryRunAll); err != nil {
			t.Fatalf("the plan without a mistake: %v", err)
		}
		change(p)
		err := h.api.Create(t.Context(), p, client.DryRunAll)
		if !apierrors.IsInvalid(err) || !strings.Contains(err.Error(), says) {
			t.Errorf("want a refusal that says %q: %v", says, err)
		}
	}
	empty := &v1alpha1.Plan{ObjectMeta: metav1.ObjectMeta{Name: "empty"}}
	if err := h.api.Create(t.Context(), empty, client.DryRunAll); err != nil {
		t.Fatal(err)
	}
	// The schema's defaults are those of the pure function.
	if got, want := plan.For(empty), plan.For(&v1alpha1.Plan{ObjectMeta: empty.ObjectMeta}); !got.Equal(want) {
		t.Errorf("the API makes of an empty plan %+v, package plan %+v", got, want)
	}
	for _, p := range plan.BuiltIn() {
		p.Name += "-copy"
		if err := h.api.Create(t.Context(), p, client.DryRunAll); err != nil {
			t.Error(err)
		}
	}
}

// changedPlan gives a another plan and changes that one, and wants the quota to
// follow, and nobody to be able to delete it. Then it takes it away again.
func (h *host) changedPlan(t *testing.T, a *v1alpha1.VirtualCluster) {
	own := &v1alpha1.Plan{ObjectMeta: metav1.ObjectMeta{Name: "own"}, Spec: v1alpha1.PlanSpec{
		Sandboxes: []string{"gvisor"}, HostResources: corev1.ResourceList{"pods": resource.MustParse("3"), "requests.cpu": resource.MustParse("2")}}}
	if err := h.api.Create(t.Context(), own); err != nil {
		t.Fatal(err)
	}
	before := metav1.ObjectMeta{Name: "sublet:tenant:" + string(a.UID), Labels: map[string]string{tenant.LabelTenant: string(a.UID)}}
	for _, o := range []client.Object{
		&rbacv1.ClusterRole{ObjectMeta: before},
		&rbacv1.ClusterRoleBinding{ObjectMeta: before, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: before.Name}},
	} {
		if err := h.api.Create(t.Context(), o); err != nil { // what tenants of earlier versions had
			t.Fatal(err)
		}
	}
	h.setPlan(t, a.Name, own.Name)
	h.wantQuotas(a, own.Spec)
	h.wantShown(t, a)

	own.Spec.SnapshotClasses = []string{"fast"} // a kind without a namespace
	own.Spec.CustomResources = []v1alpha1.CustomResourceRule{{Group: "example.org", Version: "v1", Kind: "Offer", Resource: "offers",
		Direction: v1alpha1.FromHost, Select: &v1alpha1.HostSelection{Namespace: "default", Names: []string{"gold"}}}}
	if err := h.api.Update(t.Context(), own); err != nil {
		t.Fatal(err)
	}
	shown := tenant.Tenant{ID: tenant.ID(a.UID)}
	h.wantShown(t, a, "/"+baseline.ShowAll(shown), "default/"+baseline.ShowIn(shown))
	if err := h.api.Get(t.Context(), client.ObjectKey{Name: before.Name}, &rbacv1.ClusterRole{}); !apierrors.IsNotFound(err) {
		t.Errorf("the role of an earlier version: %v", err)
	}
	own.Spec.SnapshotClasses, own.Spec.CustomResources = nil, nil
	if err := h.api.Update(t.Context(), own); err != nil {
		t.Fatal(err)
	}
	h.wantShown(t, a)

	own.Spec.HostResources["pods"] = resource.MustParse("4")
	if err := h.api.Update(t.Context(), own); err != nil {
		t.Fatal(err)
	}
	h.wantQuotas(a, own.Spec)

	h.eventually("a plan in use cannot be deleted", func() error { // admission learns of tenants by watching them
		err := h.api.Delete(t.Context(), own, client.DryRunAll)
		if !apierrors.IsInvalid(err) && !apierrors.IsForbidden(err) || !strings.Contains(err.Error(), "the plan own is that of the tenant a") {
			return fmt.Errorf("the answer is %w", err)
		}
		return nil
	})
	if err := h.api.Delete(t.Context(), own); err == nil {
		t.Error("a plan in use was deleted")
	}
	own.Spec.Sandboxes = []string{"runc-userns"}
	if err := h.api.Update(t.Context(), own); err != nil {
		t.Fatal(err)
	}
	h.wantApplied(a, metav1.ConditionFalse, "SandboxNotInPlan")

	h.earlierQuota(a)
	h.setPlan(t, a.Name, "nothing")
	h.awaitPhase(a.Name, v1alpha1.PhaseFailed)
	h.setPlan(t, a.Name, v1alpha1.DefaultPlan)
	h.awaitPhase(a.Name, v1alpha1.PhaseReady)
	h.wantApplied(a, metav1.ConditionTrue, "Applied")
	normal := &v1alpha1.Plan{}
	if err := h.api.Get(t.Context(), client.ObjectKey{Name: v1alpha1.DefaultPlan}, normal); err != nil {
		t.Fatal(err)
	}
	h.wantQuotas(a, normal.Spec)
	h.eventually("a plan that nobody has is deleted", func() error { return h.api.Delete(t.Context(), own) })

	changed := &v1alpha1.Plan{}
	if err := h.api.Get(t.Context(), client.ObjectKey{Name: "medium"}, changed); err != nil {
		t.Fatal(err)
	}
	changed.Spec.NodePorts = 7
	if err := h.api.Update(t.Context(), changed); err != nil {
		t.Fatal(err)
	}
	if err := manager.EnsurePlans(t.Context(), h.api); err != nil {
		t.Fatal(err)
	}
	if err := h.api.Get(t.Context(), client.ObjectKey{Name: "medium"}, changed); err != nil || changed.Spec.NodePorts != 7 {
		t.Errorf("what the provider changed did not stay: %+v, %v", changed.Spec, err)
	}
}

func (h *host) setPlan(t *testing.T, tenant, plan string) {
	t.Helper()
	h.eventually("the tenant has another plan", func() error {
		vc := &v1alpha1.VirtualCluster{}
		if err := h.api.Get(t.Context(), client.ObjectKey{Name: tenant}, vc); err != nil {
			return err
		}
		vc.Spec.Plan = plan
		return h.api.Update(t.Context(), vc)
	})
}

// wantShown waits until the bindings of a tenant outside its host namespace are these.
func (h *host) wantShown(t *testing.T, vc *v1alpha1.VirtualCluster, want ...string) {
	t.Helper()
	marked := client.MatchingLabels{tenant.LabelTenant: string(vc.UID)}
	h.eventually("the rights outside the namespace follow the plan", func() error {
		var got []string
		for _, list := range []client.ObjectList{&rbacv1.ClusterRoleBindingList{}, &rbacv1.RoleBindingList{}} {
			if err := h.api.List(t.Context(), list, marked); err != nil {
				return err
			}
			if err := meta.EachListItem(list, func(o runtime.Object) error {
				if b := o.(client.Object); b.GetNamespace() != vc.Status.Namespace {
					got = append(got, b.GetNamespace()+"/"+b.GetName())
				}
				return nil
			}); err != nil {
				return err
			}
		}
		if !slices.Equal(got, want) {
			return fmt.Errorf("they are %q, not %q", got, want)
		}
		return nil
	})
}

// earlierQuota gives a tenant a quota that an earlier version may have made.
func (h *host) earlierQuota(vc *v1alpha1.VirtualCluster) {
	h.t.Helper()
	q := &corev1.ResourceQuota{ObjectMeta: metav1.ObjectMeta{
		Namespace: vc.Status.Namespace, Name: "sublet-earlier", Labels: map[string]string{tenant.LabelTenant: string(vc.UID)},
	}}
	if err := h.api.Create(h.t.Context(), q); err != nil {
		h.t.Fatal(err)
	}
}

// wantQuotas waits until the quotas of a tenant are those of a plan and no others, and nobody
// owns their fields: see applyQuota.
func (h *host) wantQuotas(vc *v1alpha1.VirtualCluster, plan v1alpha1.PlanSpec) {
	h.t.Helper()
	h.eventually("the plan's quotas", func() error {
		quotas := baseline.Quotas(tenant.Tenant{ID: tenant.ID(vc.UID), HostNamespace: vc.Status.Namespace}, plan)
		var all corev1.ResourceQuotaList
		if err := h.api.List(h.t.Context(), &all, client.InNamespace(vc.Status.Namespace)); err != nil || len(all.Items) != len(quotas) {
			return fmt.Errorf("there are %d: %w", len(all.Items), err)
		}
		for _, want := range quotas {
			q := &corev1.ResourceQuota{}
			if err := h.api.Get(h.t.Context(), client.ObjectKeyFromObject(want), q); err != nil {
				return err
			}
			if !equality.Semantic.DeepEqual(q.Spec, want.Spec) || !equality.Semantic.DeepEqual(q.Labels, want.Labels) || len(q.ManagedFields) > 0 {
				return fmt.Errorf("%s is %v, %v, %v", q.Name, q.Spec.Hard, q.Labels, q.ManagedFields)
			}
			if !equality.Semantic.DeepEqual(q.Status.Hard, want.Spec.Hard) {
				return fmt.Errorf("the host enforces %v of %s", q.Status.Hard, q.Name)
			}
		}
		return nil
	})
}

func (h *host) wantApplied(vc *v1alpha1.VirtualCluster, status metav1.ConditionStatus, reason string) {
	h.t.Helper()
	h.eventually("the plan's condition is "+reason, func() error {
		now := &v1alpha1.VirtualCluster{}
		if err := h.api.Get(h.t.Context(), client.ObjectKeyFromObject(vc), now); err != nil {
			return err
		}
		c := meta.FindStatusCondition(now.Status.Conditions, v1alpha1.ConditionPlanApplied)
		if c == nil || c.Status != status || c.Reason != reason {
			return fmt.Errorf("it is %+v", c)
		}
		return nil
	})
}
