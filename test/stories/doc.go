// Package stories has what tenants do with the tools they bring along, on real
// containers: a chart with helm, an operator made with controller-runtime, and some
// hundred objects with kubectl. The tools are as their makers build them, and know
// nothing of Sublet.
//
// All tests share one machine, as in package e2e; each has a tenant of its own, so
// they run at the same time. What they install is in testdata and in
// test/images/operator. `make stories` builds the rest and runs all of them; `make
// test` runs the operator's alone, for the time that the others take. They need root
// and skip without it.
package stories
