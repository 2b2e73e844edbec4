// Command sublet gives every tenant a Kubernetes cluster of their own on machines
// that many tenants share.
//
// `sublet up` starts a machine: it keeps two processes running, `sublet server`
// (host control plane, front door, manager; keeps the cells running, `sublet
// cell`) and `sublet agent` (kubelet, kube-proxy, containerd, fence, DNS). The
// other commands are the provider's, and speak to the host API with the
// kubeconfig in the data directory.
//
// This package puts the parts together: each subcommand is a file that turns
// flags into the Config of a part and runs it. It is the only one that imports
// tenant-apiserver, syncer and host-agent at once. Called by the name of the CNI
// plugin, it is that plugin.
package main

import (
	"context"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"sublet.dev/host-agent/podnet"
)

// version is set by the linker.
var version = "unknown"

func main() { os.Exit(Main()) }

// Main runs the program with the process's arguments and streams and returns its
// exit code.
func Main() int {
	if filepath.Base(os.Args[0]) == podnet.PluginName {
		podnet.PluginMain()
		return exitOK
	}
	ends := []os.Signal{os.Interrupt, syscall.SIGTERM}
	if !signal.Ignored(syscall.SIGHUP) { // nohup(1)
		ends = append(ends, syscall.SIGHUP) // its terminal was closed
		// One closed terminal is told by the kernel and by the shell.
		signal.Notify(make(chan os.Signal, 1), syscall.SIGHUP)
	}
	ctx, stop := signal.NotifyContext(context.Background(), ends...)
	defer stop()
	context.AfterFunc(ctx, stop) // a second SIGINT or SIGTERM ends the process at once
	return run(ctx, os.Args[1:], streams{in: os.Stdin, out: os.Stdout, err: os.Stderr})
}

// survivePipes keeps a command going when who read its output has ended, so that
// it still stops what it started: writing is an error then, not its end. Its
// children are not concerned.
func survivePipes() (restore func()) {
	broken := make(chan os.Signal, 1)
	signal.Notify(broken, syscall.SIGPIPE)
	return func() { signal.Stop(broken) }
}

// streams are a command's input and outputs.
type streams struct {
	in       io.Reader
	out, err io.Writer
}
