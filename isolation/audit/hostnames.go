package audit

import (
	"context"
	"fmt"
	"slices"
	"strings"

	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"sublet.dev/isolation/policy"
	"sublet.dev/isolation/tenant"
)

// served reads what serves hostnames in a namespace. A host without the Gateway API has
// no Gateways and no HTTPRoutes.
func (c collector) served(ctx context.Context, namespace string) ([]Served, error) {
	var ingresses networkingv1.IngressList
	if err := c.host.List(ctx, &ingresses, client.InNamespace(namespace)); err != nil {
		return nil, fmt.Errorf("list ingresses: %w", err)
	}
	var out []Served
	for _, i := range ingresses.Items {
		s := Served{Object: Object{"Ingress", i.ObjectMeta}}
		for _, r := range i.Spec.Rules {
			s.Hostnames = append(s.Hostnames, r.Host)
		}
		if i.Spec.DefaultBackend != nil {
			s.Hostnames = append(s.Hostnames, "")
		}
		out = append(out, s)
	}
	for _, kind := range []string{policy.GatewayKind, policy.HTTPRouteKind} {
		list := &unstructured.UnstructuredList{}
		list.SetGroupVersionKind(schema.GroupVersionKind{Group: policy.GatewayGroup, Version: policy.GatewayVersion, Kind: kind + "List"})
		err := c.host.List(ctx, list, client.InNamespace(namespace))
		if meta.IsNoMatchError(err) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("list objects of the kind %s: %w", kind, err)
		}
		for _, o := range list.Items {
			out = append(out, Served{Object{kind, metav1.ObjectMeta{Namespace: o.GetNamespace(), Name: o.GetName(), UID: o.GetUID()}}, policy.RoutedHostnames(o.Object)})
		}
	}
	return out, nil
}

func evalHostnames(f *Facts) Outcome {
	vc, err := f.Tenant.Get()
	if err != nil {
		return inconclusive("the tenant was not read", err)
	}
	spaces, err := f.Namespaces.Get()
	if err != nil {
		return inconclusive("the host namespaces were not read", err)
	}
	served, err := f.Served.Get()
	if err != nil {
		return inconclusive("what serves hostnames was not read", err)
	}
	var has []string
	for _, ns := range spaces {
		if text := ns.Annotations[tenant.AnnotationHostnames]; ns.Name == vc.Status.Namespace && text != "" {
			has = strings.Split(text, ",")
		}
	}
	var bad findings
	for _, s := range served {
		for _, name := range s.Hostnames {
			switch {
			case name == "":
				bad.add(s.Ref(), "serves every hostname")
			case !slices.Contains(has, name):
				bad.add(s.Ref(), "serves %s, which the tenant has not", name)
			}
		}
	}
	return bad.verdict(Columns{Declared: count(len(has), "hostname"), Rendered: count(len(served), "object") + " read"})
}
