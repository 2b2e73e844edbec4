// Package kube builds complete Kubernetes control planes inside one process,
// from k8s.io/kubernetes as a library. It is the only package of this folder
// that imports k8s.io/kubernetes; everything it exports speaks the standard
// library's, client-go's and k8s.io/api's types.
//
// # Flow
//
//	Prepare    once per process: feature gates, the storage seam, what a
//	           panic or klog.Fatal may do, and a check of the places in
//	           upstream that we depend on without an API (fragile.go)
//	New        constructs one control plane, running nothing
//	Run        starts its hooks, informers and controllers, and blocks
//
// One Instance is the upstream API server (registries, validation, admission,
// RBAC, API priority and fairness) with the API extensions server as its
// delegate and the aggregator in front, upstream's controllers on the API
// server's own informers, and, for the host flavour, upstream's scheduler and
// node controllers.
//
// # What differs from kube-apiserver and kube-controller-manager
//
//   - Storage is an endpoint registered with tenant-apiserver/etcdclient; no
//     connection is opened.
//   - The loopback client calls the handler directly (loopback.go): no socket,
//     no TLS, no generated RSA keys. Such requests carry a mark that cannot be
//     forged from outside.
//   - OpenAPI documents of built-in types are built once per process, when
//     somebody first asks for one (openapi.go); those of custom resources belong to
//     an instance.
//   - The routes of a built-in resource are installed by its first request, which
//     waits for that (lateresources.go). What upstream's installer says of all of
//     them, discovery included, is recorded once per process (apis.go).
//   - Of an object of a built-in type that is written, upstream's check that it is of
//     that type is left out (fieldowners.go), and the goroutines that answer get their
//     stacks at once (stack.go): together some 6 % of what a pod takes.
//   - The aggregator is upstream's, with what it runs for API servers of the
//     tenant's own (discovery, OpenAPI, availability) made when the first of them
//     is named (remote.go): most tenants have none.
//   - A tenant's control plane has one way out, Options.Dial (dial.go): webhooks,
//     aggregated APIs and proxy subresources take it, Services by the addresses
//     of their endpoints. The kubelet is an http.Handler in this process. What is
//     read into memory of a tenant's answers is bounded (remoteserver.go).
//
// # What is shared by all instances of a process
//
// Schemes, generated OpenAPI, feature gates, metrics, klog and its Fatal. A
// klog.Fatal ends the calling goroutine, not the process (process.go); the
// instance it belongs to never becomes ready, or says so in its readiness.
// kube-openapi's builders write to the definitions they use, and a concurrent
// write to a map ends a process: so construction is serialised, documents are
// rendered from definitions of their own (openapi.go), and the definitions of custom resources are
// made unwritable (unshare.go).
package kube
