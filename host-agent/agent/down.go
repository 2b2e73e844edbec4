package agent

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"os/exec"

	"sublet.dev/host-agent/internal/kube"
	"sublet.dev/host-agent/node"
)

// DownOptions say what Down is about. DataDir and Logger are required.
type DownOptions struct {
	DataDir string
	// Purge also removes the agent's files, images and certificates included.
	Purge  bool
	Logger *slog.Logger
}

// Down stops everything that an agent with this data directory left running, and
// undoes what it changed on the machine. It must be called in the network
// namespace that the agent ran in, and when the agent has ended. What is absent is
// success, so Down can be repeated.
func Down(ctx context.Context, o DownOptions) error {
	if os.Geteuid() != 0 {
		return errors.New("taking a node down must be done as root")
	}
	if _, err := os.Stat(o.DataDir); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	l, err := layout(o.DataDir, o.DataDir)
	if err != nil {
		return err
	}
	errs := []error{node.Clean(ctx, l, o.Purge, o.Logger)}
	if _, err := exec.LookPath("nft"); err == nil {
		errs = append(errs, kube.CleanProxy(ctx), cleanNetwork(ctx))
	}
	return errors.Join(errs...)
}
