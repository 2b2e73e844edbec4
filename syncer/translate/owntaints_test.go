package translate

import (
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"sublet.dev/isolation/tenant"
	"sublet.dev/syncer/engine"
)

// tainted is two nodes of the host, of which the tenant tainted its view of one; and
// one that it invented.
type tainted struct {
	twoNodes
	taints        []corev1.Taint
	unschedulable bool
}

func (w tainted) TenantNodes() []*corev1.Node {
	views := w.twoNodes.TenantNodes()
	for _, view := range views {
		if view.Name == "mine" || view.Name == testTenant.ID.NodeName("a") {
			view.Spec.Taints, view.Spec.Unschedulable = w.taints, w.unschedulable
			view.Spec.Taints = withOwnTaints(nil, view)
		}
	}
	return views
}

func inTainted(t *testing.T, w tainted, change func(*corev1.Pod)) *corev1.Pod {
	t.Helper()
	w.labels = map[string]map[string]string{"a": {"disk": "fast"}, "b": {"disk": "slow"}}
	pod := plainPod()
	if change != nil {
		change(pod)
	}
	hostPod, refusals := Translation{Tenant: testTenant, Lookup: w, Data: nothing{}}.Pod(pod)
	if len(refusals) > 0 {
		t.Fatal(refusals)
	}
	return hostPod
}

// TestOwnTaints: a pod is kept off nodes whose taints it does not tolerate; the host
// learns of the nodes alone.
func TestOwnTaints(t *testing.T) {
	taint := func(effect corev1.TaintEffect) []corev1.Taint {
		return []corev1.Taint{{Key: "dedicated", Value: "db", Effect: effect}}
	}
	tolerate := func(t corev1.Toleration) func(*corev1.Pod) {
		return func(p *corev1.Pod) { p.Spec.Tolerations = append(p.Spec.Tolerations, t) }
	}
	for name, c := range map[string]struct {
		world  tainted
		change func(*corev1.Pod)
		off    []string
	}{
		"no taint":             {},
		"no schedule":          {world: tainted{taints: taint(corev1.TaintEffectNoSchedule)}, off: []string{"machine-a"}},
		"no execute":           {world: tainted{taints: taint(corev1.TaintEffectNoExecute)}, off: []string{"machine-a"}},
		"cordoned":             {world: tainted{unschedulable: true}, off: []string{"machine-a"}},
		"tolerated":            {world: tainted{taints: taint(corev1.TaintEffectNoSchedule)}, change: tolerate(corev1.Toleration{Key: "dedicated", Value: "db"})},
		"another value":        {world: tainted{taints: taint(corev1.TaintEffectNoSchedule)}, change: tolerate(corev1.Toleration{Key: "dedicated", Value: "web"}), off: []string{"machine-a"}},
		"everything tolerated": {world: tainted{taints: taint(corev1.TaintEffectNoExecute), unschedulable: true}, change: tolerate(corev1.Toleration{Operator: corev1.TolerationOpExists})},
		"the provider's is the host's own matter": {world: tainted{taints: []corev1.Taint{{Key: taintUnschedulable, Effect: corev1.TaintEffectNoSchedule}}}},
	} {
		hostPod := inTainted(t, c.world, c.change)
		if got := offNodes(hostPod); !slices.Equal(got, c.off) {
			t.Errorf("%s: kept off %q, want %q", name, got, c.off)
		}
		if _, marked := hostPod.Annotations[tenant.AnnotationPlacement]; marked != (c.off != nil) {
			t.Errorf("%s: marked %v", name, marked)
		}
		for _, toleration := range hostPod.Spec.Tolerations {
			if toleration.Effect != corev1.TaintEffectNoExecute || !strings.HasPrefix(toleration.Key, conditionTaints) {
				t.Errorf("%s: the host pod tolerates %v", name, toleration)
			}
		}
	}
}

// offNodes are the nodes that a host pod must not run on in any of its alternatives.
func offNodes(hostPod *corev1.Pod) []string {
	if hostPod.Spec.Affinity == nil {
		return nil
	}
	var off []string
	for _, term := range hostPod.Spec.Affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms {
		last := term.MatchExpressions[len(term.MatchExpressions)-1]
		if last.Operator == corev1.NodeSelectorOpNotIn && last.Key == corev1.LabelHostname {
			off = append(off, last.Values...)
		}
	}
	return off
}

// TestOwnTaintsAndSelectors: taints hold for each of a pod's alternatives.
func TestOwnTaintsAndSelectors(t *testing.T) {
	hostPod := inTainted(t, tainted{taints: []corev1.Taint{{Key: "x", Effect: corev1.TaintEffectNoSchedule}}}, func(p *corev1.Pod) {
		in := func(disk string) corev1.NodeSelectorTerm {
			return corev1.NodeSelectorTerm{MatchExpressions: []corev1.NodeSelectorRequirement{{Key: "disk", Operator: corev1.NodeSelectorOpIn, Values: []string{disk}}}}
		}
		p.Spec.Affinity = &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{RequiredDuringSchedulingIgnoredDuringExecution: &corev1.NodeSelector{
			NodeSelectorTerms: []corev1.NodeSelectorTerm{in("fast"), in("slow")},
		}}}
	})
	if got := offNodes(hostPod); !slices.Equal(got, []string{"machine-a", "machine-a"}) {
		t.Errorf("kept off %q", got)
	}
}

// TestAvoidedNode: one with PreferNoSchedule is the last choice, and no more.
func TestAvoidedNode(t *testing.T) {
	affinity := inTainted(t, tainted{taints: []corev1.Taint{{Key: "x", Effect: corev1.TaintEffectPreferNoSchedule}}}, nil).Spec.Affinity.NodeAffinity
	preferred := affinity.PreferredDuringSchedulingIgnoredDuringExecution
	if affinity.RequiredDuringSchedulingIgnoredDuringExecution != nil || len(preferred) != 1 ||
		!slices.Equal(preferred[0].Preference.MatchExpressions[0].Values, []string{"machine-a"}) {
		t.Errorf("%+v", affinity)
	}
}

// TestOwnTaintsStay: what the tenant taints and cordons stays, what it says in the
// provider's name does not, and the host's word comes and goes.
func TestOwnTaintsStay(t *testing.T) {
	tr := Translation{Tenant: testTenant}
	hostNode := twoNodes{}.hostNode("a")
	hostNode.Labels[testTenant.Sandbox.NodeLabel()] = "true"
	free := tr.Node(hostNode)
	if len(free.Spec.Taints) > 0 {
		t.Fatalf("taints of a node that pods may use: %v", free.Spec.Taints)
	}
	hostNode.Spec.Unschedulable = true
	full := tr.Node(hostNode)
	if len(full.Spec.Taints) != 1 || full.Spec.Unschedulable {
		t.Fatalf("%+v", full.Spec)
	}

	have := free.DeepCopy()
	have.Spec.Unschedulable = true
	have.Spec.Taints = []corev1.Taint{
		{Key: "dedicated", Value: "db", Effect: corev1.TaintEffectNoExecute},
		{Key: corev1.TaintNodeNotReady, Effect: corev1.TaintEffectNoSchedule}, // by admission
		{Key: tenant.Domain + "/forged", Effect: corev1.TaintEffectNoSchedule},
	}
	merged, d := MergeNode(have, free)
	if d != engine.Changed || !hasTaints(merged, corev1.TaintNodeUnschedulable, "dedicated") {
		t.Errorf("%v: %v", d, merged.Spec.Taints)
	}
	if _, d := MergeNode(merged, free); d != engine.Same {
		t.Errorf("merged again: %v", d)
	}
	merged, _ = MergeNode(merged, full)
	if !hasTaints(merged, taintUnschedulable, corev1.TaintNodeUnschedulable, "dedicated") {
		t.Errorf("the host cordoned it: %v", merged.Spec.Taints)
	}
	if merged.Annotations[annotationTaints] != taintUnschedulable+":NoSchedule" {
		t.Errorf("marks: %v", merged.Annotations)
	}
	merged.Spec.Unschedulable = false
	merged, _ = MergeNode(merged, free)
	if !hasTaints(merged, "dedicated") {
		t.Errorf("both made it free: %v", merged.Spec.Taints)
	}
}

// TestTaintOfTheHostGoes: one of the host's that the tenant may know of is not the
// tenant's when the host takes it away, whatever the plan says by then.
func TestTaintOfTheHostGoes(t *testing.T) {
	hostNode := twoNodes{}.hostNode("a")
	hostNode.Labels[testTenant.Sandbox.NodeLabel()] = "true"
	free := Translation{Tenant: testTenant}.Node(hostNode)
	with := free.DeepCopy()
	with.Spec.Taints = []corev1.Taint{{Key: "example.com/gpu", Effect: corev1.TaintEffectNoExecute}}
	markTaints(with)
	merged, _ := MergeNode(free, with)
	if !hasTaints(merged, "example.com/gpu") || len(ownTaints(merged)) > 0 {
		t.Fatalf("%v, own %v", merged.Spec.Taints, ownTaints(merged))
	}
	merged.Spec.Taints = append(merged.Spec.Taints, corev1.Taint{Key: "example.com/gpu", Effect: corev1.TaintEffectNoSchedule})
	if merged, d := MergeNode(merged, free); d != engine.Changed || len(merged.Spec.Taints) != 1 || merged.Spec.Taints[0].Effect != corev1.TaintEffectNoSchedule {
		t.Errorf("%v: %v", d, merged.Spec.Taints)
	}
}

func hasTaints(view *corev1.Node, keys ...string) bool {
	return slices.EqualFunc(view.Spec.Taints, keys, func(t corev1.Taint, key string) bool { return t.Key == key })
}
