package audit

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"sublet.dev/api/v1alpha1"
	"sublet.dev/isolation/baseline"
	"sublet.dev/isolation/tenant"
)

// tenantChecks are about the tenant itself and what its host namespace allows.
func tenantChecks() []Check {
	return []Check{
		{ID: "SUB-VC-001", Title: "the tenant is ready and its fence is reported in place", Category: "tenant", Severity: High, Method: ByConfig,
			Remediation: "see `sublet describe NAME`: the condition's message says what is missing", Eval: evalConditions},
		{ID: "SUB-NS-001", Title: "the tenant has one host namespace, and it is nobody else's", Category: "tenant", Severity: Critical, Method: ByConfig,
			Remediation: "remove the tenant's mark from the other namespace, or delete and create the tenant again",
			References:  map[string][]string{"iso27017": {"CLD.9.5.1"}, "ccm": {"IVS-06"}}, Eval: evalNamespace},
		{ID: "SUB-NS-002", Title: "what the tenant can use up is limited", Category: "tenant", Severity: Medium, Method: ByConfig,
			Remediation: "restart `sublet server`: the manager writes the quota again",
			References:  map[string][]string{"mtb": {"MTB-PL1-BC-FNS-1"}}, Eval: evalQuota},
		{ID: "SUB-RBAC-001", Title: "only Sublet's own identities have rights in the host namespace", Category: "access", Severity: Critical, Method: ByConfig,
			Remediation: "delete the binding that the evidence names; if it is for all service accounts of the host, give its role to those that need it",
			References:  map[string][]string{"mtb": {"MTB-PL1-BC-CPI-1"}, "cve": {"CVE-2026-22872"}}, Eval: evalBindings},
		{ID: "SUB-META-001", Title: "no label or annotation that a tenant chose stands on a host object", Category: "metadata", Severity: High, Method: ByConfig,
			Remediation: "delete the host object; the syncer makes it again. If the key comes back the syncer has a bug: report it",
			References:  map[string][]string{"cve": {"CVE-2026-44210", "CVE-2023-39347"}}, Eval: evalKeys},
		{ID: "SUB-META-002", Title: "no credential stands in an annotation or label", Category: "metadata", Severity: High, Method: ByConfig,
			Remediation: "delete the host object and treat the credential as known to everybody who reads the host",
			References:  map[string][]string{"ccm": {"IVS-06"}}, Eval: evalCredentials},
	}
}

func evalConditions(f *Facts) Outcome {
	vc, err := f.Tenant.Get()
	if err != nil {
		return inconclusive("the tenant was not read", err)
	}
	var bad []string
	var seen []string
	for _, kind := range []string{v1alpha1.ConditionFenced, v1alpha1.ConditionReady} {
		c := meta.FindStatusCondition(vc.Status.Conditions, kind)
		switch {
		case c == nil:
			bad, seen = append(bad, "condition "+kind+" is not reported"), append(seen, kind+"=?")
		case c.Status != metav1.ConditionTrue:
			bad = append(bad, fmt.Sprintf("condition %s is %s: %s", kind, c.Status, c.Message))
			seen = append(seen, kind+"="+string(c.Status))
		default:
			seen = append(seen, kind+"=True")
		}
	}
	cols := Columns{Declared: vc.Spec.Sandbox, Rendered: strings.Join(seen, " ")}
	return verdict(bad, cols, []Evidence{{What: strings.Join(seen, " "), Object: tenantRef(vc)}})
}

func tenantRef(vc v1alpha1.VirtualCluster) *ObjectRef {
	return &ObjectRef{Kind: "VirtualCluster", Name: vc.Name, UID: string(vc.UID)}
}

func evalNamespace(f *Facts) Outcome {
	vc, err := f.Tenant.Get()
	if err != nil {
		return inconclusive("the tenant was not read", err)
	}
	spaces, err := f.Namespaces.Get()
	if err != nil {
		return inconclusive("the host namespaces were not read", err)
	}
	id, want := tenant.ID(vc.UID), tenant.HostNamespace(vc.Name, tenant.ID(vc.UID))
	var bad findings
	if vc.Status.Namespace != want {
		bad.add(tenantRef(vc), "names the host namespace %q, not %q", vc.Status.Namespace, want)
	}
	found := false
	for _, ns := range spaces {
		ref := &ObjectRef{Kind: "Namespace", Name: ns.Name, UID: string(ns.UID)}
		switch mark := tenant.ID(ns.Labels[tenant.LabelTenant]); {
		case ns.Name != want:
			bad.add(ref, "carries this tenant's mark, too")
		case mark != id:
			bad.add(ref, "carries the mark of %q", mark)
		default:
			found = true
			bad.evidence = append(bad.evidence, Evidence{What: "the tenant's host namespace", Object: ref})
		}
	}
	if !found {
		bad.said = append(bad.said, "the host namespace "+want+" with the tenant's mark does not exist")
	}
	return bad.verdict(Columns{Declared: want, Rendered: count(len(spaces), "namespace") + " marked"})
}

// limited is what a tenant's quota must limit at least.
var limited = []corev1.ResourceName{corev1.ResourcePods}

func evalQuota(f *Facts) Outcome {
	quotas, err := f.Quotas.Get()
	if err != nil {
		return inconclusive("the quotas were not read", err)
	}
	var bad findings
	var hard, used []string
	for _, name := range limited {
		for _, q := range quotas {
			ref := &ObjectRef{Kind: "ResourceQuota", Namespace: q.Namespace, Name: q.Name, UID: string(q.UID)}
			h, ok := q.Status.Hard[name]
			if !ok || len(q.Spec.Scopes) > 0 || q.Spec.ScopeSelector != nil {
				continue
			}
			u := q.Status.Used[name]
			hard, used = append(hard, fmt.Sprintf("%s<=%s", name, h.String())), append(used, fmt.Sprintf("%s=%s", name, u.String()))
			bad.evidence = append(bad.evidence, Evidence{What: fmt.Sprintf("%s: %s of %s used", name, u.String(), h.String()), Object: ref})
			if u.Cmp(h) > 0 {
				bad.add(ref, "is exceeded: %s %s of %s", name, u.String(), h.String())
			}
		}
	}
	if len(hard) == 0 {
		bad.said = append(bad.said, "no quota in force limits "+string(limited[0]))
	}
	return bad.verdict(Columns{Declared: "limited", Rendered: count(len(quotas), "quota"), Enforced: strings.Join(hard, " "), Observed: strings.Join(used, " ")})
}

func evalBindings(f *Facts) Outcome {
	vc, err := f.Tenant.Get()
	if err != nil {
		return inconclusive("the tenant was not read", err)
	}
	bindings, err := f.Bindings.Get()
	if err != nil {
		return inconclusive("the bindings were not read", err)
	}
	var bad findings
	for _, b := range bindings {
		rules, err := b.Rules.Get()
		if err != nil {
			return inconclusive("the role of "+b.Ref().String()+" was not read", err)
		}
		for _, s := range b.Subjects {
			if !ours(vc, s) {
				bad.add(b.Ref(), "gives %s %q rights in the host namespace", s.Kind, s.Name)
			}
		}
		if b.Kind == "ClusterRoleBinding" {
			bad.add(b.Ref(), "gives the tenant's identity rights outside its host namespace")
		}
		if what := tooMuch(rules); what != "" && !actsOnly(vc, b.Subjects, rules) {
			bad.add(b.Ref(), "grants %s", what)
		}
	}
	if len(bindings) == 0 {
		bad.said = append(bad.said, "no binding gives the tenant's syncer its rights: somebody else's must be in use")
	}
	return bad.verdict(Columns{Declared: tenant.Writer, Rendered: count(len(bindings), "binding")})
}

// ours says whether a subject is the tenant's syncer or the cell it runs in.
func ours(vc v1alpha1.VirtualCluster, s rbacv1.Subject) bool {
	return isWriter(vc, s) || isCell(vc, s)
}

// isCell says whether a subject is the cell that a tenant runs in.
func isCell(vc v1alpha1.VirtualCluster, s rbacv1.Subject) bool {
	return s.Kind == rbacv1.UserKind && vc.Status.Cell != "" && s.Name == tenant.CellUser(vc.Status.Cell)
}

// isWriter says whether a subject is a tenant's syncer: RBAC knows a service account by
// both names.
func isWriter(vc v1alpha1.VirtualCluster, s rbacv1.Subject) bool {
	switch s.Kind {
	case rbacv1.ServiceAccountKind:
		return s.Namespace == vc.Status.Namespace && s.Name == tenant.Writer
	case rbacv1.UserKind:
		return s.Name == tenant.WriteUser(vc.Status.Namespace)
	}
	return false
}

// meansWriter says whether a subject is a tenant's syncer, or the service accounts of its
// host namespace or of all namespaces, of which it is one
// (k8s.io/apiserver/pkg/authentication/serviceaccount, MakeGroupNames).
func meansWriter(vc v1alpha1.VirtualCluster, s rbacv1.Subject) bool {
	const all = "system:serviceaccounts"
	group := s.Kind == rbacv1.GroupKind && (s.Name == all || s.Name == all+":"+vc.Status.Namespace)
	return group || isWriter(vc, s)
}

// isDefault says whether a binding is one that every API server makes
// (k8s.io/kubernetes/plugin/pkg/auth/authorizer/rbac/bootstrappolicy).
func isDefault(labels map[string]string) bool {
	return labels["kubernetes.io/bootstrapping"] == "rbac-defaults"
}

// readOnly says whether rules let nobody change anything.
func readOnly(rules []rbacv1.PolicyRule) bool {
	return !slices.ContainsFunc(rules, func(r rbacv1.PolicyRule) bool { return slices.ContainsFunc(r.Verbs, isWrite) })
}

func isWrite(verb string) bool { return !slices.Contains([]string{"get", "list", "watch"}, verb) }

// actsOnly says whether rules let a tenant's cell act as the tenant's syncer, and nothing
// and nobody else.
func actsOnly(vc v1alpha1.VirtualCluster, subjects []rbacv1.Subject, rules []rbacv1.PolicyRule) bool {
	others := slices.ContainsFunc(subjects, func(s rbacv1.Subject) bool { return !isCell(vc, s) })
	return !others && equality.Semantic.DeepEqual(rules, []rbacv1.PolicyRule{baseline.ActRule()})
}

// tooMuch names what rules grant that no syncer needs: everything, or the means
// to give itself more.
func tooMuch(rules []rbacv1.PolicyRule) string {
	for _, r := range rules {
		for _, words := range [][]string{r.Verbs, r.APIGroups, r.Resources} {
			if slices.Contains(words, "*") {
				return "a wildcard"
			}
		}
		for _, verb := range []string{"escalate", "bind", "impersonate"} {
			if slices.Contains(r.Verbs, verb) {
				return "the verb " + verb
			}
		}
		if slices.ContainsFunc(r.Verbs, isWrite) && slices.Contains(r.APIGroups, rbacv1.GroupName) {
			return "writing of roles or bindings"
		}
	}
	return ""
}

// hostKeys are the label and annotation keys that the host's own controllers and
// admission write, or that the API asks for, by kind. The values are the host's
// or of a fixed set, never a tenant's.
var hostKeys = map[string][]string{
	"Namespace": {corev1.LabelMetadataName},
	"EndpointSlice": {"kubernetes.io/service-name", "endpointslice.kubernetes.io/managed-by", "endpoints.kubernetes.io/managed-by",
		"endpoints.kubernetes.io/last-change-trigger-time", "service.kubernetes.io/headless"},
	"ConfigMap": {"kubernetes.io/description"},
	"Pod":       {corev1.LabelTopologyZone, corev1.LabelTopologyRegion},
}

// ourKey says whether a key is one of Sublet's own, the hash of a tenant's, the
// host's own on objects of the kind, or among the Pod Security labels that only the
// provider can set on a namespace.
func ourKey(kind, key string) bool {
	podSecurity := kind == "Namespace" && strings.HasPrefix(key, "pod-security.kubernetes.io/")
	return podSecurity || tenant.IsKey(key) || slices.Contains(hostKeys[kind], key)
}

// mark is one label or annotation.
type mark struct{ what, key, value string }

// keysOf returns the labels and annotations of an object, in order.
func keysOf(o Object) []mark {
	var out []mark
	for _, k := range slices.Sorted(maps.Keys(o.Labels)) {
		out = append(out, mark{"label", k, o.Labels[k]})
	}
	for _, k := range slices.Sorted(maps.Keys(o.Annotations)) {
		out = append(out, mark{"annotation", k, o.Annotations[k]})
	}
	return out
}

func evalKeys(f *Facts) Outcome {
	objects, err := f.Objects.Get()
	if err != nil {
		return inconclusive("the host objects were not read", err)
	}
	if len(objects) == 0 {
		return inconclusive("no host object was found", fmt.Errorf("even the namespace's own objects are missing"))
	}
	var bad findings
	for _, o := range objects {
		for _, k := range keysOf(o) {
			if !ourKey(o.Kind, k.key) {
				bad.add(o.Ref(), "carries the %s %q", k.what, k.key)
			}
		}
	}
	return bad.verdict(Columns{Declared: "ours alone", Rendered: count(len(objects), "object") + " read"})
}

func evalCredentials(f *Facts) Outcome {
	objects, err := f.Objects.Get()
	if err != nil {
		return inconclusive("the host objects were not read", err)
	}
	if len(objects) == 0 {
		return inconclusive("no host object was found", fmt.Errorf("even the namespace's own objects are missing"))
	}
	var bad findings
	for _, o := range objects {
		for _, k := range keysOf(o) {
			if kind := credential(k.value); kind != "" {
				bad.add(o.Ref(), "has %s in the %s %q", kind, k.what, k.key)
			}
		}
	}
	return bad.verdict(Columns{Declared: "none", Rendered: count(len(objects), "object") + " read"})
}
