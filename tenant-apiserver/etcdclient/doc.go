// Package etcdclient lets Kubernetes' own storage code run on package store: it
// is an etcd client without a network, and the way to have upstream use it.
//
//	k8s.io/apiserver: etcd3 storage, compactor, health checks, leases, NodePorts
//	        | go.etcd.io/etcd/client/v3: KV, Watcher, Lease, Maintenance
//	etcdclient                    requests and answers translated, one to one
//	        | Txn, Read, Watch, Grant, Compact
//	store                         one bbolt file
//
// KV, Lease and Maintenance are etcd's client code over the gRPC stubs kvStub,
// leaseStub and maintenanceStub, which call the store where generated stubs
// would write to a connection. OptimisticPut, the way of nearly all writes, is our
// own, since etcd's copies every value twice. So is Watcher: etcd's buffers without
// bound for a slow reader, and takes four goroutines for a watch where one is
// enough.
//
// Upstream builds every etcd client through one variable of its storage
// factory. Install replaces what is in it, Register says which store an
// endpoint like "bbolt://<tenant>" stands for, and --etcd-servers names the
// endpoint. Real etcd servers (http, https) still reach upstream's function.
//
// # A real etcd
//
// DialEtcd connects to a part of an etcd that the provider runs, and RegisterEtcd
// puts that in place of a store. All clients of one tenant share a connection, and
// every key is below the tenant's prefix without upstream's code knowing it: keys
// and values are the same as in a store, so a tenant can be moved.
//
// What upstream does not use is answered with Unimplemented, never with a
// guess: sorting and filtering of ranges, nested transactions, comparisons of
// ranges, and the administration of etcd clusters.
//
// # Goroutines
//
// One for each watch, ended by its context or by closing the client; closing
// the client waits for it.
package etcdclient
