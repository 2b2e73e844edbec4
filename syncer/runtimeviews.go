package syncer

import (
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	nodev1 "k8s.io/api/node/v1"
	"k8s.io/apimachinery/pkg/types"

	"sublet.dev/isolation/tenant"
	"sublet.dev/syncer/engine"
	"sublet.dev/syncer/translate"
)

const kindRuntimeClass = "RuntimeClass"

// runtimeClasses keeps the tenant's RuntimeClasses that its plan offers. Other ones that
// the tenant makes are its own.
func (s *Syncer) runtimeClasses() engine.Pass {
	return &engine.Mirror[*nodev1.RuntimeClass, *nodev1.RuntimeClass]{
		Name: kindRuntimeClass,
		Source: func(n tenant.Name) (*nodev1.RuntimeClass, bool) {
			return translate.RuntimeClass(n.Name), slices.Contains(s.plan().RuntimeClasses, n.Name)
		},
		Target: engine.Views[*nodev1.RuntimeClass]{Cache: s.caches.runtimeClasses.GetStore(), API: s.tenantAPI.NodeV1().RuntimeClasses(), Of: s.viewedRuntime},
		Want: be(func(offer *nodev1.RuntimeClass) *nodev1.RuntimeClass {
			view := offer.DeepCopy()
			view.UID = ""
			return view
		}),
		Merge: translate.MergeRuntimeClass,
	}
}

// viewedRuntime says which offer a RuntimeClass of the tenant's is a view of. A class of
// an offered name is one, whatever the tenant made of it; any other is one by its mark.
func (s *Syncer) viewedRuntime(view *nodev1.RuntimeClass) (types.UID, error) {
	switch {
	case slices.Contains(s.plan().RuntimeClasses, view.Name):
		return translate.RuntimeClass(view.Name).UID, nil
	case translate.IsRuntimeView(view):
		return "", nil
	default:
		return "", fmt.Errorf("%w: RuntimeClass %q was made by the tenant", engine.ErrForeign, view.Name)
	}
}

// RuntimeHandler implements translate.Lookup.
func (c *caches) RuntimeHandler(class string) (string, bool) {
	found, ok := fromTenant[*nodev1.RuntimeClass](c.runtimeClasses)(tenant.Name{Name: class})
	if !ok {
		return "", false
	}
	return found.Handler, true
}

// ofRuntimeClass: the view, and the pods that wait for what the class says.
func (s *Syncer) ofRuntimeClass(class *nodev1.RuntimeClass) []engine.Key {
	var waiting []engine.Key
	for _, o := range s.caches.tenant.pods.GetStore().List() {
		if p, ok := o.(*corev1.Pod); ok && p.Spec.NodeName == "" && p.Spec.RuntimeClassName != nil && *p.Spec.RuntimeClassName == class.Name {
			waiting = append(waiting, keys(translate.NameOf(p), kindPod)...)
		}
	}
	if slices.Contains(s.plan().RuntimeClasses, class.Name) || translate.IsRuntimeView(class) {
		waiting = append(waiting, keys(tenant.Name{Name: class.Name}, kindRuntimeClass)...)
	}
	return waiting
}
