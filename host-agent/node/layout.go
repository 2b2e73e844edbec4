package node

import (
	"crypto/sha256"
	"encoding/hex"
	"path/filepath"
)

// Layout says where a node's files lie. Both fields are absolute paths.
type Layout struct {
	// Data is Sublet's data directory on this machine.
	Data string
	// Bin holds the node's binaries, as `make deps` builds them.
	Bin string
}

// ID tells nodes on one machine apart: a digest of the data directory.
func (l Layout) ID() string {
	sum := sha256.Sum256([]byte(l.Data))
	return hex.EncodeToString(sum[:4])
}

// Run is the directory of sockets and of state that does not survive a boot. It
// is not below Data, because the address of a socket holds 107 bytes.
func (l Layout) Run() string { return filepath.Join("/run/sublet", l.ID()) }

// Cgroup is the path, in every hierarchy, of the cgroup that holds containerd and
// all pods of this node.
func (l Layout) Cgroup() string { return "/sublet-" + l.ID() }

// Agent holds the agent's own files.
func (l Layout) Agent() string { return filepath.Join(l.Data, "agent") }

// KubeletRoot is the kubelet's root directory: pods' volumes are mounted below.
func (l Layout) KubeletRoot() string { return filepath.Join(l.Agent(), "kubelet") }

// Endpoints holds the registry of the pods' network endpoints (host-agent/podnet).
func (l Layout) Endpoints() string { return filepath.Join(l.Agent(), "podnet") }

// Volumes holds the tenants' volumes (host-agent/volumes).
func (l Layout) Volumes() string { return filepath.Join(l.Agent(), "volumes") }

// PodLogs holds the pods' logs.
func (l Layout) PodLogs() string { return filepath.Join(l.Agent(), "podlogs") }

// Containerd holds containerd's configuration and content.
func (l Layout) Containerd() string { return filepath.Join(l.Agent(), "containerd") }

// Registries is where the operator says how registries of images are reached, as
// containerd's hosts.toml in a folder per registry (docs/operators.md). It need not be
// there; containerd reads it for every image that it pulls.
func (l Layout) Registries() string { return filepath.Join(l.Data, "registries") }

// Socket is containerd's socket.
func (l Layout) Socket() string { return filepath.Join(l.Run(), "containerd.sock") }

// RunscRoot holds the state of gVisor's containers; containerd adds its namespace.
func (l Layout) RunscRoot() string { return filepath.Join(l.Run(), "runsc") }

// RuncRoot holds the state of runc's containers; containerd adds its namespace.
func (l Layout) RuncRoot() string { return filepath.Join(l.Run(), "runc") }

// CNIConf is the directory of the pod network's configuration; empty until the
// node has its pod range.
func (l Layout) CNIConf() string { return filepath.Join(l.Agent(), "cni", "conf") }

// CNIBin holds links to the CNI plugins, ours among them.
func (l Layout) CNIBin() string { return filepath.Join(l.Agent(), "cni", "bin") }

// IPAM holds the addresses that are given out.
func (l Layout) IPAM() string { return filepath.Join(l.Agent(), "cni", "ipam") }

// Network is the name of the pod network.
func (l Layout) Network() string { return "sublet-" + l.ID() }

// Log returns the log file of a child process.
func (l Layout) Log(process string) string { return filepath.Join(l.Data, "log", process+".log") }

// bin returns the path of one of the node's binaries.
func (l Layout) bin(name string) string { return filepath.Join(l.Bin, name) }

// binaries are what a node cannot do without, relative to Bin.
func binaries() []string {
	return []string{
		"containerd", "containerd-shim-runc-v2", "containerd-shim-runsc-v1", "runc", "runsc",
		"cni/ptp", "cni/host-local", "cni/portmap", "images/pause.tar", "images/canary.tar",
	}
}
