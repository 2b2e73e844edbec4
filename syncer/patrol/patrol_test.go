package patrol

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/clock"

	"sublet.dev/isolation/tenant"
	"sublet.dev/syncer/engine"
)

const self = tenant.ID("7f6c1f4e-0000-4000-8000-000000000001")

// marked is a host object as a syncer makes it, changed.
func marked(of tenant.ID, change func(o *metav1.PartialObjectMetadata)) *metav1.PartialObjectMetadata {
	owner := tenant.Owner{Tenant: of, Name: tenant.Name{Namespace: "shop", Name: "web"}, UID: "u1"}
	labels, annotations := owner.Marks()
	o := &metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{Name: string(of.HostName(owner.Name)), Labels: labels, Annotations: annotations}}
	change(o)
	return o
}

func TestJudge(t *testing.T) {
	for name, c := range map[string]struct {
		object *metav1.PartialObjectMetadata
		want   Verdict
	}{
		"as it was made":                {marked(self, func(*metav1.PartialObjectMetadata) {}), Whole},
		"without labels":                {marked(self, func(o *metav1.PartialObjectMetadata) { o.Labels = nil }), Damaged},
		"wrong labels":                  {marked(self, func(o *metav1.PartialObjectMetadata) { o.Labels[tenant.LabelNamespace] = "x" }), Damaged},
		"without annotations":           {marked(self, func(o *metav1.PartialObjectMetadata) { o.Annotations = nil }), Unreadable},
		"without UID":                   {marked(self, func(o *metav1.PartialObjectMetadata) { delete(o.Annotations, tenant.AnnotationUID) }), Unreadable},
		"another's name":                {marked(self, func(o *metav1.PartialObjectMetadata) { o.Name = "web" }), Unreadable},
		"another's name, and no labels": {marked(self, func(o *metav1.PartialObjectMetadata) { o.Name, o.Labels = "web", nil }), Other},
		"another tenant's by its label": {marked(self, func(o *metav1.PartialObjectMetadata) { o.Labels[tenant.LabelTenant] = "other" }), Unreadable},
		"the manager's by its label":    {marked(self, func(o *metav1.PartialObjectMetadata) { o.Labels[tenant.LabelManagedBy] = tenant.ManagedByManager }), Other},
		"another tenant's":              {marked("other", func(*metav1.PartialObjectMetadata) {}), Unreadable},
		"the manager's": {marked(self, func(o *metav1.PartialObjectMetadata) {
			o.Labels[tenant.LabelManagedBy], o.Annotations = tenant.ManagedByManager, nil
		}), Other},
		"somebody's": {&metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{Name: "kube-root-ca.crt"}}, Other},
	} {
		owner, got := Judge(self, c.object)
		if got != c.want {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
		if named := owner.Name.Name == "web" && owner.Tenant == self && owner.UID == "u1"; named != (got == Whole || got == Damaged) {
			t.Errorf("%s: owner %+v", name, owner)
		}
	}
}

// TestRound: what could be listed is compared although something could not, and what
// took a write is counted.
func TestRound(t *testing.T) {
	all := []engine.Key{{Kind: "Pod", Name: tenant.Name{Name: "a"}}, {Kind: "Pod", Name: tenant.Name{Name: "b"}}}
	var inspected []engine.Key
	p := New(Config{
		Keys:    func(context.Context) ([]engine.Key, error) { return all, errors.New("not all") },
		Inspect: func(k engine.Key) { inspected = append(inspected, k) },
		Clock:   clock.RealClock{}, Logger: slog.New(slog.DiscardHandler),
	})
	p.Round(t.Context())
	p.Inspected(all[0], 0)
	p.Inspected(all[1], 2)
	s := p.Stats()
	if !slices.Equal(inspected, all) || s.Rounds != 1 || s.LastRound.IsZero() || s.Compared != 2 || s.Repaired != 1 {
		t.Errorf("inspected %v, %+v", inspected, s)
	}
	soon, stop := context.WithCancel(t.Context())
	p.config.Inspect = func(engine.Key) { stop() }
	p.Soon()
	p.Soon()
	p.Run(soon) // ends only because a round began
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if p.Round(ctx); p.Stats().Rounds != 1 {
		t.Error("a round that was broken off counts")
	}
}
