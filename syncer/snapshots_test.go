package syncer

import (
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/tools/cache"

	"sublet.dev/api/v1alpha1"
	"sublet.dev/isolation/baseline"
	"sublet.dev/syncer/rules"
)

// A snapshot that is ready lets its tenant sleep; one that is not, and any other object
// of a rule, keeps it awake.
func TestWhatMovesOnTheHost(t *testing.T) {
	specs := baseline.CustomResources(v1alpha1.PlanSpec{SnapshotClasses: []string{"fast"}, CustomResources: []v1alpha1.CustomResourceRule{
		{Group: "example.org", Version: "v1", Kind: "Thing", Resource: "things", Direction: v1alpha1.ToHost}}})
	ready := map[string]any{"readyToUse": true}
	for name, c := range map[string]struct {
		rule   string
		status []map[string]any
		want   bool
	}{
		"no snapshot":      {"volumesnapshots.snapshot.storage.k8s.io", nil, false},
		"ready":            {"volumesnapshots.snapshot.storage.k8s.io", []map[string]any{ready}, false},
		"one of two":       {"volumesnapshots.snapshot.storage.k8s.io", []map[string]any{ready, {"readyToUse": false}}, true},
		"nothing said yet": {"volumesnapshots.snapshot.storage.k8s.io", []map[string]any{nil}, true},
		"nonsense":         {"volumesnapshots.snapshot.storage.k8s.io", []map[string]any{{"readyToUse": "yes"}}, true},
		"no thing":         {"things.example.org", nil, false},
		"a thing":          {"things.example.org", []map[string]any{ready}, true},
	} {
		works := &custom{hostObjects: cache.NewStore(cache.MetaNamespaceKeyFunc)}
		for _, spec := range specs {
			rule, err := rules.Compile(spec)
			if err != nil {
				t.Fatal(err)
			}
			if rule.Name() == c.rule {
				works.rule = rule
			}
		}
		for i, status := range c.status {
			o := &unstructured.Unstructured{Object: map[string]any{"status": status}}
			o.SetName(string(rune('a' + i)))
			if err := works.hostObjects.Add(o); err != nil {
				t.Fatal(err)
			}
		}
		if got := works.moves(); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}
