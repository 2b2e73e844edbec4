// Package syncer tests a tenant's syncer between two real control planes: a
// tenant's and a host's, with the host's scheduler and the rights of
// isolation/baseline, and without kubelets. What kubelets would say, the tests say.
//
// The host is ours, or with SUBLET_SYNCER_HOST=upstream an unmodified etcd,
// kube-apiserver, kube-controller-manager and kube-scheduler (`make syncer-upstream`),
// with what the manager applies to any host: the same tests hold of both.
package syncer
