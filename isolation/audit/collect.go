package audit

import (
	"context"
	"fmt"
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	nodev1 "k8s.io/api/node/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	clientscheme "k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"sublet.dev/api/v1alpha1"
	"sublet.dev/isolation/baseline"
	"sublet.dev/isolation/tenant"
)

// newScheme returns the types that an audit reads and writes.
func newScheme() (*runtime.Scheme, error) {
	s := runtime.NewScheme()
	if err := clientscheme.AddToScheme(s); err != nil {
		return nil, fmt.Errorf("make the scheme: %w", err)
	}
	if err := v1alpha1.AddToScheme(s); err != nil {
		return nil, fmt.Errorf("make the scheme: %w", err)
	}
	return s, nil
}

// collector reads the objects of the host API. What it cannot read becomes an
// unknown fact, so it has no errors of its own.
type collector struct{ host client.Reader }

// list reads all objects of a list's kind that match.
func list[L any, P interface {
	*L
	client.ObjectList
}, T any](ctx context.Context, host client.Reader, items func(*L) []T, options ...client.ListOption) Fact[[]T] {
	l := P(new(L))
	if err := host.List(ctx, l, options...); err != nil {
		return Unknown[[]T](fmt.Errorf("list on the host: %w", err))
	}
	return Known(items((*L)(l)))
}

// tenants reads every tenant.
func (c collector) tenants(ctx context.Context) Fact[[]v1alpha1.VirtualCluster] {
	return list(ctx, c.host, func(l *v1alpha1.VirtualClusterList) []v1alpha1.VirtualCluster { return l.Items })
}

// tenant reads what the host API has of a tenant.
func (c collector) tenant(ctx context.Context, name string) *Facts {
	var vc v1alpha1.VirtualCluster
	err := c.host.Get(ctx, client.ObjectKey{Name: name}, &vc)
	f := &Facts{Tenant: Found(vc, err), Tenants: c.tenants(ctx)}
	if err != nil {
		return f
	}
	namespace := vc.Status.Namespace
	if namespace != "" {
		f.Served = Found(c.served(ctx, namespace)) // before what the tenant has: a name is its own before it is served
	}
	f.Namespaces = c.namespaces(ctx, vc)
	if namespace == "" {
		return f // everything below stays unknown: there is no namespace to read
	}
	in := client.InNamespace(namespace)
	before := c.pods(ctx, vc)
	f.EndpointSlices = list(ctx, c.host, func(l *discoveryv1.EndpointSliceList) []discoveryv1.EndpointSlice { return l.Items }, in)
	f.Services = list(ctx, c.host, func(l *corev1.ServiceList) []corev1.Service { return l.Items }, in)
	f.Pods = c.pods(ctx, vc)
	f.PodIPs = podIPs(before, f.Pods)
	f.Quotas = list(ctx, c.host, func(l *corev1.ResourceQuotaList) []corev1.ResourceQuota { return l.Items }, in)
	f.RuntimeClasses = list(ctx, c.host, func(l *nodev1.RuntimeClassList) []nodev1.RuntimeClass { return l.Items })
	f.Bindings = Found(c.bindings(ctx, vc))
	f.Objects = Found(c.objects(ctx, namespace))
	f.Plan = Found(c.plan(ctx, vc))
	f.Baseline = Found(c.baseline(ctx, vc, f.Plan))
	return f
}

// hostFacts reads what the checks of the host need.
func (c collector) hostFacts(ctx context.Context) *Facts {
	f := &Facts{}
	// Objects first: a tenant made after them has none among them, and one
	// that goes away takes its objects with it before it is gone.
	f.Marked = Found(c.marked(ctx))
	f.Tenants = c.tenants(ctx)
	return f
}

func (c collector) marked(ctx context.Context) ([]Object, error) {
	var out []Object
	for _, kind := range []string{"Namespace", "Pod"} {
		objects, err := c.metadata(ctx, corev1.SchemeGroupVersion.WithKind(kind), client.HasLabels{tenant.LabelTenant})
		if err != nil {
			return nil, err
		}
		out = append(out, objects...)
	}
	return out, nil
}

func (c collector) namespaces(ctx context.Context, vc v1alpha1.VirtualCluster) Fact[[]corev1.Namespace] {
	all := list(ctx, c.host, func(l *corev1.NamespaceList) []corev1.Namespace { return l.Items })
	spaces, err := all.Get()
	if err != nil {
		return all
	}
	return Known(slices.DeleteFunc(spaces, func(ns corev1.Namespace) bool {
		return ns.Name != vc.Status.Namespace && ns.Labels[tenant.LabelTenant] != string(vc.UID)
	}))
}

// pods reads the pods in the tenant's host namespace and those elsewhere that
// carry its mark.
func (c collector) pods(ctx context.Context, vc v1alpha1.VirtualCluster) Fact[[]corev1.Pod] {
	items := func(l *corev1.PodList) []corev1.Pod { return l.Items }
	inside := list(ctx, c.host, items, client.InNamespace(vc.Status.Namespace))
	pods, err := inside.Get()
	if err != nil {
		return inside
	}
	marked := list(ctx, c.host, items, client.MatchingLabels{tenant.LabelTenant: string(vc.UID)})
	elsewhere, err := marked.Get()
	if err != nil {
		return marked
	}
	for _, p := range elsewhere {
		if p.Namespace != vc.Status.Namespace {
			pods = append(pods, p)
		}
	}
	return Known(slices.DeleteFunc(pods, func(p corev1.Pod) bool { return isCanary(&p) }))
}

// podIPs is the addresses of all pods in several readings.
func podIPs(readings ...Fact[[]corev1.Pod]) Fact[[]string] {
	ips := map[string]bool{}
	for _, r := range readings {
		pods, err := r.Get()
		if err != nil {
			return Unknown[[]string](err)
		}
		for _, p := range pods {
			for _, ip := range p.Status.PodIPs {
				ips[ip.IP] = true
			}
		}
	}
	return Known(slices.Sorted(maps.Keys(ips)))
}

// bindings reads the RoleBindings in the tenant's host namespace and the
// ClusterRoleBindings that give its write identity more than every host lets all
// service accounts read.
func (c collector) bindings(ctx context.Context, vc v1alpha1.VirtualCluster) ([]Binding, error) {
	var bindings rbacv1.RoleBindingList
	if err := c.host.List(ctx, &bindings, client.InNamespace(vc.Status.Namespace)); err != nil {
		return nil, fmt.Errorf("list role bindings: %w", err)
	}
	var out []Binding
	for _, b := range bindings.Items {
		out = append(out, Binding{Object: Object{"RoleBinding", b.ObjectMeta}, RoleRef: b.RoleRef, Subjects: b.Subjects,
			Rules: Found(c.rules(ctx, b.Namespace, b.RoleRef))})
	}
	var cluster rbacv1.ClusterRoleBindingList
	if err := c.host.List(ctx, &cluster); err != nil {
		return nil, fmt.Errorf("list cluster role bindings: %w", err)
	}
	for _, b := range cluster.Items {
		if !slices.ContainsFunc(b.Subjects, func(s rbacv1.Subject) bool { return meansWriter(vc, s) }) {
			continue
		}
		rules := Found(c.rules(ctx, "", b.RoleRef))
		if known, err := rules.Get(); err == nil && isDefault(b.Labels) && readOnly(known) {
			continue
		}
		out = append(out, Binding{Object: Object{"ClusterRoleBinding", b.ObjectMeta}, RoleRef: b.RoleRef, Subjects: b.Subjects, Rules: rules})
	}
	return out, nil
}

// plan reads the tenant's plan.
func (c collector) plan(ctx context.Context, vc v1alpha1.VirtualCluster) (v1alpha1.Plan, error) {
	var p v1alpha1.Plan
	if err := c.host.Get(ctx, client.ObjectKey{Name: vc.Spec.Plan}, &p); err != nil {
		return p, fmt.Errorf("read plan %s: %w", vc.Spec.Plan, err)
	}
	return p, nil
}

// baseline reads the live form of every object that fences the tenant in and
// exists.
func (c collector) baseline(ctx context.Context, vc v1alpha1.VirtualCluster, plan Fact[v1alpha1.Plan]) ([]baseline.Object, error) {
	p, err := plan.Get()
	if err != nil {
		return nil, err
	}
	want, err := rendered(vc, p)
	if err != nil {
		return nil, err
	}
	var out []baseline.Object
	for _, o := range want {
		kind := o.GetObjectKind().GroupVersionKind()
		live := o.DeepCopyObject().(baseline.Object)
		switch err := c.host.Get(ctx, client.ObjectKeyFromObject(o), live); {
		case err == nil:
			live.GetObjectKind().SetGroupVersionKind(kind)
			out = append(out, live)
		case !apierrors.IsNotFound(err):
			return nil, fmt.Errorf("read %s %s: %w", kind.Kind, o.GetName(), err)
		}
	}
	return out, nil
}

// rules reads what a role grants. A role that does not exist grants nothing.
func (c collector) rules(ctx context.Context, namespace string, ref rbacv1.RoleRef) ([]rbacv1.PolicyRule, error) {
	var err error
	var rules []rbacv1.PolicyRule
	if ref.Kind == "Role" {
		var r rbacv1.Role
		err = c.host.Get(ctx, client.ObjectKey{Namespace: namespace, Name: ref.Name}, &r)
		rules = r.Rules
	} else {
		var r rbacv1.ClusterRole
		err = c.host.Get(ctx, client.ObjectKey{Name: ref.Name}, &r)
		rules = r.Rules
	}
	if client.IgnoreNotFound(err) != nil {
		return nil, fmt.Errorf("read %s %s: %w", ref.Kind, ref.Name, err)
	}
	return rules, nil
}

// tenantKinds are the kinds whose metadata is looked at in a host namespace.
// Data is never read, so that of Secrets is not either.
var tenantKinds = []schema.GroupVersionKind{
	corev1.SchemeGroupVersion.WithKind("Pod"),
	corev1.SchemeGroupVersion.WithKind("Service"),
	corev1.SchemeGroupVersion.WithKind("ConfigMap"),
	corev1.SchemeGroupVersion.WithKind("Secret"),
	corev1.SchemeGroupVersion.WithKind("ServiceAccount"),
	corev1.SchemeGroupVersion.WithKind("PersistentVolumeClaim"),
	corev1.SchemeGroupVersion.WithKind("ResourceQuota"),
	discoveryv1.SchemeGroupVersion.WithKind("EndpointSlice"),
	rbacv1.SchemeGroupVersion.WithKind("Role"),
	rbacv1.SchemeGroupVersion.WithKind("RoleBinding"),
}

// objects reads the metadata of the namespace and of everything in it.
func (c collector) objects(ctx context.Context, namespace string) ([]Object, error) {
	var ns corev1.Namespace
	if err := c.host.Get(ctx, client.ObjectKey{Name: namespace}, &ns); err != nil {
		return nil, fmt.Errorf("read the host namespace: %w", err)
	}
	out := []Object{{"Namespace", ns.ObjectMeta}}
	for _, kind := range tenantKinds {
		objects, err := c.metadata(ctx, kind, client.InNamespace(namespace))
		if err != nil {
			return nil, err
		}
		out = append(out, objects...)
	}
	return out, nil
}

func (c collector) metadata(ctx context.Context, kind schema.GroupVersionKind, options ...client.ListOption) ([]Object, error) {
	l := &metav1.PartialObjectMetadataList{}
	l.SetGroupVersionKind(kind.GroupVersion().WithKind(kind.Kind + "List"))
	if err := c.host.List(ctx, l, options...); err != nil {
		return nil, fmt.Errorf("list the metadata of %ss: %w", kind.Kind, err)
	}
	out := make([]Object, 0, len(l.Items))
	for _, o := range l.Items {
		out = append(out, Object{kind.Kind, o.ObjectMeta})
	}
	return out, nil
}
