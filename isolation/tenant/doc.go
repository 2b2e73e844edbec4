// Package tenant is the vocabulary of the isolation between tenants: who a
// tenant is, how its objects are named on the host, and which labels and
// annotations mark them there.
//
// Naming is isolation. All objects of a tenant share one host namespace, so two
// different tenant objects must never get one host name, and no key that a
// tenant chose may stand on a host object. Every mapping here is therefore
// injective (up to SHA-256 collisions in at least 64 bits), depends only on its
// arguments, and keeps a readable prefix for people who look at the host.
//
// The flow: the manager makes a [Tenant] from a VirtualCluster; the syncer maps
// [Name] to [HostName] and labels with [HostLabels]; the agent's DNS and fence
// and the audit read the marks back.
//
// The package holds no state, talks to nothing, and imports none of the parts
// that use it.
package tenant
