package kube

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"

	"github.com/spf13/pflag"
	proxyapp "k8s.io/kubernetes/cmd/kube-proxy/app"
	"k8s.io/kubernetes/pkg/proxy/nftables"
)

// Proxy is what kube-proxy needs to know.
type Proxy struct {
	// Kubeconfig is kube-proxy's identity at the host API.
	Kubeconfig string
	// NodeName and NodeIP are those of the node it runs on.
	NodeName, NodeIP string
	// OOMScoreAdj is set for this process.
	OOMScoreAdj int
}

// flags returns kube-proxy's command line. Traffic of the node's own pod range is
// local, so it reaches Services under its own address, which the fence relies on;
// nothing of the kernel's connection tracking is changed; no port is opened.
func (p Proxy) flags() []string {
	return []string{
		"--kubeconfig=" + p.Kubeconfig,
		"--hostname-override=" + p.NodeName,
		"--bind-address=" + p.NodeIP,
		"--proxy-mode=nftables",
		"--detect-local-mode=NodeCIDR",
		"--oom-score-adj=" + strconv.Itoa(p.OOMScoreAdj),
		"--healthz-port=0",
		"--metrics-port=0",
		"--conntrack-max-per-core=0",
		"--conntrack-min=0",
		"--conntrack-tcp-timeout-established=0s",
		"--conntrack-tcp-timeout-close-wait=0s",
	}
}

// RunProxy runs kube-proxy until it fails. kube-proxy does not end with ctx: its
// goroutine ends with the process, and its rules stay in the kernel.
func RunProxy(ctx context.Context, p Proxy) error {
	flags := pflag.NewFlagSet("kube-proxy", pflag.ContinueOnError)
	flags.SetOutput(io.Discard) // only notes about old flag names
	o := proxyapp.NewOptions()
	o.AddFlags(flags)
	if err := flags.Parse(p.flags()); err != nil {
		return fmt.Errorf("kube-proxy flags: %w", err)
	}
	if err := o.Complete(flags); err != nil {
		return fmt.Errorf("prepare kube-proxy: %w", err)
	}
	// Not o.Validate: it insists on a port for metrics, which Run does not need,
	// and the flags are the constants above.
	if err := o.Run(ctx); err != nil {
		return fmt.Errorf("run kube-proxy: %w", err)
	}
	return errors.New("kube-proxy ended by itself")
}

// CleanProxy removes kube-proxy's tables from the network namespace that it is
// called in. Absent tables are success.
func CleanProxy(ctx context.Context) error {
	if nftables.CleanupLeftovers(ctx) {
		return errors.New("kube-proxy's nftables tables were not removed; see the log above")
	}
	return nil
}
