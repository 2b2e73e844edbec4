// Package server is one Kubernetes control plane as a value: Start, Serve,
// Stop. It is the façade of tenant-apiserver/internal/kube; what it exports
// uses only the standard library's, client-go's and k8s.io/api's types, and those
// of the packages beside it.
//
// # Flow
//
//	Start   opens the store and its keys, writes the golden objects into one
//	        that is new, constructs the control plane on it, runs it, and
//	        returns when it answers
//	Serve   ends TLS on a listener and hands requests to this control plane,
//	        whatever host name they carry; may be called for several listeners
//	Stop    stops everything and closes the store, which is all that is left
//
// Many Servers live in one process. Each has its own store, authority,
// keys, informers and controllers; they share code, schemes, OpenAPI documents,
// feature gates, metrics and the log.
//
// # The store
//
// It is a file (package store), or a part of an etcd that the provider runs
// (etcdclient.DialEtcd); nothing above knows which. Besides upstream's /registry
// there are a few keys below /sublet.dev: the version that was bootstrapped, which
// encryption keys the values need, and, in an etcd, whose part it is.
//
// # The golden objects
//
// A new control plane needs about 180 objects that are equal for all of one
// version: RBAC's default roles, priority classes, flow schemas. They are
// made once, in <GoldenDir>/kubernetes-<version>-<n>.golden, and written from there
// into every new store. They are only of the kinds listed in golden.go: nothing
// with a key, a token, an address or an identity gets in. When a store was
// bootstrapped by another version, upstream's own bootstrap runs once.
//
// # Encryption
//
// With Config.KeyFile every value in the store is encrypted, the golden objects,
// custom resources and upstream's own bookkeeping included, with keys that only
// this store has (package keyring). The store names the keys that it needs, so one
// without its keys is refused, never started empty or in plaintext; a store that is
// not encrypted yet is read, and rewritten while the server runs. RotateKey rewrites
// everything under a new key the same way. Exceptions are the storage keys
// themselves, the tenant's ID, and compact_rev_key, a number of upstream's compactor.
//
// # Goroutines
//
// Run's (one, ended by Stop), a rotation's, and those of the control plane, which
// Run waits for; one per Serve, which is the caller's own.
//
// The package never listens, never logs what a tenant writes, and never exits
// the process.
package server
