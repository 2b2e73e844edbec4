package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"strconv"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"sublet.dev/isolation/tenant"
	"sublet.dev/tenant-apiserver/frontdoor"
	"sublet.dev/tenant-apiserver/manager"
	"sublet.dev/tenant-apiserver/pki"
	"sublet.dev/tenant-apiserver/server"
)

const (
	// cellGrace is how long a cell may take to stop its tenants.
	cellGrace = 30 * time.Second
	// hostStart bounds the start of the host control plane; hostStop its end.
	hostStart = 2 * time.Minute
	hostStop  = 20 * time.Second
)

func newServer(a *app) *cobra.Command {
	var h hostFlags
	var n nodeFlags
	var logs logFlags
	cmd := &cobra.Command{
		Use: "server", Short: "Run the host control plane, front door, manager and cells (part of up)",
		Long: `Run the host control plane, the front door, the manager, and the cells with the tenants'
control planes. "sublet up" starts it.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := needRoot(cmd); err != nil {
				return err
			}
			log, err := logs.logger(a.err)
			if err != nil {
				return err
			}
			a.log = log.With("process", "server")
			if err := errors.Join(h.complete(), n.complete()); err != nil {
				return err
			}
			if err := a.dir.create(); err != nil {
				return err
			}
			return a.runProcess(cmd.Context(), "server", func(ctx context.Context) error {
				return (&hostServer{app: a, host: h, node: n, logs: logs}).run(ctx)
			})
		},
	}
	h.add(cmd)
	n.add(cmd)
	logs.add(cmd)
	return cmd
}

// hostServer is the server process.
type hostServer struct {
	*app
	host hostFlags
	node nodeFlags
	logs logFlags

	metrics tenantMetrics
}

// run runs the server until ctx ends or a part of it fails.
func (s *hostServer) run(ctx context.Context) (err error) {
	if err := clearReady(s.dir.ready("server")); err != nil {
		return err
	}
	if _, err := s.dir.used(); err != nil {
		return err
	}
	listeners, err := s.listen()
	if err != nil {
		return err
	}
	authority, err := pki.LoadOrCreate(s.dir.hostPKI(), "sublet-host")
	if err != nil {
		return errors.Join(err, closeAll(listeners))
	}
	api, err := s.startAPI(ctx, authority)
	if err != nil {
		return errors.Join(err, closeAll(listeners))
	}
	p := newParts()
	defer func() {
		stopErr := p.stop()
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), hostStop)
		defer cancel()
		err = errors.Join(err, stopErr, api.Stop(ctx), clearReady(s.dir.ready("server")))
	}()
	p.start(ctx, "host API", func(ctx context.Context) error {
		select {
		case <-ctx.Done():
			return nil
		case <-api.Done():
			return errors.New("the host control plane ended")
		}
	})
	for _, l := range listeners[1:] {
		p.start(ctx, "host API on "+l.Addr().String(), func(ctx context.Context) error { return api.Serve(ctx, l) })
	}
	if err := s.furnish(ctx, api, authority); err != nil {
		return errors.Join(err, listeners[0].Close())
	}
	if err := s.startTenants(ctx, p, api, authority, listeners[0]); err != nil {
		return err
	}
	if err := setReady(s.dir.ready("server")); err != nil {
		return err
	}
	s.log.Info("server is ready", "hostAPI", listeners[1].Addr(), "frontDoor", listeners[0].Addr())
	return p.wait(ctx)
}

// listen opens the ports before anything else is done: the front door's, and the
// host API's.
func (s *hostServer) listen() ([]net.Listener, error) {
	var out []net.Listener
	for _, at := range []struct {
		address, flag string
	}{
		{":" + strconv.Itoa(int(s.host.doorPort)), "--front-door-port"},
		{s.loopback().String(), "--host-api-port"},
		{netip.AddrPortFrom(s.node.addr, s.host.apiPort).String(), "--host-api-port"},
	} {
		l, err := net.Listen("tcp", at.address)
		if err != nil {
			return nil, errors.Join(explainListen(err, at.address, at.flag), closeAll(out))
		}
		out = append(out, l)
	}
	return out, nil
}

// explainListen says what to do when an address cannot be listened on.
func explainListen(err error, address, flag string) error {
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return fmt.Errorf("%s is taken by another program: stop that, or choose another port with %s", address, flag)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return fmt.Errorf("%s is not an address of this machine: give one with --node-ip", address)
	}
	return fmt.Errorf("listen on %s: %w", address, err)
}

func closeAll(listeners []net.Listener) error {
	var errs []error
	for _, l := range listeners {
		errs = append(errs, l.Close())
	}
	return errors.Join(errs...)
}

func (s *hostServer) loopback() netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), s.host.apiPort)
}

// startAPI starts the host control plane.
func (s *hostServer) startAPI(ctx context.Context, authority *pki.Authority) (*server.Server, error) {
	s.metrics.log = s.log
	kms, err := connectKMS(ctx, s.host.kmsSocket)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, hostStart)
	defer cancel()
	return server.Start(ctx, server.Config{
		Name: "host", StorePath: s.dir.hostStore(), PKI: authority,
		KeyFile: s.dir.hostStoreKeys(), KMS: kms,
		ServiceCIDR: serviceRange,
		Advertise:   netip.AddrPortFrom(s.node.addr, s.host.apiPort),
		ServingIPs:  []netip.Addr{s.node.addr},
		Host:        &server.HostConfig{PodCIDR: podRange},
		Logger:      s.log,

		TenantMetrics: &s.metrics,
	})
}

// startTenants starts the cells, the front door and the manager.
func (s *hostServer) startTenants(ctx context.Context, p *parts, api *server.Server, authority *pki.Authority, doorListener net.Listener) error {
	door, err := frontdoor.New(frontdoor.Config{Listener: doorListener, Logger: s.log})
	if err != nil {
		return err
	}
	cells, err := s.newCells(ctx, api, s.credentials(authority))
	if err != nil {
		return errors.Join(err, doorListener.Close())
	}
	s.metrics.cells.Store(cells)
	p.start(ctx, "cells", cells.run)
	m, err := manager.New(manager.Config{
		Host: api.Loopback(), Plan: manager.DefaultPlan(serviceRange, s.node.addr), Domain: s.host.domain,
		Door: door, Public: netip.AddrPortFrom(s.node.addr, s.host.doorPort),
		Cells: cells, PerCell: s.host.perCell,
		Socket: s.dir.tenantSocket, Keys: s.dir.tenantKeys,
		Files: func(id tenant.ID) []string {
			return []string{s.dir.tenant(id), s.dir.storeKeys(id), s.dir.tenantSocket(id)}
		},
		Logger: s.log,
	})
	if err != nil {
		return err
	}
	if err := m.Restore(ctx); err != nil {
		return err
	}
	if err := cells.stopOthers(ctx); err != nil {
		return err
	}
	p.start(ctx, "server's socket", func(ctx context.Context) error { return s.serveControl(ctx, api) })
	p.start(ctx, "front door", door.Run)
	p.start(ctx, "manager", m.Run)
	return nil
}

// setReady says in a file that this process has started up.
func setReady(path string) error {
	return writeFile(path, fmt.Appendln(nil, os.Getpid()))
}

func clearReady(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove an old mark: %w", err)
	}
	return nil
}
