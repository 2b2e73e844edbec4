// Package sandbox knows the sandboxes of a node: how gVisor is configured, which
// sandboxes really work there, what runs around a given pod, and how to reach a
// port inside a gVisor sandbox.
//
//	runsc.go    gVisor's configuration, and a proof that it starts
//	idmap.go    a proof that pods can have user ids of their own
//	offer.go    which sandboxes the node may offer
//	inspect.go  a pod's sandbox: CRI's word and /proc's
//	forward.go  a connection to a port inside a gVisor sandbox
//
// It reads and proves; it starts no pod and chooses no sandbox. A sandbox that was
// not proven is not offered, so its pods stay pending: there is no second best.
package sandbox
