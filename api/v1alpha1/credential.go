package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// The types of conditions in CredentialStatus.
const (
	// ConditionIssued is true once the certificate is there, false when it was
	// refused.
	ConditionIssued = "Issued"
	// ConditionRevoked is true once the tenant's API refuses the certificate.
	ConditionRevoked = "Revoked"
)

// CredentialFinalizer keeps the record of a credential that was deleted before its
// end: until then the tenant's API has to know that it is revoked.
const CredentialFinalizer = "sublet.dev/revoke"

// Credential is a client certificate that a tenant's authority signed: the record
// of a kubeconfig. The key is its holder's and is nowhere on the host. A credential
// that is deleted is revoked.
//
// +kubebuilder:object:root=true
// +kubebuilder:resource:scope=Cluster,shortName=cred
// +kubebuilder:subresource:status
// +kubebuilder:printcolumn:name="Tenant",type=string,JSONPath=`.spec.tenant`
// +kubebuilder:printcolumn:name="User",type=string,JSONPath=`.spec.user`
// +kubebuilder:printcolumn:name="Groups",type=string,JSONPath=`.spec.groups`
// +kubebuilder:printcolumn:name="Revoked",type=boolean,JSONPath=`.spec.revoked`
// +kubebuilder:printcolumn:name="Expires",type=string,JSONPath=`.status.notAfter`
type Credential struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec   CredentialSpec   `json:"spec"`
	Status CredentialStatus `json:"status,omitempty"`
}

// CredentialSpec is what is asked for. Only Revoked can be changed, and only once.
//
// +kubebuilder:validation:XValidation:rule="self.tenant == oldSelf.tenant && self.user == oldSelf.user && self.groups == oldSelf.groups && self.request == oldSelf.request && has(self.lifetime) == has(oldSelf.lifetime) && (!has(self.lifetime) || self.lifetime == oldSelf.lifetime)",message="a credential can't be changed: make another"
// +kubebuilder:validation:XValidation:rule="self.revoked || !oldSelf.revoked",message="a revoked credential stays revoked: make another"
type CredentialSpec struct {
	// Tenant is the name of the VirtualCluster whose authority signs.
	//
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	Tenant string `json:"tenant"`

	// User and Groups are whom the tenant's API takes the holder for.
	//
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	User string `json:"user"`
	// +kubebuilder:default={}
	// +kubebuilder:validation:MaxItems=32
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=253
	// +listType=atomic
	Groups []string `json:"groups"`

	// Lifetime is how long the certificate is valid, that of the plan when none is
	// given.
	//
	// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('1s')",message="lifetime is at least 1s"
	// +optional
	Lifetime *metav1.Duration `json:"lifetime,omitempty"`

	// Request is a PKCS #10 certificate request, PEM-encoded: proof that who asks
	// has the key. The names in it are not looked at.
	//
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=16384
	Request []byte `json:"request"`

	// Revoked ends the credential before its time: the tenant's API refuses it, and
	// closes what is open with it.
	//
	// +kubebuilder:default=false
	Revoked bool `json:"revoked"`
}

// CredentialStatus is what the manager reports.
type CredentialStatus struct {
	// Certificate is the client certificate, and Authorities are the CAs by which
	// its holder knows the tenant's API, both PEM-encoded.
	//
	// +optional
	Certificate []byte `json:"certificate,omitempty"`
	// +optional
	Authorities []byte `json:"authorities,omitempty"`
	// Serial is the certificate's serial number in hexadecimal.
	//
	// +optional
	Serial string `json:"serial,omitempty"`
	// Generation is that of the tenant's CA which signed.
	//
	// +optional
	Generation int64 `json:"generation,omitempty"`
	// +optional
	NotAfter *metav1.Time `json:"notAfter,omitempty"`
	// +optional
	// +listType=map
	// +listMapKey=type
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}

// CredentialList is a list of credentials.
//
// +kubebuilder:object:root=true
type CredentialList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []Credential `json:"items"`
}

// AuthoritySpec is which of a tenant's CAs sign and are trusted. CAs are counted
// from 1. To rotate is to raise Generation; to end the trust in the one before is
// to raise Oldest.
//
// +kubebuilder:validation:XValidation:rule="self.oldest <= self.generation && self.generation <= self.oldest + 1",message="oldest is generation, or the one before: finish a rotation before the next"
// +kubebuilder:validation:XValidation:rule="self.generation >= oldSelf.generation && self.oldest >= oldSelf.oldest",message="a CA that was given up does not come back"
type AuthoritySpec struct {
	// Generation is the CA that signs. Another is made when it is raised.
	//
	// +kubebuilder:default=1
	// +kubebuilder:validation:Minimum=1
	Generation int64 `json:"generation,omitempty"`
	// Oldest is the oldest CA whose certificates are still good.
	//
	// +kubebuilder:default=1
	// +kubebuilder:validation:Minimum=1
	Oldest int64 `json:"oldest,omitempty"`
}

// AuthorityStatus is which of a tenant's CAs sign and are trusted.
type AuthorityStatus struct {
	// +optional
	Generation int64 `json:"generation,omitempty"`
	// +optional
	Oldest int64 `json:"oldest,omitempty"`
	// NotAfter is when the CA ends that signs.
	//
	// +optional
	NotAfter *metav1.Time `json:"notAfter,omitempty"`
}
