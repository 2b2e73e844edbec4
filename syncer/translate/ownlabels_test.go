package translate

import (
	"maps"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"sublet.dev/isolation/tenant"
	"sublet.dev/syncer/engine"
)

// twoNodes are nodes of the host and the tenant's views of them, on which the tenant
// put labels of its own.
type twoNodes struct {
	nothing
	labels map[string]map[string]string // by the host's name
}

func (w twoNodes) hostNode(name string) *corev1.Node {
	return &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{
		corev1.LabelHostname: "machine-" + name, corev1.LabelOSStable: "linux", "disk": "of the host",
	}}}
}

func (w twoNodes) HostNode(view string) (*corev1.Node, bool) {
	for name := range w.labels {
		if testTenant.ID.NodeName(name) == view {
			return w.hostNode(name), true
		}
	}
	return nil, false
}

func (w twoNodes) TenantNodes() []*corev1.Node {
	views := []*corev1.Node{{ObjectMeta: metav1.ObjectMeta{Name: "mine", Labels: map[string]string{"disk": "fast"}}}}
	for name, own := range w.labels {
		view := Translation{Tenant: testTenant}.Node(w.hostNode(name))
		maps.Copy(view.Labels, own)
		views = append(views, view)
	}
	return views
}

// allowed returns the nodes on which a host pod may run, by the hostname labels that
// it requires.
func allowed(hostPod *corev1.Pod) []string {
	if hostPod.Spec.Affinity == nil {
		return nil
	}
	terms := hostPod.Spec.Affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms
	return terms[0].MatchExpressions[0].Values
}

// TestOwnLabels: the tenant's own labels place its pods, and the host learns of the
// nodes alone; a node that the tenant invented is none.
func TestOwnLabels(t *testing.T) {
	world := twoNodes{labels: map[string]map[string]string{"a": {"disk": "fast", "rack": "2"}, "b": {"disk": "slow"}}}
	required := func(r corev1.NodeSelectorRequirement) *corev1.Affinity {
		return &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{RequiredDuringSchedulingIgnoredDuringExecution: &corev1.NodeSelector{
			NodeSelectorTerms: []corev1.NodeSelectorTerm{{MatchExpressions: []corev1.NodeSelectorRequirement{r}}},
		}}}
	}
	for name, c := range map[string]struct {
		selector map[string]string
		affinity *corev1.Affinity
		want     []string
	}{
		"selector":        {selector: map[string]string{"disk": "fast"}, want: []string{"machine-a"}},
		"nothing matches": {selector: map[string]string{"disk": "of the host"}, want: []string{noNode}},
		"not in":          {affinity: required(corev1.NodeSelectorRequirement{Key: "rack", Operator: corev1.NodeSelectorOpNotIn, Values: []string{"2"}}), want: []string{"machine-b"}},
		"greater":         {affinity: required(corev1.NodeSelectorRequirement{Key: "rack", Operator: corev1.NodeSelectorOpGt, Values: []string{"1"}}), want: []string{"machine-a"}},
		"exists":          {affinity: required(corev1.NodeSelectorRequirement{Key: "disk", Operator: corev1.NodeSelectorOpExists}), want: []string{"machine-a", "machine-b"}},
		"the host's":      {selector: map[string]string{corev1.LabelOSStable: "linux"}},
	} {
		pod := plainPod()
		pod.Spec.NodeSelector, pod.Spec.Affinity = c.selector, c.affinity
		hostPod, refusals := Translation{Tenant: testTenant, Lookup: world, Data: nothing{}}.Pod(pod)
		if len(refusals) > 0 {
			t.Fatalf("%s: %v", name, refusals)
		}
		got := allowed(hostPod)
		slices.Sort(got)
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: placed on %q, want %q", name, got, c.want)
		}
		if _, marked := hostPod.Annotations[tenant.AnnotationPlacement]; marked != (c.want != nil) {
			t.Errorf("%s: marked %v", name, marked)
		}
	}
}

// TestOwnLabelsChange: a pod that waits follows the labels, one that is placed stays.
func TestOwnLabelsChange(t *testing.T) {
	host := func(disk string) *corev1.Pod {
		pod := plainPod()
		pod.Spec.NodeSelector = map[string]string{"disk": "fast"}
		world := twoNodes{labels: map[string]map[string]string{"a": {"disk": disk}}}
		hostPod, refusals := Translation{Tenant: testTenant, Lookup: world, Data: nothing{}}.Pod(pod)
		if len(refusals) > 0 {
			t.Fatal(refusals)
		}
		return hostPod
	}
	if _, d := MergePod(host("slow"), host("slow")); d != engine.Same {
		t.Errorf("nothing changed: %v", d)
	}
	if _, d := MergePod(host("slow"), host("fast")); d != engine.Immutable {
		t.Errorf("a pod that waits: %v, want it made anew", d)
	}
	placed := host("fast")
	placed.Spec.NodeName = "a"
	if _, d := MergePod(placed, host("slow")); d != engine.Same {
		t.Errorf("a pod that is placed: %v", d)
	}
}

// TestOwnLabelsStay: what the tenant adds to a view stays, what we say there comes back.
func TestOwnLabelsStay(t *testing.T) {
	tr := Translation{Tenant: testTenant}
	want := tr.Node(twoNodes{}.hostNode("a"))
	have := want.DeepCopy()
	have.Labels["disk"], have.Labels[corev1.LabelHostname] = "fast", "another"
	merged, d := MergeNode(have, want)
	if d != engine.Changed || merged.Labels["disk"] != "fast" || merged.Labels[corev1.LabelHostname] != want.Name {
		t.Errorf("%v: %v", d, merged.Labels)
	}
	if _, d := MergeNode(merged, want); d != engine.Same {
		t.Error("the tenant's own label is fought over")
	}
}
