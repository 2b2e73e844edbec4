package manager

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"sublet.dev/api/v1alpha1"
	"sublet.dev/isolation/baseline"
	"sublet.dev/isolation/tenant"
	"sublet.dev/tenant-apiserver/cell"
)

// apiService names the host Service behind which a tenant's pods find their API.
// No name that the syncer makes can be equal: those end in a hash.
const apiService = "kubernetes"

// errForeignNamespace means that a namespace with the tenant's name exists and is
// not the tenant's.
var errForeignNamespace = errors.New("the host namespace exists and is not this tenant's: rename or delete it")

// fence applies the host objects that have to be there before a tenant's first
// pod, and the Service of its API.
func (m *Manager) fence(ctx context.Context, vc *v1alpha1.VirtualCluster, t cell.Tenant, p v1alpha1.PlanSpec) error {
	if err := m.ownsNamespace(ctx, t.Tenant); err != nil {
		return err
	}
	objects := baseline.Tenant(t.Tenant, vc.Status.Cell, p)
	if err := m.pruneRights(ctx, t.Tenant, objects); err != nil { // before its record is replaced
		return err
	}
	for _, o := range objects {
		if err := Apply(ctx, m.api, o); err != nil {
			return err
		}
	}
	if err := m.pruneQuotas(ctx, t.Tenant, objects); err != nil { // when what limits the same is there
		return err
	}
	for _, o := range apiObjects(t) {
		if err := Apply(ctx, m.api, o); err != nil {
			return err
		}
	}
	m.hostnames.again() // the plan may allow others now
	m.recounts.look(ctx, vc.Name, p)
	return nil
}

// pruneRights removes the rights outside the tenant's host namespace that it does not have
// any longer, or had by an earlier version; those among kept stay.
func (m *Manager) pruneRights(ctx context.Context, t tenant.Tenant, kept []baseline.Object) error {
	var bindings rbacv1.ClusterRoleBindingList
	var roles rbacv1.ClusterRoleList
	for _, list := range []client.ObjectList{&bindings, &roles} {
		if err := m.api.List(ctx, list, client.MatchingLabels{tenant.LabelTenant: string(t.ID)}); err != nil {
			return fmt.Errorf("list the tenant's rights: %w", err)
		}
	}
	var all []client.Object
	for i := range bindings.Items {
		all = append(all, &bindings.Items[i])
	}
	for i := range roles.Items {
		for _, namespace := range baseline.ShownIn(&roles.Items[i]) {
			meta := metav1.ObjectMeta{Namespace: namespace, Name: baseline.ShowIn(t)}
			all = append(all, &rbacv1.RoleBinding{ObjectMeta: meta}, &rbacv1.Role{ObjectMeta: meta})
		}
		all = append(all, &roles.Items[i]) // after those that it says are there
	}
	for _, o := range all {
		if slices.ContainsFunc(kept, func(k baseline.Object) bool { return isSame(k, o) }) {
			continue
		}
		if err := client.IgnoreNotFound(m.api.Delete(ctx, o)); err != nil {
			return fmt.Errorf("remove the right %s: %w", client.ObjectKeyFromObject(o), err)
		}
	}
	return nil
}

// isSame says whether two objects are of one kind and have one name.
func isSame(a, b client.Object) bool {
	return reflect.TypeOf(a) == reflect.TypeOf(b) && client.ObjectKeyFromObject(a) == client.ObjectKeyFromObject(b)
}

// ownsNamespace refuses to adopt a namespace that does not bear the tenant's mark.
func (m *Manager) ownsNamespace(ctx context.Context, t tenant.Tenant) error {
	var ns corev1.Namespace
	err := m.api.Get(ctx, client.ObjectKey{Name: t.HostNamespace}, &ns)
	switch {
	case apierrors.IsNotFound(err):
		return nil
	case err != nil:
		return fmt.Errorf("read host namespace %s: %w", t.HostNamespace, err)
	case ns.Labels[tenant.LabelTenant] != string(t.ID):
		return fmt.Errorf("host namespace %s: %w", t.HostNamespace, errForeignNamespace)
	}
	return nil
}

// apiObjects are the host Service and EndpointSlice that lead from the first
// address of the tenant's slice to the front door's port for it.
func apiObjects(t cell.Tenant) []client.Object {
	meta := metav1.ObjectMeta{
		Namespace: t.HostNamespace, Name: apiService,
		Labels: map[string]string{tenant.LabelTenant: string(t.ID), tenant.LabelManagedBy: tenant.ManagedByManager},
	}
	service := &corev1.Service{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Service"},
		ObjectMeta: meta,
		Spec: corev1.ServiceSpec{
			ClusterIP: tenant.APIAddress(t.ServiceCIDR).String(),
			Ports:     []corev1.ServicePort{{Name: "https", Protocol: corev1.ProtocolTCP, Port: 443}},
		},
	}
	slice := &discoveryv1.EndpointSlice{
		TypeMeta:    metav1.TypeMeta{APIVersion: "discovery.k8s.io/v1", Kind: "EndpointSlice"},
		ObjectMeta:  *meta.DeepCopy(),
		AddressType: discoveryv1.AddressTypeIPv4,
		Endpoints:   []discoveryv1.Endpoint{{Addresses: []string{t.InCluster.Addr().String()}, Conditions: discoveryv1.EndpointConditions{Ready: ptr(true)}}},
		Ports:       []discoveryv1.EndpointPort{{Name: ptr("https"), Protocol: ptr(corev1.ProtocolTCP), Port: ptr(int32(t.InCluster.Port()))}},
	}
	slice.Labels[discoveryv1.LabelServiceName] = apiService
	slice.Labels[discoveryv1.LabelManagedBy] = fieldOwner
	return []client.Object{service, slice}
}

func ptr[T any](v T) *T { return &v }

// Apply makes a host object so, with the manager as the owner of the fields that
// are set (server-side apply). Fields that others set stay, unless they
// contradict. The object's apiVersion and kind must be set. A ResourceQuota has no
// owners of fields: see quota.go.
func Apply(ctx context.Context, api client.Client, o runtime.Object) error {
	if q, ok := o.(*corev1.ResourceQuota); ok {
		return applyQuota(ctx, api, q)
	}
	fields, err := runtime.DefaultUnstructuredConverter.ToUnstructured(o)
	if err != nil {
		return fmt.Errorf("convert %T: %w", o, err)
	}
	u := &unstructured.Unstructured{Object: fields}
	unstructured.RemoveNestedField(u.Object, "metadata", "creationTimestamp")
	unstructured.RemoveNestedField(u.Object, "status")
	err = api.Apply(ctx, client.ApplyConfigurationFromUnstructured(u), client.FieldOwner(fieldOwner), client.ForceOwnership)
	if err != nil {
		return fmt.Errorf("apply host %s %s: %w", u.GetKind(), client.ObjectKeyFromObject(u), err)
	}
	return nil
}
