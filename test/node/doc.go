// Package node runs a host agent on a machine of its own (package wire) under a
// real control plane, and looks at what the kernel, containerd and the API say.
//
// The test binary plays three parts: the tests with the control plane in process,
// the agent as a child that can be killed, and the CNI plugin that containerd
// calls. The tests need root and what `make deps` builds, and skip without.
package node
