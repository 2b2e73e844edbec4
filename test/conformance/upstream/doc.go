// Package upstream runs upstream's conformance suite, the one that certifies a
// distribution of Kubernetes, as an ordinary client of one tenant:
//
//	build.sh   upstream's sources, Debian packages --> bin/conformance: e2e.test, images
//	run        a machine with `sublet up`, the images on its node, a tenant with a plan
//	           that leaves room; e2e.test with that tenant's kubeconfig --> JUnit
//	report     JUnit --> results/RUNTIME.txt, the figures in docs/conformance.md; and
//	           whether a test failed that known.yaml does not give a reason for
//
// `make conformance` does all of it. Nothing of upstream is in the repository: sources
// come as Go modules, pinned by binaries/go.mod, a module of its own because nothing
// else needs what the suite needs. Everything is as a tenant has it: the suite gets a
// kubeconfig and nothing else, and knows nothing of the host.
package upstream
