// Package v1alpha1 has the objects a provider manages Sublet with: they live in
// the host API, in group sublet.dev.
//
// A VirtualCluster is a tenant. The provider writes its spec (usually through
// `sublet create`), the manager reconciles it and writes its status, and the
// agents read the status to build the tenant's fence. Tenants never see or write
// these objects.
//
// The package has types and their manifests only; it does nothing.
//
// +kubebuilder:object:generate=true
// +groupName=sublet.dev
package v1alpha1
