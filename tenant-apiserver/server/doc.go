// Package server is one Kubernetes control plane as a value: Start, Serve,
// Stop. It is the façade of tenant-apiserver/internal/kube; what it exports
// uses only the standard library's, client-go's and k8s.io/api's types.
//
// # Flow
//
//	Start   opens the store file (a copy of the golden store if there is none
//	        yet), constructs the control plane on it, runs it, and returns
//	        when it answers
//	Serve   ends TLS on a listener and hands requests to this control plane,
//	        whatever host name they carry; may be called for several listeners
//	Stop    stops everything and closes the store; the file is all that is left
//
// Many Servers live in one process. Each has its own store file, authority,
// keys, informers and controllers; they share code, schemes, OpenAPI documents,
// feature gates, metrics and the log.
//
// # The golden store
//
// A new control plane needs about 180 objects that are equal for all of one
// version: RBAC's default roles, priority classes, flow schemas. They are
// written once into <GoldenDir>/kubernetes-<version>.db and copied from then on.
// The golden store holds only the kinds of objects listed in golden.go: nothing
// with a key, a token, an address or an identity gets in. A store
// says in one key which version bootstrapped it; when that is not the linked
// version, upstream's own bootstrap runs once.
//
// # Goroutines
//
// Run's (one, ended by Stop) and those of the control plane, which Run waits
// for; one per Serve, which is the caller's own.
//
// The package never listens, never logs what a tenant writes, and never exits
// the process.
package server
