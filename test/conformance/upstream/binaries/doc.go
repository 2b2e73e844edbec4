// Package binaries names what upstream's conformance suite is built from, so that go.mod
// pins it: the suite itself, and the servers that its images contain.
package binaries

import _ "k8s.io/kubernetes/test/e2e"
