// Package plan says what a Plan of the host API means for one tenant.
//
//	v1alpha1.Plan --For--> Terms --manager, cell.Tenant--> the tenant's control plane
//	              --Sandbox--> what its pods may run in
//	              --Lifetime-> how long kubeconfigs are valid
//
// Every field of a Plan has its meaning here and nowhere else, but for the tenant's
// quota on the host (isolation/baseline). The functions are
// pure: equal plans give equal terms, and a plan that lacks a field (because it is
// older than the field, say) gets the default of the API's schema.
//
// The package also has the plans that every host starts with. It never reads or
// writes an API.
package plan
