package manager

import (
	"context"
	"fmt"
	"slices"

	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"sublet.dev/api/v1alpha1"
	"sublet.dev/isolation/policy"
)

// gatewayKinds are the kinds that a plan with gateway classes needs of the host.
var gatewayKinds = []schema.GroupVersionKind{
	{Group: policy.GatewayGroup, Version: policy.GatewayVersion, Kind: policy.GatewayClassKind},
	{Group: policy.GatewayGroup, Version: policy.GatewayVersion, Kind: policy.GatewayKind},
	{Group: policy.GatewayGroup, Version: policy.GatewayVersion, Kind: policy.HTTPRouteKind},
	{Group: policy.GatewayGroup, Version: policy.ReferenceGrantVersion, Kind: policy.ReferenceGrantKind},
}

// noGateways names a kind that a plan needs for its gateway classes and the host has not;
// "": none. What cannot be asked now is not missing.
func (m *Manager) noGateways(p *v1alpha1.Plan) string {
	if len(p.Spec.Ingress.GatewayClasses) == 0 {
		return ""
	}
	for _, kind := range gatewayKinds {
		if _, err := m.api.RESTMapper().RESTMapping(kind.GroupKind(), kind.Version); meta.IsNoMatchError(err) {
			return kind.Kind + " of " + kind.GroupVersion().String()
		}
	}
	return ""
}

// routed adds the hostnames that Gateways and HTTPRoutes of the host serve, by namespace.
// A host without these kinds has none.
func (h *hostnames) routed(ctx context.Context, serves map[string][]string) error {
	for _, kind := range []string{policy.GatewayKind, policy.HTTPRouteKind} {
		list := &unstructured.UnstructuredList{}
		list.SetGroupVersionKind(schema.GroupVersionKind{Group: policy.GatewayGroup, Version: policy.GatewayVersion, Kind: kind + "List"})
		err := h.manager.api.List(ctx, list)
		if meta.IsNoMatchError(err) {
			continue
		}
		if err != nil {
			return fmt.Errorf("read the host's objects of the kind %s: %w", kind, err)
		}
		for _, o := range list.Items {
			names := slices.DeleteFunc(policy.RoutedHostnames(o.Object), func(n string) bool { return n == "" })
			serves[o.GetNamespace()] = append(serves[o.GetNamespace()], names...)
		}
	}
	return nil
}
