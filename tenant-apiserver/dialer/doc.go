// Package dialer makes the connections of one tenant's control plane, and decides
// which it makes.
//
// Whatever a tenant writes into a webhook, an APIService, a Service, an
// EndpointSlice, a Pod or a Node, its API server dials from the provider's
// network. So there is one way out, and it leads to two places:
//
//		DialContext --name--> resolve once --addresses--> Decide --allowed--> connect
//		                                                    |                   |
//		               Network: whose pod, whose machine?  <+------ once more <-+
//
//	  - the tenant's own pods: an address of which the host (never the tenant) says
//	    that a running pod of this tenant has it, before the connection and again
//	    once it stands, so that an address that changed hands meanwhile is not
//	    talked to;
//	  - public addresses, if the tenant may: global unicast addresses that are no
//	    private, shared, documentation or translated ones, and none of the host's.
//
// [Rules.Decide] is the whole of the decision and does nothing else. It is asked
// about the very address that the kernel is about to connect to, so names that
// change what they resolve to, and redirects, which are new connections, gain
// nothing.
//
// An error says which rule refused, and never what a name resolved to: names are
// looked up by the provider's resolver, and its answers are not the tenant's.
//
// The package starts no goroutine that outlives a call, keeps no connection, and
// knows nothing of Kubernetes.
package dialer
