package syncer

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	"k8s.io/apimachinery/pkg/types"

	"sublet.dev/isolation/tenant"
	"sublet.dev/syncer/engine"
	"sublet.dev/syncer/translate"
)

const kindPriorityClass = "PriorityClass"

// reasonPriorityClass is the reason of events on PriorityClasses of the tenant's that stand
// in the place of one of its plan.
const reasonPriorityClass = "PriorityClassNotShown"

// priorityViews keeps the tenant's views of the host's PriorityClasses that its plan offers.
// Classes that the tenant makes are its own: one that has the name of an offered one stays,
// and the tenant is told that it is in the way.
type priorityViews struct {
	*Syncer
	mirror engine.Pass
}

func (s *Syncer) priorityClasses() engine.Pass {
	p := &priorityViews{Syncer: s}
	p.mirror = &engine.Mirror[*schedulingv1.PriorityClass, *schedulingv1.PriorityClass]{
		Name:   kindPriorityClass,
		Source: s.offeredPriority,
		Target: engine.Views[*schedulingv1.PriorityClass]{Cache: s.caches.priorityClasses.GetStore(), API: s.tenantAPI.SchedulingV1().PriorityClasses(), Of: s.viewedPriority},
		Want:   be(s.t.PriorityClass),
		Merge:  translate.MergePriorityClass,
	}
	return p
}

// Kind implements engine.Pass.
func (p *priorityViews) Kind() string { return kindPriorityClass }

// Reconcile implements engine.Pass.
func (p *priorityViews) Reconcile(ctx context.Context, name tenant.Name) (time.Duration, error) {
	again, err := p.mirror.Reconcile(ctx, name)
	if !errors.Is(err, engine.ErrForeign) {
		return again, err
	}
	own, there := fromTenant[*schedulingv1.PriorityClass](p.caches.priorityClasses)(name)
	if _, offered := p.offeredPriority(name); offered && there {
		p.held.tell(own, corev1.EventTypeWarning, reasonPriorityClass,
			"your plan has a PriorityClass of this name; as long as this one is here, which is yours, pods that name it are ranked by yours, among your own alone")
	}
	return 0, nil
}

// offeredPriority returns the host's class that the tenant sees under a name.
func (s *Syncer) offeredPriority(n tenant.Name) (*schedulingv1.PriorityClass, bool) {
	if !slices.Contains(s.plan().PriorityClasses, n.Name) {
		return nil, false
	}
	return engine.FromCache[*schedulingv1.PriorityClass](s.config.Host.ranks.GetStore(), n.Name)
}

// viewedPriority says which host class a tenant's is a view of: views are known by their
// mark.
func (s *Syncer) viewedPriority(view *schedulingv1.PriorityClass) (types.UID, error) {
	if !translate.IsPriorityView(view) {
		return "", fmt.Errorf("%w: PriorityClass %q was made by the tenant", engine.ErrForeign, view.Name)
	}
	if hostClass, ok := s.offeredPriority(tenant.Name{Name: view.Name}); ok {
		return hostClass.UID, nil
	}
	return "", nil
}

// HostPriority implements translate.Lookup. A class that the tenant's cache does not have
// yet counts as a view, which the tenant's API has: it let the pod name it.
func (c *caches) HostPriority(class string) (int32, bool) {
	own, there := fromTenant[*schedulingv1.PriorityClass](c.priorityClasses)(tenant.Name{Name: class})
	if there && !translate.IsPriorityView(own) {
		return 0, false
	}
	hostClass, ok := engine.FromCache[*schedulingv1.PriorityClass](c.hostPriorities.GetStore(), class)
	if !ok {
		return 0, false
	}
	return hostClass.Value, true
}

// ofPriorityClass, of either side: the view, or what stands in its place, and the pods that
// have no node yet and name the class.
func (s *Syncer) ofPriorityClass(class *schedulingv1.PriorityClass) []engine.Key {
	offered := slices.Contains(s.plan().PriorityClasses, class.Name)
	if !offered && !translate.IsPriorityView(class) {
		return nil
	}
	all := keys(tenant.Name{Name: class.Name}, kindPriorityClass)
	for _, o := range s.caches.tenant.pods.GetStore().List() {
		if p, ok := o.(*corev1.Pod); ok && offered && p.Spec.NodeName == "" && p.Spec.PriorityClassName == class.Name {
			all = append(all, keys(translate.NameOf(p), kindPod)...)
		}
	}
	return all
}
