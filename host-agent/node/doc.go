// Package node turns a machine into a node: it finds out what the machine can do,
// prepares the kernel, runs containerd as a process that outlives the agent, and
// writes what the kubelet needs.
//
//	layout.go      where everything lies
//	dirs.go        its directories and mounts
//	machine.go     what the machine can do, and whether that is enough
//	sysctl.go      kernel settings, recorded before they are changed
//	cgroup.go      the cgroup that holds everything of this node
//	process.go     a process that outlives its starter, found again by its record
//	containerd.go  containerd: configuration, start, adoption, restart
//	images.go      images from files into containerd
//	imports.go     which images are the node's own since they came that way
//	cni.go         the pod network's configuration
//	kubelet.go     the kubelet's configuration
//	front.go       the listener in front of the kubelet
//	clean.go       everything above, undone
//
// Flow: Detect -> Prepare -> containerd -> kubelet configuration; the agent runs
// the kubelet between. Every change to the machine is confined to the node's own
// cgroup, run directory and data directory, or is recorded and undone by Clean.
//
// It never falls back to a weaker sandbox, never changes another node's objects,
// and never ends a process that it cannot prove to be its own.
package node
