package syncer

import (
	"context"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	nodev1 "k8s.io/api/node/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
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
		Target: runtimeViews{s},
		Want: be(func(offer *nodev1.RuntimeClass) *nodev1.RuntimeClass {
			view := offer.DeepCopy()
			view.UID = ""
			return view
		}),
		Merge: translate.MergeRuntimeClass,
	}
}

// runtimeViews is the tenant's RuntimeClasses as the target of those that are offered.
type runtimeViews struct{ *Syncer }

// Cached implements engine.Target.
func (v runtimeViews) Cached(n tenant.Name) (*nodev1.RuntimeClass, bool) {
	return fromTenant[*nodev1.RuntimeClass](v.caches.runtimeClasses)(n)
}

// Live implements engine.Target.
func (v runtimeViews) Live(ctx context.Context, n tenant.Name) (*nodev1.RuntimeClass, bool, error) {
	view, err := v.tenantAPI.NodeV1().RuntimeClasses().Get(ctx, n.Name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil, false, nil
	}
	return view, err == nil, err
}

// Owner implements engine.Target. A class of an offered name is the view, whatever the
// tenant made of it; any other is one by its mark.
func (v runtimeViews) Owner(view *nodev1.RuntimeClass) (types.UID, error) {
	switch {
	case slices.Contains(v.plan().RuntimeClasses, view.Name):
		return translate.RuntimeClass(view.Name).UID, nil
	case translate.IsRuntimeView(view):
		return "", nil
	default:
		return "", fmt.Errorf("%w: RuntimeClass %q was made by the tenant", engine.ErrForeign, view.Name)
	}
}

// Writer implements engine.Target.
func (v runtimeViews) Writer(tenant.Name) engine.Writer[*nodev1.RuntimeClass] {
	return v.tenantAPI.NodeV1().RuntimeClasses()
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
