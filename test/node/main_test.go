package node_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"testing"

	"k8s.io/klog/v2"

	"sublet.dev/host-agent/agent"
	"sublet.dev/host-agent/podnet"
	"sublet.dev/test/wire"
)

// agentRole is the environment variable that makes this binary the agent; it holds
// an agent.Config as JSON.
const agentRole = "SUBLET_TEST_AGENT"

func TestMain(m *testing.M) {
	switch {
	case filepath.Base(os.Args[0]) == podnet.PluginName:
		podnet.PluginMain()
	case os.Getenv(agentRole) != "":
		os.Exit(runAgent(os.Getenv(agentRole)))
	case os.Geteuid() != 0:
		os.Exit(m.Run()) // every test skips and says why
	default:
		klog.LogToStderr(false) // the control plane's; the agent's goes to its file
		klog.SetOutput(io.Discard)
		os.Exit(wire.Main(m))
	}
}

// runAgent is the agent's process.
func runAgent(config string) int {
	var c agent.Config
	if err := json.Unmarshal([]byte(config), &c); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	c.Logger = slog.New(slog.NewTextHandler(os.Stderr, nil))
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if err := agent.Run(ctx, c); err != nil {
		c.Logger.Error("the agent failed", "err", err)
		return 1
	}
	return 0
}
