// Command shim is containerd's shim for gVisor, containerd-shim-runsc-v1: gVisor's
// own task service behind a start of our own.
//
// Flow: containerd runs `shim start` in the bundle's directory; Start opens the
// socket, starts this binary again as the server with that socket as file
// descriptor 3 and reports the address. Everything after that (create, exec,
// wait, delete) is gVisor's code, unchanged.
//
// Three things differ from gVisor's own start. A root without CAP_SYS_RESOURCE, as
// in many virtual machines for builds, may not lower an OOM score: that is
// tolerated here and fatal there. And the socket lies beside containerd's, not in
// /run/containerd, so that several nodes on a machine never share a directory.
// And pods' volumes are looked for where this node's kubelet keeps them: gVisor's own
// shim knows /var/lib/kubelet alone. Pods are never grouped: one shim serves one
// container.
//
// It is a module of its own because gVisor asks for an older containerd API than
// the rest of the project.
package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	_ "unsafe" // for go:linkname

	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/containerd/v2/pkg/shim"
	"github.com/containerd/containerd/v2/pkg/sys"
	"golang.org/x/sys/unix"
	runsc "gvisor.dev/gvisor/pkg/shim/v1"
	_ "gvisor.dev/gvisor/pkg/shim/v1/plugin" // registers the task service
)

// runtimeName is what containerd's configuration calls this shim.
const runtimeName = "io.containerd.runsc.v1"

// oomScore keeps the kernel from choosing the shim before its container.
const oomScore = -999

// podsDirVar is the variable by which the agent says, through containerd, where the
// kubelet keeps its pods.
const podsDirVar = "SUBLET_PODS_DIR"

// kubeletPodsDir is gVisor's own variable: it has no other way to be set. It has a value
// from the start; where it is empty, gVisor has another name for it now.
//
//go:linkname kubeletPodsDir gvisor.dev/gvisor/pkg/shim/v1/utils.kubeletPodsDir
var kubeletPodsDir string

func main() {
	if kubeletPodsDir == "" {
		fmt.Fprintln(os.Stderr, "gVisor does not keep the directory of pods where it did: review deploy/shim")
		os.Exit(1)
	}
	if dir := os.Getenv(podsDirVar); dir != "" {
		kubeletPodsDir = dir
	}
	shim.Run(context.Background(), manager{runsc.NewShimManager(runtimeName)})
}

// manager is gVisor's manager with Start replaced.
type manager struct{ shim.Manager }

// Start starts the server process of container id and says where it listens. The
// working directory is the container's bundle; containerd and the server read the
// files that Start leaves there. On an error nothing runs and no socket is left.
func (m manager) Start(ctx context.Context, id string, opts shim.StartOpts) (_ shim.BootstrapParams, err error) {
	namespace, err := namespaces.NamespaceRequired(ctx)
	if err != nil {
		return shim.BootstrapParams{}, err
	}
	address, err := socketAddress(opts.Address, namespace, id)
	if err != nil {
		return shim.BootstrapParams{}, err
	}
	server, err := serverCommand(namespace, id, opts)
	if err != nil {
		return shim.BootstrapParams{}, err
	}
	listener, err := shim.NewSocket(address)
	if err != nil {
		return shim.BootstrapParams{}, fmt.Errorf("listen on %s: %w", address, err)
	}
	listener.SetUnlinkOnClose(false) // the server goes on with it
	defer listener.Close()
	defer func() {
		if err != nil {
			_ = shim.RemoveSocket(address) // the error that matters is returned
		}
	}()
	fd3, err := listener.File()
	if err != nil {
		return shim.BootstrapParams{}, fmt.Errorf("pass on %s: %w", address, err)
	}
	defer fd3.Close()
	server.ExtraFiles = []*os.File{fd3}
	if err := run(server, address); err != nil {
		return shim.BootstrapParams{}, err
	}
	return shim.BootstrapParams{Version: 2, Address: address, Protocol: "ttrpc"}, nil
}

// run starts server and leaves its address and process id in the bundle; on an
// error the server is gone again.
func run(server *exec.Cmd, address string) error {
	if err := os.WriteFile("address", []byte(address), 0o600); err != nil {
		return fmt.Errorf("record the shim's address: %w", err)
	}
	if err := server.Start(); err != nil {
		return fmt.Errorf("start the shim's server: %w", err)
	}
	err := shim.WritePidFile("shim.pid", server.Process.Pid)
	if err == nil {
		err = protect(server.Process.Pid)
	}
	if err != nil {
		_ = server.Process.Kill()
		_, _ = server.Process.Wait()
		return err
	}
	return server.Process.Release()
}

// protect lowers the process's OOM score where the kernel lets us.
func protect(pid int) error {
	err := sys.SetOOMScore(pid, oomScore)
	if errors.Is(err, fs.ErrPermission) {
		return nil
	}
	return err
}

// serverCommand returns the command of the long-running server.
func serverCommand(namespace, id string, opts shim.StartOpts) (*exec.Cmd, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find the shim's binary: %w", err)
	}
	args := []string{"-namespace", namespace, "-address", opts.Address, "-id", id}
	if opts.Debug {
		args = append(args, "-debug")
	}
	c := exec.Command(self, args...)
	c.SysProcAttr = &unix.SysProcAttr{Setpgid: true}
	return c, nil
}

// socketAddress returns the address of a container's shim: a name that fits in a
// socket address, in the directory "s" beside containerd's socket.
func socketAddress(containerd, namespace, id string) (string, error) {
	dir := filepath.Join(filepath.Dir(containerd), "s")
	if err := os.MkdirAll(dir, 0o711); err != nil {
		return "", fmt.Errorf("make the directory of shim sockets: %w", err)
	}
	name := sha256.Sum256([]byte(namespace + "/" + id))
	return "unix://" + filepath.Join(dir, hex.EncodeToString(name[:16])), nil
}
