package syncer

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"

	"k8s.io/client-go/rest"

	"sublet.dev/tenant-apiserver/pki"
	"sublet.dev/tenant-apiserver/server"
	"sublet.dev/test/upstream"
)

// hostVariable chooses the host of the tests: ours, or with the value "upstream" one of
// upstream's own processes.
const hostVariable = "SUBLET_SYNCER_HOST"

// The host has Services of both families.
var (
	hostServices  = netip.MustParsePrefix("10.96.0.0/12")
	hostServices6 = netip.MustParsePrefix("fd00:96::/108")
)

// hostAPI is the API of a host.
type hostAPI struct {
	admin   *rest.Config
	address string
	ca      *pki.Authority
}

// as is the configuration of a user of the host.
func (h hostAPI) as(user string) (*rest.Config, error) { return as(h.ca, h.address, user) }

// startHost starts the host that was chosen.
func (w *world) startHost(ctx context.Context, dir string, log *slog.Logger) (hostAPI, error) {
	switch which := os.Getenv(hostVariable); which {
	case "":
		return w.startOurs(ctx, dir, log)
	case "upstream":
		return w.startUpstream(ctx, dir)
	default:
		return hostAPI{}, fmt.Errorf("%s=%q: no such host", hostVariable, which)
	}
}

func (w *world) startOurs(ctx context.Context, dir string, log *slog.Logger) (hostAPI, error) {
	host, address, ca, err := w.serve(ctx, server.Config{
		Name: "host", StorePath: filepath.Join(dir, "host", "host.db"), GoldenDir: filepath.Join(dir, "golden"),
		ServiceCIDR: hostServices, SecondServiceCIDR: hostServices6, Logger: log,
		Host: &server.HostConfig{PodCIDR: netip.MustParsePrefix("10.244.0.0/16")},
	})
	if err != nil {
		return hostAPI{}, err
	}
	return hostAPI{host.Loopback(), address, ca}, nil
}

func (w *world) startUpstream(ctx context.Context, dir string) (hostAPI, error) {
	ca, err := pki.LoadOrCreate(filepath.Join(dir, "upstream", "pki"), "upstream")
	if err != nil {
		return hostAPI{}, err
	}
	cluster, err := upstream.Start(ctx, upstream.Config{Bin: "../../bin/peers", Dir: filepath.Join(dir, "upstream"), CA: ca, ServiceCIDR: hostServices, SecondServiceCIDR: hostServices6})
	if err != nil {
		return hostAPI{}, err
	}
	w.stops = append(w.stops, func() {
		if err := cluster.Stop(); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
	})
	if err := cluster.StartControllers(ctx); err != nil {
		return hostAPI{}, err
	}
	if err := cluster.StartScheduler(ctx); err != nil {
		return hostAPI{}, err
	}
	admin, err := cluster.Admin()
	return hostAPI{admin, cluster.Address(), ca}, err
}
