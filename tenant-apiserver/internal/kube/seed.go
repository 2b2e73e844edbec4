package kube

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	genericapirequest "k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/apiserver/pkg/registry/rest"
	genericapiserver "k8s.io/apiserver/pkg/server"
	"k8s.io/kubernetes/pkg/api/legacyscheme"
	"k8s.io/kubernetes/pkg/apis/core"
	"k8s.io/kubernetes/pkg/apis/networking"
	"k8s.io/kubernetes/pkg/controlplane/controller/defaultservicecidr"
)

// seeds makes what a new control plane has of its own and nobody can do without: the
// first namespaces, and the range of service addresses. Upstream's start hooks make
// them by requests, after each other, and wait 100 ms here and there for what others
// have not made yet. Here the registries make them before anything runs: all that a
// request does, but for admission.
type seeds struct {
	namespaces, ranges, rangeStatus rest.Storage
	names                           []string
	cidrs                           []string
}

// findSeeds finds the registries among groups.
func (p *parts) findSeeds(groups []*genericapiserver.APIGroupInfo) {
	p.seeds.names = append([]string{metav1.NamespaceDefault}, p.run.SystemNamespaces...)
	p.seeds.cidrs = p.opts.serviceRanges()
	for _, group := range groups {
		v1 := group.VersionedResourcesStorageMap["v1"]
		switch group.PrioritizedVersions[0].Group {
		case corev1.GroupName:
			p.seeds.namespaces = v1["namespaces"]
		case networkingv1.GroupName:
			p.seeds.ranges, p.seeds.rangeStatus = v1["servicecidrs"], v1["servicecidrs/status"]
		}
	}
}

// make makes what is not there. What fails is for the start hooks.
func (s seeds) make(ctx context.Context) error {
	ranges := networkingv1.SchemeGroupVersion.WithResource("servicecidrs")
	made, err := s.create(asRequest(ctx, "create", ranges, ""), s.ranges, defaultservicecidr.DefaultServiceCIDRName, defaultRange(s.cidrs), &networking.ServiceCIDR{})
	if err != nil || made == nil {
		return err // a control plane that has run before has its namespaces
	}
	ctx = asRequest(ctx, "create", corev1.SchemeGroupVersion.WithResource("namespaces"), "")
	for _, name := range s.names {
		namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}
		if _, err := s.create(ctx, s.namespaces, name, namespace, &core.Namespace{}); err != nil {
			return err
		}
	}
	return s.ready(asRequest(ctx, "update", ranges, "status"), made)
}

// asRequest makes a context such as handlers give registries, for objects without
// namespace.
func asRequest(ctx context.Context, verb string, resource schema.GroupVersionResource, subresource string) context.Context {
	return genericapirequest.WithRequestInfo(genericapirequest.WithNamespace(ctx, metav1.NamespaceNone), &genericapirequest.RequestInfo{
		IsResourceRequest: true, Verb: verb, APIGroup: resource.Group, APIVersion: resource.Version,
		Resource: resource.Resource, Subresource: subresource,
	})
}

// create makes an object, given in version 1 and a place for the internal one, unless
// it is there. It returns nil then.
func (s seeds) create(ctx context.Context, in rest.Storage, name string, obj, internal runtime.Object) (runtime.Object, error) {
	registry, ok := in.(interface {
		rest.Getter
		rest.Creater
	})
	if !ok {
		return nil, fmt.Errorf("%T does not make objects", in)
	}
	_, err := registry.Get(ctx, name, &metav1.GetOptions{})
	if !apierrors.IsNotFound(err) {
		return nil, err
	}
	legacyscheme.Scheme.Default(obj)
	if err := legacyscheme.Scheme.Convert(obj, internal, nil); err != nil {
		return nil, err
	}
	made, err := registry.Create(ctx, internal, rest.ValidateAllObjectFunc, &metav1.CreateOptions{})
	if err != nil {
		return nil, fmt.Errorf("make %s: %w", name, err)
	}
	return made, nil
}

// ready says that the range is ready.
func (s seeds) ready(ctx context.Context, made runtime.Object) error {
	status, ok := s.rangeStatus.(rest.Updater)
	if !ok {
		return fmt.Errorf("%T does not change objects", s.rangeStatus)
	}
	var of networkingv1.ServiceCIDR
	if err := legacyscheme.Scheme.Convert(made, &of, nil); err != nil {
		return err
	}
	markReady(&of)
	var changed networking.ServiceCIDR
	if err := legacyscheme.Scheme.Convert(&of, &changed, nil); err != nil {
		return err
	}
	_, _, err := status.Update(ctx, of.Name, rest.DefaultUpdatedObjectInfo(&changed),
		rest.ValidateAllObjectFunc, rest.ValidateAllObjectUpdateFunc, false, &metav1.UpdateOptions{})
	return err
}
