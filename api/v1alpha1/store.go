package v1alpha1

// SystemNamespace is the namespace of the host API that has the Secrets which
// VirtualClusters refer to. Cells and tenants have no access to it.
const SystemNamespace = "sublet-system"

// StoreSpec is where a tenant's cluster is kept: a file on the host unless it says
// something else.
type StoreSpec struct {
	// Etcd keeps it in an etcd that the provider runs.
	//
	// +optional
	Etcd *EtcdStore `json:"etcd,omitempty"`
}

// EtcdStore is a part of an etcd.
//
// +kubebuilder:validation:XValidation:rule="self.endpoints.all(e, e.startsWith('https://')) || (!has(self.tls) && !has(self.auth))",message="credentials are sent to https endpoints only"
type EtcdStore struct {
	// Endpoints are the client URLs of the members: https://HOST:PORT, or http:// for
	// an etcd that asks nobody who he is.
	//
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=9
	// +kubebuilder:validation:items:MaxLength=300
	// +kubebuilder:validation:items:Pattern=`^https?://[^/@?#\s]+:[0-9]{1,5}$`
	// +listType=set
	Endpoints []string `json:"endpoints"`
	// Prefix begins all of the tenant's keys. No other tenant on the same etcd may
	// have one that begins with it. Left out: /sublet/NAME/.
	//
	// +kubebuilder:validation:Pattern=`^/([A-Za-z0-9_.-]+/)+$`
	// +kubebuilder:validation:MaxLength=200
	// +optional
	Prefix string `json:"prefix,omitempty"`
	// TLS is how the members and the tenant's server prove who they are.
	//
	// +optional
	TLS *EtcdTLS `json:"tls,omitempty"`
	// Auth is an etcd user and his password.
	//
	// +optional
	Auth *EtcdAuth `json:"auth,omitempty"`
}

// EtcdTLS refers to certificates.
type EtcdTLS struct {
	// SecretName is a Secret in namespace sublet-system of the host API. Its ca.crt
	// are the authorities of the members (left out: those that the host trusts),
	// its tls.crt and tls.key the client certificate (left out: none).
	//
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	SecretName string `json:"secretName"`
}

// EtcdAuth refers to a user and his password.
type EtcdAuth struct {
	// SecretName is a Secret in namespace sublet-system of the host API with
	// username and password.
	//
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	SecretName string `json:"secretName"`
}

// EtcdPrefix is what begins all of the tenant's keys, or "" when the tenant is not
// kept in an etcd. It ends in a slash.
func (vc *VirtualCluster) EtcdPrefix() string {
	store := vc.Spec.Store
	switch {
	case store == nil || store.Etcd == nil:
		return ""
	case store.Etcd.Prefix != "":
		return store.Etcd.Prefix
	}
	return "/sublet/" + vc.Name + "/"
}
