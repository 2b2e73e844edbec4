// Package baseline returns the host objects that fence a tenant in, whoever
// writes to the host on its behalf: the namespace with its Pod Security label,
// the rights of the tenant's own host identity and of its cell in that namespace
// alone, and what the tenant may use up by its plan. Once a host, it returns the
// RuntimeClasses of the sandboxes, an admission policy that keeps plans in use, and
// those that restate the hard rules of package policy for each kind, so that a confused or
// conquered syncer still cannot make a host object that breaks them.
//
// The flow: the manager applies [Host] at start, [Cell] for each cell, [Tenant]
// for each tenant before its control plane runs, and deletes the same objects in
// the opposite order.
//
// The functions are pure: equal arguments give equal objects. They never read or
// write an API.
package baseline
