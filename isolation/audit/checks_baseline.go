package audit

import (
	"fmt"
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/equality"

	"sublet.dev/api/v1alpha1"
	"sublet.dev/isolation/baseline"
	"sublet.dev/isolation/tenant"
)

// baselineChecks compare the objects that fence a tenant in on the host with what
// package baseline makes of the tenant, and try whether the host refuses by them.
func baselineChecks() []Check {
	return []Check{
		{ID: "SUB-BASE-001", Title: "the objects that fence the tenant in on the host are as they were rendered", Category: "tenant", Severity: High, Method: ByConfig,
			Remediation: "restart `sublet server`: the manager writes the objects again. Find out who changed them",
			References:  map[string][]string{"mtb": {"MTB-PL1-BC-TI-1"}, "iso27017": {"CLD.9.5.1"}}, Eval: evalBaseline},
		{ID: "SUB-ADM-001", Title: "the host's API itself refuses pods that ask for the host or another sandbox", Category: "sandbox", Severity: High, Method: Probe,
			Remediation: "restart `sublet server`: the manager writes the admission policy again. Find out who changed it",
			References: map[string][]string{"mtb": {"MTB-PL1-BC-CPI-5", "MTB-PL1-BC-HI-1", "MTB-PL1-BC-HI-3", "MTB-PL1-BC-HI-4"},
				"kubescape": {"C-0057", "C-0041", "C-0038", "C-0048"}}, Eval: evalAdmission},
	}
}

// asTenant returns the tenant that a VirtualCluster declares.
func asTenant(vc v1alpha1.VirtualCluster) (tenant.Tenant, error) {
	sandbox := tenant.Sandbox(vc.Spec.Sandbox)
	if err := sandbox.Validate(); err != nil {
		return tenant.Tenant{}, err
	}
	cidr, err := slice(vc)
	id := tenant.ID(vc.UID)
	return tenant.Tenant{ID: id, Name: vc.Name, HostNamespace: tenant.HostNamespace(vc.Name, id), Sandbox: sandbox, ServiceCIDR: cidr}, err
}

func evalBaseline(f *Facts) Outcome {
	vc, err := f.Tenant.Get()
	if err != nil {
		return inconclusive("the tenant was not read", err)
	}
	live, err := f.Baseline.Get()
	if err != nil {
		return inconclusive("the tenant's host objects were not read", err)
	}
	p, err := f.Plan.Get()
	if err != nil {
		return inconclusive("the tenant's plan was not read", err)
	}
	want, err := rendered(vc, p)
	if err != nil {
		return inconclusive("the tenant's host objects can't be rendered", err)
	}
	var bad findings
	for _, w := range want {
		ref := objectRef(w)
		i := slices.IndexFunc(live, func(o baseline.Object) bool { return *objectRef(o) == *ref })
		if i < 0 {
			bad.add(ref, "does not exist")
			continue
		}
		ref.UID = string(live[i].GetUID())
		for _, d := range drift(w, live[i]) {
			bad.add(ref, "%s", d)
		}
	}
	return bad.verdict(Columns{Declared: vc.Name, Rendered: count(len(want), "object"), Enforced: count(len(live), "object") + " found"})
}

// rendered returns the host objects that a tenant of the plan must have.
func rendered(vc v1alpha1.VirtualCluster, p v1alpha1.Plan) ([]baseline.Object, error) {
	t, err := asTenant(vc)
	if err != nil {
		return nil, err
	}
	if vc.Status.Cell == "" {
		return nil, fmt.Errorf("tenant %s has no cell yet", vc.Name)
	}
	return baseline.Tenant(t, vc.Status.Cell, p.Spec), nil
}

// objectRef names an object without its UID.
func objectRef(o baseline.Object) *ObjectRef {
	return &ObjectRef{Kind: o.GetObjectKind().GroupVersionKind().Kind, Namespace: o.GetNamespace(), Name: o.GetName()}
}

// drift says in what a live object is not what was rendered. Fields that the host
// adds do not count.
func drift(want, live baseline.Object) []string {
	var out []string
	differ := func(what string, want, live any) {
		if !equality.Semantic.DeepEqual(want, live) {
			out = append(out, fmt.Sprintf("has %s %s, not %s", what, short(live), short(want)))
		}
	}
	for k, v := range want.GetLabels() {
		differ("the label "+k, v, live.GetLabels()[k])
	}
	slices.Sort(out)
	switch w := want.(type) {
	case *corev1.ServiceAccount:
		differ("automountServiceAccountToken", w.AutomountServiceAccountToken, live.(*corev1.ServiceAccount).AutomountServiceAccountToken)
	case *corev1.ResourceQuota:
		limits := maps.Clone(live.(*corev1.ResourceQuota).Spec.Hard)
		delete(limits, baseline.ResourceRecounts) // of nothing, for a while
		differ("the limits", w.Spec.Hard, limits)
	case *rbacv1.Role:
		differ("the rules", w.Rules, live.(*rbacv1.Role).Rules)
	case *rbacv1.ClusterRole:
		differ("the rules", w.Rules, live.(*rbacv1.ClusterRole).Rules)
	case *rbacv1.RoleBinding:
		differ("the role", w.RoleRef, live.(*rbacv1.RoleBinding).RoleRef)
		differ("the subjects", w.Subjects, live.(*rbacv1.RoleBinding).Subjects)
	case *rbacv1.ClusterRoleBinding:
		differ("the role", w.RoleRef, live.(*rbacv1.ClusterRoleBinding).RoleRef)
		differ("the subjects", w.Subjects, live.(*rbacv1.ClusterRoleBinding).Subjects)
	}
	return out
}

// maxShort is how much of a value a finding shows, in bytes.
const maxShort = 120

func short(v any) string {
	s := fmt.Sprintf("%+v", v)
	if p, ok := v.(*bool); ok && p != nil {
		s = fmt.Sprint(*p)
	}
	if len(s) > maxShort {
		s = s[:maxShort] + "…"
	}
	return fmt.Sprintf("%q", s)
}

// evalAdmission judges what the host's API said to pods that it was asked to
// create without doing so (dry run).
func evalAdmission(f *Facts) Outcome {
	tries, err := f.Admissions.Get()
	if err != nil {
		return inconclusive("the host's API was not asked", err)
	}
	var bad findings
	refused, controls := 0, 0
	for _, a := range tries {
		ref := a.Pod
		e := Evidence{What: "asked for " + a.What, Control: a.Control, Object: &ref, Output: a.Answer}
		bad.evidence = append(bad.evidence, e)
		switch {
		case a.Err != nil:
			return inconclusive("the host's API was not asked for "+a.What, a.Err)
		case a.Control && a.Refused:
			return inconclusive("the positive control failed: the host's API refuses "+a.What, fmt.Errorf("%s", a.Answer))
		case a.Control:
			controls++
		case a.Refused:
			refused++
		default:
			bad.said = append(bad.said, fmt.Sprintf("a pod with %s would be created in %s", a.What, ref.Namespace))
		}
	}
	if controls == 0 || refused+len(bad.said) == 0 {
		return inconclusive("the host's API was not asked", fmt.Errorf("%d pods to refuse, %d positive controls", refused, controls))
	}
	return bad.verdict(Columns{Declared: "refuse", Observed: fmt.Sprintf("%d/%d refused, %d/%d controls", refused, refused+len(bad.said), controls, controls)})
}
