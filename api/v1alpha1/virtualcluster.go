package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

// Phase is a VirtualCluster's state in one word.
type Phase string

// The phases. A tenant is Failed only when waiting will not help: its condition
// Ready says what to do. One that is Asleep answers whoever connects, after a moment.
const (
	PhaseCreating Phase = "Creating"
	PhaseReady    Phase = "Ready"
	PhaseAsleep   Phase = "Asleep"
	PhaseFailed   Phase = "Failed"
	PhaseDeleting Phase = "Deleting"
)

// The types of conditions in VirtualClusterStatus.
const (
	// ConditionFenced is true once the host namespace, its rights and limits are
	// in place and the tenant's addresses are known to the agents.
	ConditionFenced = "Fenced"
	// ConditionReady is true while the tenant's API answers.
	ConditionReady = "Ready"
	// ConditionPlanApplied is true while the tenant has what its plan says.
	ConditionPlanApplied = "PlanApplied"
	// ConditionAuthenticationApplied is true while spec.authentication holds, and
	// absent without one.
	ConditionAuthenticationApplied = "AuthenticationApplied"
)

// Finalizer keeps a VirtualCluster until everything it stands for is gone.
const Finalizer = "sublet.dev/teardown"

// VirtualCluster is a tenant: a Kubernetes cluster of its own on this host.
//
// +kubebuilder:object:root=true
// +kubebuilder:resource:scope=Cluster,shortName=vc
// +kubebuilder:subresource:status
// +kubebuilder:printcolumn:name="Phase",type=string,JSONPath=`.status.phase`
// +kubebuilder:printcolumn:name="Plan",type=string,JSONPath=`.spec.plan`
// +kubebuilder:printcolumn:name="Sandbox",type=string,JSONPath=`.spec.sandbox`
// +kubebuilder:printcolumn:name="Namespace",type=string,JSONPath=`.status.namespace`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:validation:XValidation:rule="self.metadata.name.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$') && size(self.metadata.name) <= 63",message="a tenant's name is a DNS-1123 label of at most 63 characters"
// +kubebuilder:validation:XValidation:rule="!(self.metadata.name in ['host','sublet','localhost','kubernetes','default','all','kube-system','kube-public','kube-node-lease']) && !self.metadata.name.startsWith('sublet-')",message="this tenant name is reserved"
type VirtualCluster struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// +kubebuilder:default={}
	Spec   VirtualClusterSpec   `json:"spec,omitempty"`
	Status VirtualClusterStatus `json:"status,omitempty"`
}

// VirtualClusterSpec is what the provider asks for.
//
// +kubebuilder:validation:XValidation:rule="!has(oldSelf.sandbox) || (has(self.sandbox) && self.sandbox == oldSelf.sandbox)",message="the sandbox can't be changed: create another tenant"
type VirtualClusterSpec struct {
	// Plan names the Plan that says what the tenant may have. It can be changed at
	// any time.
	//
	// +kubebuilder:default=small
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	// +optional
	Plan string `json:"plan,omitempty"`

	// Sandbox is what the tenant's pods run in, the first of the plan's when none
	// is given. It can't be changed: pods would have to be made again.
	//
	// +kubebuilder:validation:Enum=gvisor;runc-userns
	// +optional
	Sandbox string `json:"sandbox,omitempty"`
	// Store is where the tenant's cluster is kept. Left out: in a file on the host.
	// A change is refused when the tenant starts on a store that is not its own:
	// `sublet store migrate` moves a tenant.
	//
	// +optional
	Store *StoreSpec `json:"store,omitempty"`

	// Authentication is an AuthenticationConfiguration (apiserver.config.k8s.io/v1), as
	// kube-apiserver has it, without `anonymous`: the OpenID Connect issuers whose
	// tokens the tenant's API takes. It can be changed at any time. No issuer can make
	// users or groups whose names begin with "system:". An issuer is connected to at
	// public addresses and at the tenant's own pods; with `egressSelectorType:
	// controlplane` directly, from this machine, which is for issuers that the provider
	// runs.
	//
	// +kubebuilder:pruning:PreserveUnknownFields
	// +optional
	Authentication *runtime.RawExtension `json:"authentication,omitempty"`

	// Authority is which of the tenant's CAs sign and are trusted.
	//
	// +kubebuilder:default={generation: 1, oldest: 1}
	Authority AuthoritySpec `json:"authority,omitempty"`
}

// VirtualClusterStatus is what the manager reports. Once given, Namespace,
// ServiceCIDR, APIPort and Cell stay.
type VirtualClusterStatus struct {
	// +optional
	Phase Phase `json:"phase,omitempty"`
	// Namespace is the host namespace that holds all of the tenant's objects.
	// +optional
	Namespace string `json:"namespace,omitempty"`
	// ServiceCIDR is the tenant's slice of the host's service range. Its first
	// address is the tenant's API, its tenth the tenant's DNS.
	// +optional
	ServiceCIDR string `json:"serviceCIDR,omitempty"`
	// SecondServiceCIDR is the tenant's slice of the host's service range of IPv6, if
	// the host has one: its Services can then have addresses of both families.
	// +optional
	SecondServiceCIDR string `json:"secondServiceCIDR,omitempty"`
	// APIAddress and APIPort are where the front door listens for the tenant's
	// own pods alone.
	// +optional
	APIAddress string `json:"apiAddress,omitempty"`
	// +optional
	APIPort int32 `json:"apiPort,omitempty"`
	// Endpoint is the URL of the tenant's API at the front door.
	// +optional
	Endpoint string `json:"endpoint,omitempty"`
	// ServerName is the TLS server name (SNI) by which the front door knows the
	// tenant.
	// +optional
	ServerName string `json:"serverName,omitempty"`
	// Cell is the process that hosts the tenant's control plane.
	// +optional
	Cell string `json:"cell,omitempty"`
	// NoInternet is true when the tenant's plan keeps its pods from public
	// addresses. The agents read it here, for they do not see plans.
	// +optional
	NoInternet bool `json:"noInternet,omitempty"`
	// IngressFrom are the host namespaces of the ingress controllers that may reach the
	// tenant's pods, as its plan says. The agents read it here.
	// +optional
	// +listType=atomic
	IngressFrom []string `json:"ingressFrom,omitempty"`
	// Authority is which of the tenant's CAs sign and are trusted.
	// +optional
	Authority AuthorityStatus `json:"authority,omitempty"`
	// +optional
	// +listType=map
	// +listMapKey=type
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}

// VirtualClusterList is a list of tenants.
//
// +kubebuilder:object:root=true
type VirtualClusterList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []VirtualCluster `json:"items"`
}
