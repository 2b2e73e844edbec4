package v1alpha1

import (
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
)

// Directions of a CustomResourceRule.
const (
	// ToHost: the tenant's objects are carried out by controllers of the host.
	ToHost = "ToHost"
	// FromHost: objects of the host are shown to the tenant.
	FromHost = "FromHost"
	// InTenant: tenants have the kind, and nothing of it crosses. No plan can say so: it
	// is for what Sublet itself reads of tenants.
	InTenant = "InTenant"
)

// What becomes of fields that a CustomResourceRule does not name.
const (
	// RefuseOthers: an object that has one does not get to the host.
	RefuseOthers = "Refuse"
	// DropOthers: they do not get to the host.
	DropOthers = "Drop"
)

// CustomResourceRule lets objects of one kind of the host's, one that a
// CustomResourceDefinition there defines, cross between host and tenants. The
// tenants' APIs get the kind from the host's definition. No field crosses that the
// rule does not name.
//
// +kubebuilder:validation:XValidation:rule="self.direction == 'FromHost' ? has(self.select) : !has(self.select)",message="select says which objects go FromHost: those rules need it, and no others have it"
// +kubebuilder:validation:XValidation:rule="self.direction == 'ToHost' || !has(self.status) && !has(self.hostLabels)",message="status and hostLabels belong to rules ToHost: FromHost, name status fields among fields"
// +kubebuilder:validation:XValidation:rule="self.direction == 'ToHost' || !has(self.fields) || self.fields.all(f, !has(f.reference) && !has(f.result) && !has(f.values))",message="fields that go FromHost are copied or have a value: reference, result and values belong to rules ToHost"
// +kubebuilder:validation:XValidation:rule="self.direction == 'FromHost' || !has(self.fields) || self.fields.all(f, !f.path.matches('^status([.\\\\[]|$)'))",message="status fields do not go ToHost: those that come back are in status"
// +kubebuilder:validation:XValidation:rule="!has(self.fields) || self.fields.all(a, self.fields.all(b, !b.path.startsWith(a.path + '.') && !b.path.startsWith(a.path + '[')))",message="a path stands for all that is below it: no field may be below another"
type CustomResourceRule struct {
	// Group, Version, Kind and Resource (the plural) are those of the host's
	// definition. Kinds that Kubernetes or Sublet has itself are not among them.
	//
	// +kubebuilder:validation:MaxLength=190
	// +kubebuilder:validation:Pattern=`^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)+$`
	// +kubebuilder:validation:XValidation:rule="self != 'sublet.dev' && !self.matches('^(admissionregistration|apiextensions|apiregistration|authentication|authorization|rbac.authorization|certificates|coordination|discovery|events|flowcontrol.apiserver|internal.apiserver|networking|gateway.networking|node|resource|scheduling|storage|snapshot.storage|groupsnapshot.storage|storagemigration|metrics|custom.metrics|external.metrics)[.]k8s[.]io$')",message="the kinds of this group are Kubernetes' or Sublet's own: no rule can be made for them (snapshotClasses of the plan offers snapshots, ingress.gatewayClasses gateways)"
	Group string `json:"group"`
	// +kubebuilder:validation:MaxLength=30
	// +kubebuilder:validation:Pattern=`^v[0-9]+((alpha|beta)[0-9]+)?$`
	Version string `json:"version"`
	// +kubebuilder:validation:MaxLength=63
	// +kubebuilder:validation:Pattern=`^[A-Z][A-Za-z0-9]*$`
	Kind string `json:"kind"`
	// +kubebuilder:validation:MaxLength=63
	// +kubebuilder:validation:Pattern=`^[a-z]([-a-z0-9]*[a-z0-9])?$`
	Resource string `json:"resource"`

	// Direction is ToHost (the tenant's objects become objects in its host namespace)
	// or FromHost (objects of the host are shown, and cannot be changed).
	//
	// +kubebuilder:validation:Enum=ToHost;FromHost
	Direction string `json:"direction"`

	// Max is how many of them a tenant may have on the host.
	//
	// +kubebuilder:default=100
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=10000
	// +optional
	Max *int32 `json:"max,omitempty"`

	// Fields are what crosses. What is below a path goes with it, so name leaves
	// where something below could be a reference, or could name what others own.
	//
	// +kubebuilder:validation:MaxItems=40
	// +listType=map
	// +listMapKey=path
	// +optional
	Fields []CustomResourceField `json:"fields,omitempty"`

	// OtherFields says what becomes of the fields that are not named, ToHost: an
	// object that has one is refused (Refuse), or goes without them (Drop).
	//
	// +kubebuilder:validation:Enum=Refuse;Drop
	// +kubebuilder:default=Refuse
	OtherFields string `json:"otherFields,omitempty"`

	// Status are the paths below status that come back, ToHost.
	//
	// +kubebuilder:validation:MaxItems=32
	// +kubebuilder:validation:items:MaxLength=200
	// +kubebuilder:validation:items:Pattern=`^status(\.[A-Za-z0-9_-]+(\[\])?)+$`
	// +kubebuilder:validation:XValidation:rule="self.all(a, self.all(b, !b.startsWith(a + '.') && !b.startsWith(a + '[')))",message="a path stands for all that is below it: no path may be below another"
	// +listType=set
	// +optional
	Status []string `json:"status,omitempty"`

	// HostLabels stand on the host's objects beside Sublet's own, ToHost: some
	// controllers know by a label what is theirs.
	//
	// +kubebuilder:validation:MaxItems=8
	// +listType=map
	// +listMapKey=name
	// +optional
	HostLabels []HostLabel `json:"hostLabels,omitempty"`

	// Select says which objects are shown, FromHost.
	//
	// +optional
	Select *HostSelection `json:"select,omitempty"`
}

// CustomResourceField is what becomes of one field. Without anything but a path it is
// copied.
//
// +kubebuilder:validation:XValidation:rule="(has(self.reference) ? 1 : 0) + (has(self.result) ? 1 : 0) + (has(self.values) ? 1 : 0) <= 1",message="a field has one of reference, result and values, or none"
// +kubebuilder:validation:XValidation:rule="!self.path.matches('^(apiVersion|kind|metadata)([.\\\\[]|$)')",message="apiVersion, kind and metadata never cross"
type CustomResourceField struct {
	// Path is the field's, with dots between names; [] after the name of a list
	// stands for each of its items: spec.dnsNames, spec.rules[].host.
	//
	// +kubebuilder:validation:MaxLength=160
	// +kubebuilder:validation:Pattern=`^[A-Za-z0-9_-]+(\[\])?(\.[A-Za-z0-9_-]+(\[\])?)*$`
	Path string `json:"path"`

	// Values are the only ones, as text, that the field may have. The first is that
	// of an object without the field.
	//
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=32
	// +kubebuilder:validation:items:MaxLength=253
	// +listType=atomic
	// +optional
	Values []string `json:"values,omitempty"`

	// Reference says that the field is the name of an object in the same namespace,
	// and of which kind: Secret, ConfigMap (both then get to the host, too), Service,
	// PersistentVolumeClaim, or KIND.GROUP of another rule. The host's object gets
	// the name of that one on the host. Namespace: the field is the object's own
	// namespace, and becomes the host's.
	//
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:Pattern=`^(Secret|ConfigMap|Service|PersistentVolumeClaim|Namespace|[A-Z][A-Za-z0-9]*\.[a-z0-9.-]+)$`
	// +optional
	Reference string `json:"reference,omitempty"`

	// Result says that the field is the name of a Secret that a controller of the
	// host makes for the object. It is brought to the tenant under that name.
	//
	// +kubebuilder:validation:Enum=Secret
	// +optional
	Result string `json:"result,omitempty"`

	// Value is what the field always is, whatever the object, and the rest of this,
	// says.
	//
	// +optional
	Value *apiextensionsv1.JSON `json:"value,omitempty"`
}

// HostLabel is a label of objects of the host.
type HostLabel struct {
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:XValidation:rule="!self.matches('^([^/]*[.])?sublet[.]dev/')",message="hostLabels are outside of sublet.dev"
	Name string `json:"name"`
	// +kubebuilder:validation:MaxLength=63
	Value string `json:"value"`
}

// HostSelection chooses objects of the host, by name or by label.
//
// +kubebuilder:validation:XValidation:rule="has(self.names) || has(self.matchLabels)",message="select needs names or matchLabels: not everything is shown"
// +kubebuilder:validation:XValidation:rule="!has(self.tenantNamespace) || has(self.namespace)",message="tenantNamespace is for objects of a namespace"
type HostSelection struct {
	// Names are those of the objects.
	//
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=100
	// +kubebuilder:validation:items:MaxLength=253
	// +listType=set
	// +optional
	Names []string `json:"names,omitempty"`

	// MatchLabels are labels that the objects have, all of them.
	//
	// +kubebuilder:validation:MinProperties=1
	// +kubebuilder:validation:MaxProperties=8
	// +optional
	MatchLabels map[string]string `json:"matchLabels,omitempty"`

	// Namespace is the host namespace in which the objects are, for kinds that have
	// one; TenantNamespace is where the tenant sees them (default: default).
	//
	// +kubebuilder:validation:MaxLength=63
	// +optional
	Namespace string `json:"namespace,omitempty"`
	// +kubebuilder:validation:MaxLength=63
	// +optional
	TenantNamespace string `json:"tenantNamespace,omitempty"`
}
