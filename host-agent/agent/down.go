package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	"sigs.k8s.io/knftables"

	"sublet.dev/host-agent/internal/kube"
	"sublet.dev/host-agent/netpol"
	"sublet.dev/host-agent/node"
	"sublet.dev/host-agent/podnet"
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
	cables, err := interfaces(l)
	errs := []error{err, node.Clean(ctx, l, o.Purge, o.Logger)}
	for _, c := range cables {
		errs = append(errs, removeLink(c))
	}
	// The fence goes last: no pod is left that it would have to hold.
	if _, err := exec.LookPath("nft"); err == nil {
		errs = append(errs, kube.CleanProxy(ctx), netpol.Cleanup(ctx), removeTable(ctx, knftables.IPv4Family, hostPortTable), removeTable(ctx, knftables.IPv6Family, hostPortTable))
	}
	return errors.Join(errs...)
}

// hostPortTable is where CNI's portmap plugin keeps host ports
// (containernetworking/plugins, plugins/meta/portmap). Only pods had any.
const hostPortTable = "cni_hostport"

// interfaces returns the host's ends of the pods' cables. The kernel removes a
// cable with its pod's network namespace, but later, when nobody waits.
func interfaces(l node.Layout) ([]string, error) {
	if _, err := os.Stat(l.Endpoints()); errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	registry, err := podnet.OpenRegistry(l.Endpoints())
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range registry.List() {
		names = append(names, e.Interface)
	}
	return names, nil
}

// removeLink removes a network interface; an absent one is success.
func removeLink(name string) error {
	link, err := netlink.LinkByName(name)
	var absent netlink.LinkNotFoundError
	if errors.As(err, &absent) {
		return nil
	}
	if err == nil {
		err = netlink.LinkDel(link)
	}
	if err != nil && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("remove the interface %s: %w", name, err)
	}
	return nil
}

// removeTable removes an nftables table; an absent one is success.
func removeTable(ctx context.Context, family knftables.Family, name string) error {
	nft, err := knftables.New(family, name)
	if err != nil {
		return fmt.Errorf("remove table %s: %w", name, err)
	}
	tx := nft.NewTransaction()
	tx.Delete(&knftables.Table{})
	if err := nft.Run(ctx, tx); err != nil && !knftables.IsNotFound(err) {
		return fmt.Errorf("remove table %s: %w", name, err)
	}
	return nil
}
