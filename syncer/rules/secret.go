package rules

import (
	"maps"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"sublet.dev/isolation/tenant"
)

// ResultName is the name from which the host's name of a Secret comes that a
// controller of the host makes for a tenant's object. No object of the tenant's can
// have it, for names have no colons; and as it has the object's UID in it, no other
// object ever gets that Secret.
func (r *Rule) ResultName(tenantObject metav1.Object, secret string) tenant.Name {
	return tenant.Name{Namespace: tenantObject.GetNamespace(),
		Name: strings.Join([]string{secret, r.Name(), tenantObject.GetName(), string(tenantObject.GetUID())}, ":")}
}

// ReadResult says for which object a name of ResultName stands: the definition of its
// kind, and its name.
func ReadResult(n tenant.Name) (definition string, object tenant.Name, ok bool) {
	parts := strings.Split(n.Name, ":")
	if len(parts) != 4 {
		return "", tenant.Name{}, false
	}
	return parts[1], tenant.Name{Namespace: n.Namespace, Name: parts[2]}, true
}

// secretTypes are the types that a Secret keeps on its way up. Others mean something
// to controllers.
var secretTypes = map[corev1.SecretType]bool{
	corev1.SecretTypeTLS: true, corev1.SecretTypeBasicAuth: true, corev1.SecretTypeSSHAuth: true,
	corev1.SecretTypeDockerConfigJson: true, corev1.SecretTypeDockercfg: true,
}

// Secret returns the tenant's Secret of one that a controller of the host made for an
// object. It goes with the object.
func (r *Rule) Secret(tenantObject *unstructured.Unstructured, name string, hostSecret *corev1.Secret) *corev1.Secret {
	own := &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: tenantObject.GetNamespace(), Name: name,
			Annotations: map[string]string{AnnotationView: string(tenantObject.GetUID())},
			OwnerReferences: []metav1.OwnerReference{{APIVersion: r.Kind().GroupVersion().String(), Kind: r.Kind().Kind,
				Name: tenantObject.GetName(), UID: tenantObject.GetUID()}},
		},
		Type: corev1.SecretTypeOpaque,
		Data: maps.Clone(hostSecret.Data),
	}
	if secretTypes[hostSecret.Type] {
		own.Type = hostSecret.Type
	}
	return own
}

// ResultMarks are the labels and annotations that say for whom the host's Secret is.
func (r *Rule) ResultMarks(t tenant.Tenant, tenantObject metav1.Object, secret string) (labels, annotations map[string]string) {
	return tenant.Owner{Tenant: t.ID, Name: r.ResultName(tenantObject, secret), UID: string(tenantObject.GetUID())}.Marks()
}
