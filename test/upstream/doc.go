// Package upstream runs a Kubernetes control plane as upstream ships it: etcd,
// kube-apiserver, kube-controller-manager and kube-scheduler as processes, unchanged,
// with their defaults but for addresses, credentials and files.
//
//	Start -> etcd, kube-apiserver -> the API answers
//	StartControllers, StartScheduler -> beside it, as two more clients
//
// It is what tests and benchmarks put Sublet on, or beside. The programs are built by
// `make upstream` from the modules that go.mod pins. All of it listens on loopback
// only, and ends when Stop returns or when its process does.
package upstream
