package baseline

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"sublet.dev/isolation/tenant"
)

// Object is any host object. Its apiVersion and kind are set, so it can be
// applied as it is.
type Object interface {
	metav1.Object
	runtime.Object
}

// meta is the metadata of an object of a tenant; namespace is "" for objects
// without one.
func meta(t tenant.Tenant, namespace, name string) metav1.ObjectMeta {
	return metav1.ObjectMeta{
		Namespace: namespace,
		Name:      name,
		Labels: map[string]string{
			tenant.LabelTenant:    string(t.ID),
			tenant.LabelManagedBy: tenant.ManagedByManager,
		},
	}
}

// hostMeta is the metadata of an object that belongs to no tenant.
func hostMeta(name string) metav1.ObjectMeta {
	return metav1.ObjectMeta{
		Name:   name,
		Labels: map[string]string{tenant.LabelManagedBy: tenant.ManagedByManager},
	}
}

func typeMeta(apiVersion, kind string) metav1.TypeMeta {
	return metav1.TypeMeta{APIVersion: apiVersion, Kind: kind}
}
