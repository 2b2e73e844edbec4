// Package stories has what tenants do with the tools they bring along, on real
// containers: a chart with helm, an operator made with controller-runtime, and some
// hundred objects with kubectl. The tools are as their makers build them, and know
// nothing of Sublet.
//
// All tests share one machine, as in package e2e; each has a tenant of its own, so
// they run at the same time. What they install is in testdata and in
// test/images/operator. `make test` builds the rest: bin/sublet, bin/peers/helm and
// bin/images. They need root and skip without it.
package stories
