package tenant

import "fmt"

// The marks on host objects. All keys are ours; values that a tenant chose stand
// only where the comment says so.
const (
	// ClusterDomain is the DNS domain of every tenant's cluster.
	ClusterDomain = "cluster.local"
	// Domain is the group of our API and the prefix of our keys.
	Domain = "sublet.dev"
	// LabelTenant, on every host object of a tenant, holds the tenant's [ID].
	LabelTenant = Domain + "/tenant"
	// LabelNamespace, on every namespaced host object of a tenant, holds
	// [NamespaceValue] of the tenant's namespace.
	LabelNamespace = Domain + "/namespace"
	// LabelManagedBy says who wrote a host object: [ManagedBySyncer] or
	// [ManagedByManager].
	LabelManagedBy = Domain + "/managed-by"
	// AnnotationNamespace and AnnotationName hold the tenant object's namespace
	// and name, as the tenant chose them.
	AnnotationNamespace = Domain + "/tenant-namespace"
	AnnotationName      = Domain + "/tenant-name"
	// AnnotationUID holds the UID of the tenant object: the proof of ownership.
	AnnotationUID = Domain + "/tenant-uid"

	// labelPrefix precedes the hash of a tenant's own label key.
	labelPrefix = "label." + Domain + "/"
)

// Values of [LabelManagedBy].
const (
	ManagedBySyncer  = "syncer"
	ManagedByManager = "manager"
)

// HostLabel returns the key under which a tenant's own label key stands on host
// objects: the tenant's key itself never reaches the host.
func HostLabel(key string) string { return labelPrefix + digest(20, key) }

// HostLabels returns labels with every key mapped by [HostLabel]. It returns a
// new map that the caller owns.
func HostLabels(labels map[string]string) map[string]string {
	host := make(map[string]string, len(labels))
	for k, v := range labels {
		host[HostLabel(k)] = v
	}
	return host
}

// NamespaceValue returns the label value that stands for a tenant's namespace.
func NamespaceValue(namespace string) string { return digest(20, namespace) }

// Owner is what the marks of a host object say about whom it was made for.
type Owner struct {
	Tenant ID
	Name   Name
	UID    string
}

// Marks returns the labels and annotations that every host object of an owner
// carries. The caller owns both maps.
func (o Owner) Marks() (labels, annotations map[string]string) {
	labels = map[string]string{
		LabelTenant:    string(o.Tenant),
		LabelNamespace: NamespaceValue(o.Name.Namespace),
		LabelManagedBy: ManagedBySyncer,
	}
	annotations = map[string]string{
		AnnotationNamespace: o.Name.Namespace,
		AnnotationName:      o.Name.Name,
		AnnotationUID:       o.UID,
	}
	return labels, annotations
}

// ReadOwner reads the marks of a host object back. It returns an error when one
// is missing or when they contradict each other or the object's name: such an
// object was not made by a syncer for that owner and must not be touched.
func ReadOwner(hostName string, labels, annotations map[string]string) (Owner, error) {
	o := Owner{
		Tenant: ID(labels[LabelTenant]),
		Name:   Name{Namespace: annotations[AnnotationNamespace], Name: annotations[AnnotationName]},
		UID:    annotations[AnnotationUID],
	}
	switch {
	case labels[LabelManagedBy] != ManagedBySyncer:
		return Owner{}, fmt.Errorf("host object %q: label %s is %q, not %q", hostName, LabelManagedBy, labels[LabelManagedBy], ManagedBySyncer)
	case o.Tenant == "" || o.UID == "" || o.Name.Name == "":
		return Owner{}, fmt.Errorf("host object %q: an ownership mark is missing", hostName)
	case labels[LabelNamespace] != NamespaceValue(o.Name.Namespace):
		return Owner{}, fmt.Errorf("host object %q: label %s does not fit namespace %q", hostName, LabelNamespace, o.Name.Namespace)
	case hostName != string(o.Tenant.HostName(o.Name)):
		return Owner{}, fmt.Errorf("host object %q: its marks name %s, which has another host name", hostName, o.Name)
	}
	return o, nil
}
