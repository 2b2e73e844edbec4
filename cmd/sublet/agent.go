package main

import (
	"context"

	"github.com/spf13/cobra"

	"sublet.dev/host-agent/agent"
)

func newAgent(a *app) *cobra.Command {
	var n nodeFlags
	var logs logFlags
	cmd := &cobra.Command{
		Use: "agent", Short: "Run this machine's node (part of up)",
		Long: `Run this machine's node: kubelet, kube-proxy, containerd, the fence and DNS.

"sublet up" starts it. By itself it needs the credentials that "sublet server" writes
into the data directory. Pods go on when it ends.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := needRoot(cmd); err != nil {
				return err
			}
			log, err := logs.logger(a.err)
			if err != nil {
				return err
			}
			a.log = log.With("process", "agent")
			if err := n.complete(); err != nil {
				return err
			}
			if err := n.completeBinDir(); err != nil {
				return err
			}
			if err := a.dir.create(); err != nil {
				return err
			}
			return a.runProcess(cmd.Context(), "agent", func(ctx context.Context) error { return a.agent(ctx, n) })
		},
	}
	n.add(cmd)
	n.addBinDir(cmd)
	logs.add(cmd)
	return cmd
}

func (a *app) agent(ctx context.Context, n nodeFlags) error {
	self, err := executable()
	if err != nil {
		return err
	}
	f := a.dir.nodeFiles()
	return agent.Run(ctx, agent.Config{
		DataDir: string(a.dir), BinDir: n.binDir, NodeName: n.name, NodeIP: n.addr,
		Kubeconfig: f.kubelet, ProxyKubeconfig: f.proxy, AgentKubeconfig: f.agent,
		Cert: f.cert, Key: f.key, CA: f.ca,
		Pods: podRange, Services: serviceRange, Executable: self, Logger: a.log,
	})
}
