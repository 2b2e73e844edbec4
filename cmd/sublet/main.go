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
	ctx, stop := interruptible()
	defer stop()
	return run(ctx, os.Args[1:], streams{in: os.Stdin, out: os.Stdout, err: os.Stderr})
}

// interruptible returns a context that ends with the first signal that asks the
// process to end. A second SIGINT or SIGTERM ends the process at once.
func interruptible() (ctx context.Context, stop func()) {
	ends := []os.Signal{os.Interrupt, syscall.SIGTERM}
	hangup := make(chan os.Signal, 1)
	if !signal.Ignored(syscall.SIGHUP) { // nohup(1)
		ends = append(ends, syscall.SIGHUP) // its terminal was closed
		// A second SIGHUP means the same: the kernel and the shell both send one.
		signal.Notify(hangup, syscall.SIGHUP)
	}
	ctx, unregister := signal.NotifyContext(context.Background(), ends...)
	context.AfterFunc(ctx, unregister)
	return ctx, func() {
		unregister()
		signal.Stop(hangup)
	}
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
