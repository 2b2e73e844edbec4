package syncer

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"sublet.dev/isolation/tenant"
	"sublet.dev/syncer/engine"
	"sublet.dev/syncer/translate"
)

// nodeViews is the tenant's nodes as the target of host nodes.
type nodeViews struct{ *Syncer }

// Cached implements engine.Target.
func (v nodeViews) Cached(n tenant.Name) (*corev1.Node, bool) {
	return fromTenant[*corev1.Node](v.caches.tenantNodes)(n)
}

// Live implements engine.Target.
func (v nodeViews) Live(ctx context.Context, n tenant.Name) (*corev1.Node, bool, error) {
	view, err := v.tenantAPI.CoreV1().Nodes().Get(ctx, n.Name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil, false, nil
	}
	return view, err == nil, err
}

// Owner implements engine.Target. The name of a view is a hash of the host node's,
// so a node of that name is its view, whatever the tenant made of it; one that has
// no host node is a view by its provider ID only.
func (v nodeViews) Owner(view *corev1.Node) (types.UID, error) {
	if hostNode, ok := v.caches.HostNode(view.Name); ok {
		return hostNode.UID, nil
	}
	if _, ok := translate.IsNodeView(view); ok {
		return "", nil
	}
	return "", fmt.Errorf("%w: node %q was made by the tenant", engine.ErrForeign, view.Name)
}

// Writer implements engine.Target.
func (v nodeViews) Writer(tenant.Name) engine.Writer[*corev1.Node] {
	return v.tenantAPI.CoreV1().Nodes()
}
