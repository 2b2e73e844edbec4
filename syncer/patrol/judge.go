package patrol

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"sublet.dev/isolation/tenant"
)

// Verdict is what a host object is by its marks.
type Verdict int

const (
	// Other: nothing says that a syncer made it.
	Other Verdict = iota
	// Whole: it is this tenant's, and its marks say so.
	Whole
	// Damaged: its labels do not say what its annotations and its name prove, nor that
	// it is somebody else's.
	Damaged
	// Unreadable: it says that a syncer made it, but not for whom. It is in the way of
	// somebody, and only the provider can tell of whom.
	Unreadable
)

// Judge says what a host object in the host namespace of a tenant is, and for whom it
// was made (Whole and Damaged only). The host name is a hash of the tenant's ID and
// name: annotations that it fits were written by whoever named the object.
func Judge(self tenant.ID, hostObject metav1.Object) (tenant.Owner, Verdict) {
	labels, annotations := hostObject.GetLabels(), hostObject.GetAnnotations()
	owner, err := tenant.ReadOwner(hostObject.GetName(), labels, annotations)
	if err == nil && owner.Tenant == self {
		return owner, Whole
	}
	owner = tenant.Owner{
		Tenant: self,
		Name:   tenant.Name{Namespace: annotations[tenant.AnnotationNamespace], Name: annotations[tenant.AnnotationName]},
		UID:    annotations[tenant.AnnotationUID],
	}
	named := owner.UID != "" && owner.Name.Name != "" &&
		unsaid(labels[tenant.LabelTenant], string(self)) && unsaid(labels[tenant.LabelManagedBy], tenant.ManagedBySyncer)
	switch {
	case named && hostObject.GetName() == string(self.HostName(owner.Name)):
		return owner, Damaged
	case labels[tenant.LabelManagedBy] == tenant.ManagedBySyncer:
		return tenant.Owner{}, Unreadable
	default:
		return tenant.Owner{}, Other
	}
}

// unsaid says whether a mark is missing, or says what it should.
func unsaid(mark, should string) bool { return mark == "" || mark == should }
