// Package netpol is the fence on a node: it renders package policy's description
// of who may reach whom to one nftables table and keeps the kernel's equal to it.
//
// The flow: the tenants, nodes, pods and network policies come from the host API, the
// node's own endpoints from podnet's registry -> [Render] makes the whole table of
// them, a pure function -> the kernel's table is replaced in one transaction ->
// connections of addresses that are no pod's any more are forgotten.
//
//	enforcer.go   when to render, and what the CNI plugin may be told
//	repair.go     putting back what somebody else changed
//	kernel.go     what the kernel has
//	watch.go      the host API's side
//	state.go      what a table is rendered from
//	render.go     the table
//	chains.go     one tenant's part of it: the boundary
//	allow.go      what a tenant's own policies allow
//	nodeports.go  where tenants' pods get by their node ports
//	guards.go     which of its pods they isolate
//	policies.go   the rules that say so: the second tier
//	judge.go      cutting connections that policies have come to forbid
//	await.go      what has to be known before a pod starts
//	spans.go      ranges of addresses
//	conntrack.go  forgetting connections
//	facts.go      what is meant and what the kernel has, for audits
//
// A packet of a pod passes, in this order: source (prerouting, raw: an address
// that is not the interface's is dropped, before the kernel remembers anything),
// translate (prerouting, nat: the tenant's DNS address leads to this node's server, its
// node ports at the addresses that it knows nodes by lead to its Services' pods),
// then to_node (input) or tenant boundary (forward: the sender's chain, the sender's
// policies, the receiver's chain, the receiver's policies). Policies come after the
// boundary, so they can only narrow what it allows. Dispatch is by interface, so that
// no packet can choose its tenant. Addresses of Services are translated before the
// boundary, so it judges where a packet really goes.
//
// Whoever is not known is dropped; a pod whose labels or policies are not known does
// not start, and one that is found running so reaches nothing. The rules stay when the
// agent ends or dies; it renders nothing until it knows the tenants again. A table that
// somebody changes by hand is put back within seconds, and the connections of the
// node's pods are judged anew; while it can't be read, no pod starts. Packets of the
// node itself (probes, the front door) are not filtered; packets from outside come in
// by the node ports and load balancers of tenants' Services alone, and those of the
// provider's pods if they are ingress controllers of the tenant's plan.
package netpol
