package syncer

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"sublet.dev/syncer/engine"
	"sublet.dev/syncer/translate"
)

// nodeViews is the tenant's nodes as the target of host nodes.
func (s *Syncer) nodeViews() engine.Views[*corev1.Node] {
	return engine.Views[*corev1.Node]{Cache: s.caches.tenantNodes.GetStore(), API: s.tenantAPI.CoreV1().Nodes(), Of: s.viewedNode}
}

// viewedNode says which host node a tenant's is a view of. The name of a view is a hash of
// the host node's, so a node of that name is its view, whatever the tenant made of it; one
// that has no host node is a view by its provider ID only.
func (s *Syncer) viewedNode(view *corev1.Node) (types.UID, error) {
	if hostNode, ok := s.caches.HostNode(view.Name); ok {
		return hostNode.UID, nil
	}
	if _, ok := translate.IsNodeView(view); ok {
		return "", nil
	}
	return "", fmt.Errorf("%w: node %q was made by the tenant", engine.ErrForeign, view.Name)
}
