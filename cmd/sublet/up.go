package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"sublet.dev/cmd/sublet/internal/supervise"
	"sublet.dev/host-agent/agent"
	"sublet.dev/host-agent/node"
)

const (
	// upTries is how often a process may fail to start before up gives up.
	upTries = 3
	// serverGrace covers the server's own wait for its cells; agentGrace what the
	// kubelet takes to end.
	serverGrace = cellGrace + hostStop + 10*time.Second
	agentGrace  = 30 * time.Second
	// upTime bounds the start: images of the node's own are unpacked once.
	upTime = 5 * time.Minute
)

type upFlags struct {
	host     hostFlags
	node     nodeFlags
	logs     logFlags
	stopPods bool
}

func newUp(a *app) *cobra.Command {
	var f upFlags
	cmd := &cobra.Command{
		Use:   "up",
		Short: "Start everything that this machine needs, and keep it running",
		Long: `Start everything that this machine needs, in the foreground, and keep it running: the
host control plane with the front door and the tenants' cells (sublet server), and the
node (sublet agent). Their logs are in the data directory.

An interrupt stops them in order; tenants' pods go on running, unless --stop-pods is
given. If up itself is killed, its processes go on and the next up takes them over.`,
		Args: noArgs, ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := needRoot(cmd); err != nil {
				return err
			}
			log, err := f.logs.logger(a.err)
			if err != nil {
				return err
			}
			a.log = log.With("process", "up")
			defer survivePipes()()
			return a.up(cmd.Context(), f)
		},
	}
	f.host.add(cmd)
	f.node.add(cmd)
	f.node.addBinDir(cmd)
	f.logs.add(cmd)
	cmd.Flags().BoolVar(&f.stopPods, "stop-pods", false, "when stopping, stop the tenants' pods too")
	return cmd
}

// up starts the machine and keeps it running until ctx ends. A first start that
// fails leaves nothing but logs, and no data directory when nothing was started.
func (a *app) up(ctx context.Context, f upFlags) error {
	if err := errors.Join(f.host.complete(), f.node.complete()); err != nil {
		return err
	}
	err := a.dir.usable()
	absent := errors.Is(err, errNoDataDir)
	if err != nil && !absent {
		return err
	}
	used, err := a.dir.used()
	if err != nil {
		return err
	}
	if err := f.node.completeBinDir(); err != nil {
		return err
	}
	if err := a.dir.create(); err != nil {
		return err
	}
	build, err := supervise.Build()
	if err != nil {
		return err
	}
	claim, err := supervise.Take(a.dir.upSlot(), build)
	var held *supervise.HeldError
	if errors.As(err, &held) {
		return &exitError{exitConflict, fmt.Errorf("the data directory is in use: %w; stop it with `sublet down`, or use another with --data-dir", held)}
	}
	if err != nil {
		return err
	}
	m := &machine{app: a, flags: f, build: build}
	if err := m.check(); err != nil {
		err = errors.Join(err, claim.Release())
		if absent {
			err = errors.Join(err, a.removeDir())
		}
		return err
	}
	err = m.run(ctx)
	if err != nil && !used && !m.wasReady {
		a.log.Info("removing what the failed start left, but for its logs", "logs", a.dir.path("log"))
		err = errors.Join(err, a.purge(context.WithoutCancel(ctx), "log", "registries"))
	}
	return errors.Join(err, claim.Release())
}

// machine is what `sublet up` keeps running.
type machine struct {
	*app
	flags    upFlags
	build    string
	wasReady bool
}

// check finds what would be in the way, before anything is started. What is
// running already and will be taken over is not in the way.
func (m *machine) check() error {
	_, agentRuns, err := m.dir.slot("agent").Holder()
	if err != nil {
		return err
	}
	if !agentRuns {
		if err := node.Check(node.Layout{Data: string(m.dir), Bin: m.flags.node.binDir}, m.flags.node.addr); err != nil {
			return err
		}
	}
	_, serverRuns, err := m.dir.slot("server").Holder()
	if err != nil || serverRuns {
		return err
	}
	listeners, err := (&hostServer{app: m.app, host: m.flags.host, node: m.flags.node}).listen()
	if err != nil {
		return err
	}
	return closeAll(listeners)
}

// run starts the two processes, says when they are ready, and stops them in the
// end: first the agent, so that no pod is judged by a server that is going.
func (m *machine) run(ctx context.Context) error {
	self, err := executable()
	if err != nil {
		return err
	}
	common := append([]string{"--data-dir=" + string(m.dir)}, m.flags.logs.args()...)
	serverArgs := append(append([]string{self, "server"}, common...), append(m.flags.host.args(), m.flags.node.args()...)...)
	agentArgs := append(append([]string{self, "agent"}, common...), append(m.flags.node.args(), "--bin-dir="+m.flags.node.binDir)...)
	p := newParts()
	p.start(ctx, "server", func(ctx context.Context) error {
		return supervise.Run(ctx, m.spec("server", serverArgs, serverGrace))
	})
	err = m.await(ctx, p, "the server", m.serverReady)
	if err == nil && ctx.Err() == nil {
		p.start(ctx, "agent", func(ctx context.Context) error {
			return supervise.Run(ctx, m.spec("agent", agentArgs, agentGrace))
		})
		err = m.await(ctx, p, "the node", m.nodeReady)
	}
	if err == nil && ctx.Err() == nil {
		m.wasReady = true
		m.summary()
		err = p.wait(ctx)
	}
	m.log.Info("stopping", "pods", map[bool]string{true: "are stopped too", false: "go on running"}[m.flags.stopPods])
	return errors.Join(err, m.stop(ctx, p))
}

func (m *machine) spec(name string, argv []string, grace time.Duration) supervise.Spec {
	return supervise.Spec{
		Slot: m.dir.slot(name), Build: m.build, Argv: argv, Log: m.dir.log(name),
		Grace: grace, Tries: upTries, Logger: m.log,
	}
}

// stop stops the agent, then the pods if asked to, then the server.
func (m *machine) stop(ctx context.Context, p *parts) error {
	var errs []error
	for len(p.running) > 1 {
		errs = append(errs, p.stopLast())
	}
	if m.flags.stopPods {
		errs = append(errs, agent.Down(context.WithoutCancel(ctx), agent.DownOptions{DataDir: string(m.dir), Logger: m.log}))
	}
	return errors.Join(append(errs, p.stop())...)
}

// await waits until ready returns true, ctx ends, or a process gives up.
func (m *machine) await(ctx context.Context, p *parts, what string, ready func(context.Context) bool) error {
	ctx, cancel := context.WithTimeout(ctx, upTime)
	defer cancel()
	failed := make(chan error, 1)
	go func() {
		failed <- p.wait(ctx)
		cancel()
	}()
	err := poll(ctx, upTime, func(ctx context.Context) (bool, error) { return ready(ctx), nil })
	deadline := errors.Is(ctx.Err(), context.DeadlineExceeded)
	cancel()
	if partErr := <-failed; partErr != nil {
		return partErr
	}
	if err != nil && deadline {
		return &exitError{exitTimeout, fmt.Errorf("%s is not ready after %s: see the logs in %s", what, upTime, m.dir.path("log"))}
	}
	return nil // ready, or interrupted
}

// serverReady says whether the running server has started up.
func (m *machine) serverReady(context.Context) bool {
	holder, alive, err := m.dir.slot("server").Holder()
	if err != nil || !alive || holder.Build != m.build {
		return false
	}
	mark, err := os.ReadFile(m.dir.ready("server"))
	return err == nil && strings.TrimSpace(string(mark)) == strconv.Itoa(holder.PID)
}

// nodeReady says whether the agent runs and its node is ready.
func (m *machine) nodeReady(ctx context.Context) bool {
	holder, alive, err := m.dir.slot("agent").Holder()
	if err != nil || !alive || holder.Build != m.build {
		return false
	}
	api, err := m.app.host()
	if err != nil {
		return false
	}
	var n corev1.Node
	if err := api.Get(ctx, client.ObjectKey{Name: m.flags.node.name}, &n); err != nil {
		return false
	}
	for _, c := range n.Status.Conditions {
		if c.Type == corev1.NodeReady {
			// The API keeps whole seconds, and the next report is minutes away.
			return c.Status == corev1.ConditionTrue && !c.LastHeartbeatTime.Time.Before(holder.Since.Truncate(time.Second))
		}
	}
	return false
}

// summary tells the provider where everything is and what to do next.
func (m *machine) summary() {
	door := net.JoinHostPort(m.flags.node.addr.String(), strconv.Itoa(int(m.flags.host.doorPort)))
	fmt.Fprintf(m.out, `Sublet is ready.
  front door   https://%s (all tenants, by server name)
  host API     kubectl --kubeconfig %s get nodes
  node         %s, Ready
  logs         %s
  next         sublet create acme --wait && sublet connect acme -- kubectl get nodes
`, door, m.dir.admin(), m.flags.node.name, m.dir.path("log"))
}
