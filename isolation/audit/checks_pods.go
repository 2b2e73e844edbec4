package audit

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	nodev1 "k8s.io/api/node/v1"

	"sublet.dev/api/v1alpha1"
	"sublet.dev/isolation/policy"
	"sublet.dev/isolation/tenant"
)

// podChecks are about the tenant's host pods, as the host API has them.
func podChecks() []Check {
	return []Check{
		{ID: "SUB-POD-001", Title: "every host pod is forced into the tenant's sandbox", Category: "sandbox", Severity: Critical, Method: ByConfig,
			Remediation: "delete the pod that the evidence names; look at the RuntimeClass's handler",
			References:  map[string][]string{"kubescape": {"C-0242"}}, Eval: evalRuntimeClass},
		{ID: "SUB-POD-002", Title: "no host pod asks for the host: namespaces, paths, ports, devices, privileges", Category: "sandbox", Severity: Critical, Method: ByConfig,
			Remediation: "delete the pod that the evidence names; such a pod did not come through the tenant's API",
			References: map[string][]string{"mtb": {"MTB-PL1-BC-CPI-3", "MTB-PL1-BC-CPI-5", "MTB-PL1-BC-CPI-6", "MTB-PL1-BC-HI-1", "MTB-PL1-BC-HI-3", "MTB-PL1-BC-HI-4", "MTB-PL1-BC-HI-5"},
				"kubescape": {"C-0057", "C-0038", "C-0041", "C-0044", "C-0045", "C-0046", "C-0048", "C-0016"}}, Eval: evalPodPolicy},
		{ID: "SUB-POD-003", Title: "no host pod gets a token of the host's API", Category: "access", Severity: High, Method: ByConfig,
			Remediation: "delete the pod that the evidence names; set automountServiceAccountToken: false on the host service account",
			Eval:        evalHostToken},
		{ID: "SUB-POD-004", Title: "every host pod was made for an object of this tenant and is in its host namespace", Category: "tenant", Severity: High, Method: ByConfig,
			Remediation: "find out who made the pod that the evidence names, and delete it",
			References:  map[string][]string{"iso27017": {"CLD.9.5.1"}}, Eval: evalOwner},
	}
}

// tenantAndPods are what all checks here need; a non-nil outcome ends the check.
func tenantAndPods(f *Facts) (v1alpha1.VirtualCluster, []corev1.Pod, *Outcome) {
	vc, err := f.Tenant.Get()
	if err != nil {
		o := inconclusive("the tenant was not read", err)
		return vc, nil, &o
	}
	pods, err := f.Pods.Get()
	if err != nil {
		o := inconclusive("the host pods were not read", err)
		return vc, nil, &o
	}
	return vc, pods, nil
}

func podRef(p *corev1.Pod) *ObjectRef {
	return &ObjectRef{Kind: "Pod", Namespace: p.Namespace, Name: p.Name, UID: string(p.UID)}
}

func evalRuntimeClass(f *Facts) Outcome {
	vc, pods, end := tenantAndPods(f)
	if end != nil {
		return *end
	}
	classes, err := f.RuntimeClasses.Get()
	if err != nil {
		return inconclusive("the RuntimeClasses were not read", err)
	}
	sandbox := tenant.Sandbox(vc.Spec.Sandbox)
	if err := sandbox.Validate(); err != nil {
		return inconclusive("the tenant's sandbox is not known", err)
	}
	want := sandbox.RuntimeClass()
	var bad findings
	enforced := "no RuntimeClass"
	if i := slices.IndexFunc(classes, func(c nodev1.RuntimeClass) bool { return c.Name == want }); i < 0 {
		bad.said = append(bad.said, "RuntimeClass/"+want+" does not exist")
	} else {
		c := classes[i]
		enforced = "handler " + c.Handler
		ref := &ObjectRef{Kind: "RuntimeClass", Name: c.Name, UID: string(c.UID)}
		bad.evidence = append(bad.evidence, Evidence{What: "handler " + c.Handler, Object: ref})
		if c.Handler != sandbox.Handler() {
			bad.add(ref, "leads to the handler %q, not %q", c.Handler, sandbox.Handler())
		}
	}
	for i := range pods {
		if class := pods[i].Spec.RuntimeClassName; class == nil || *class != want {
			bad.add(podRef(&pods[i]), "has the RuntimeClass %q", orNone(class))
		}
	}
	return bad.verdict(Columns{Declared: string(sandbox), Rendered: count(len(pods), "pod") + " " + want, Enforced: enforced})
}

func orNone(s *string) string {
	if s == nil {
		return "<none>"
	}
	return *s
}

func evalPodPolicy(f *Facts) Outcome {
	vc, pods, end := tenantAndPods(f)
	if end != nil {
		return *end
	}
	sandbox := tenant.Sandbox(vc.Spec.Sandbox)
	if err := sandbox.Validate(); err != nil {
		return inconclusive("the tenant's sandbox is not known", err)
	}
	level := policy.LevelFor(sandbox)
	var offer policy.Offer
	if plan, err := f.Plan.Get(); err == nil { // not read: nothing is offered
		offer.CSIDrivers, offer.ImageRegistries, offer.PriorityClasses = plan.Spec.CSIDrivers, plan.Spec.ImageRegistries, plan.Spec.PriorityClasses
	}
	var bad findings
	for i := range pods {
		for _, r := range offer.CheckHostPod(&pods[i], level) {
			bad.add(podRef(&pods[i]), "breaks the rule %s: %s: %s", r.Rule, r.Field, r.Reason)
		}
	}
	return bad.verdict(Columns{Declared: string(level), Rendered: count(len(pods), "pod") + " read"})
}

func evalHostToken(f *Facts) Outcome {
	_, pods, end := tenantAndPods(f)
	if end != nil {
		return *end
	}
	var bad findings
	for i := range pods {
		spec := &pods[i].Spec
		if spec.AutomountServiceAccountToken == nil || *spec.AutomountServiceAccountToken {
			bad.add(podRef(&pods[i]), "does not refuse a mounted service account token")
		}
		for _, v := range spec.Volumes {
			if v.Projected == nil {
				continue
			}
			for _, s := range v.Projected.Sources {
				if s.ServiceAccountToken != nil || s.PodCertificate != nil || s.ClusterTrustBundle != nil {
					bad.add(podRef(&pods[i]), "mounts a credential of the host in the volume %q", v.Name)
				}
			}
		}
	}
	return bad.verdict(Columns{Declared: "no host token", Rendered: count(len(pods), "pod") + " read"})
}

func evalOwner(f *Facts) Outcome {
	vc, pods, end := tenantAndPods(f)
	if end != nil {
		return *end
	}
	want := tenant.HostNamespace(vc.Name, tenant.ID(vc.UID))
	var bad findings
	for i := range pods {
		p := &pods[i]
		owner, err := tenant.ReadOwner(p.Name, p.Labels, p.Annotations)
		switch {
		case p.Namespace != want:
			bad.add(podRef(p), "carries the tenant's mark outside its host namespace")
		case err != nil:
			bad.add(podRef(p), "was not made by the syncer: %v", err)
		case owner.Tenant != tenant.ID(vc.UID):
			bad.add(podRef(p), "belongs to the tenant %q", owner.Tenant)
		}
	}
	return bad.verdict(Columns{Declared: fmt.Sprintf("tenant %s", strings.SplitN(string(vc.UID), "-", 2)[0]), Rendered: count(len(pods), "pod") + " read"})
}
