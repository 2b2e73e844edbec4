// Package dns answers the DNS queries of a node's pods from host objects, by the
// Kubernetes DNS specification 1.1.0, without anything running per tenant: it
// works while a tenant's control plane sleeps.
//
// The flow: a query arrives (the fence has led it here from the tenant's DNS
// address, and made its source address unforgeable) -> the source address names the
// tenant -> names below cluster.local are answered from that tenant's Services and
// EndpointSlices in the host's informers, reverse names only for that tenant's own
// addresses, every other name is asked of the node's resolvers.
//
//	server.go   listens, bounds what is in flight, forwards
//	view.go     one tenant's names: pure, from listed objects to answers
//
// It never answers a client that is no pod of a tenant, never tells a tenant
// anything of another, and never transfers zones.
package dns
