// Package manager turns VirtualClusters of the host API into tenants that run,
// and takes them apart again.
//
// A reconciliation is a list of steps, each idempotent, in this order:
//
//	finalize  a finalizer, before anything exists that would have to be removed
//	allocate  host namespace, slice of the service range, port: once, in status
//	fence     host namespace, rights, limits (isolation/baseline)
//	service   the Service and EndpointSlice "kubernetes" for the tenant's pods
//	etcd      the credentials of a tenant that is kept in an etcd (spec.store)
//	host      the tenant's control plane in its cell
//	route     the front door's route to it
//
// and of a VirtualCluster that is being deleted:
//
//	unroute   nobody connects any more
//	stop      control plane and syncer end, so nothing makes new host objects
//	pods      host pods end, each with at most half a minute of grace
//	namespace the host namespace goes, with all that is in it
//	etcd      what a tenant keeps in an etcd (spec.store), if it does
//	files     store, keys, socket
//	finalizer the VirtualCluster itself
//
// A step that cannot be done yet stops the list; the condition says what is waited
// for. The manager watches its cells: a restarted one is given all the tenants that it
// had, as they were put last, and those that the manager has not put are reconciled. A
// tenant that is then as it was is no news.
//
// A VirtualCluster is reconciled when somebody asks something of it (its generation),
// when its cell says something new, when its plan changes, and when its host namespace
// is gone.
//
// The limits of a host namespace that count objects of a kind that the host has not had
// for long are changed, for nothing, until the host's quota controller counts them.
//
// What was allocated, the cell included, is in the status of the VirtualClusters and
// nowhere else. One process allocates at a time, from its cache of all of them and from
// what it has itself allocated that the cache does not show yet. A tenant gets the first cell that has room, and stays there; a cell that
// loses its last tenant is stopped, all but the first.
//
// The manager never writes inside a tenant and never touches a host namespace
// whose marks are not the tenant's.
package manager
