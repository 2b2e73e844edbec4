// Package frontdoor lets every tenant's API be reached through one TCP port,
// without opening the TLS that it passes on.
//
//	client --TCP--> port --ClientHello--> server name --> tenant's unix socket
//	tenant's pods --TCP--> node address : tenant's own port --^ (no name needed)
//
// The front door reads a connection's ClientHello, within a size and a time, and
// takes the server name (SNI, RFC 6066 section 3) from it. The route with that
// name says which unix socket gets the connection, ClientHello first; from then
// on bytes are copied both ways and a half-close is passed on. TLS, and so the
// client's identity, ends in the tenant's own API server. A name without a route
// is answered with the alert unrecognized_name.
//
// A tenant's pods use the port that is the tenant's alone, since what they know
// of their API is only an address.
//
// Goroutines: [FrontDoor.Run] owns the listener of the shared port; each route
// with a port of its own has one accepting goroutine; each connection has one,
// plus one for the second direction. Run returns when all of them have ended.
//
// The package never decrypts, never authenticates and never picks a tenant by
// anything that the client sends but the server name. It knows nothing of
// Kubernetes.
package frontdoor
