// Package syncer tests a tenant's syncer between two real control planes: a
// tenant's and a host's, with the host's scheduler and the rights of
// isolation/baseline, and without kubelets. What kubelets would say, the tests say.
package syncer
