package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"sublet.dev/isolation/tenant"
	"sublet.dev/tenant-apiserver/cell"
	"sublet.dev/tenant-apiserver/server"
	"sublet.dev/tenant-apiserver/store"
)

// hostName stands for the host's own control plane where tenants are named. No
// tenant can have it.
const hostName = "host"

// serveControl answers, on a socket that only root can open, what the host's own
// store is asked; the paths are those of a cell.
func (s *hostServer) serveControl(ctx context.Context, api *server.Server) error {
	l, err := listenUnix(s.dir.serverSocket())
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /tenants/"+hostName+"/key", func(w http.ResponseWriter, _ *http.Request) {
		cell.ReplyKey(w, api.KeyStatus(), nil)
	})
	mux.HandleFunc("POST /tenants/"+hostName+"/key", func(w http.ResponseWriter, r *http.Request) {
		status, err := api.RotateKey(r.Context())
		cell.ReplyKey(w, status, err)
	})
	cell.AddLooks(mux, func(_ context.Context, id tenant.ID, f func(*store.Store) error) error {
		if id != hostName {
			return cell.ErrNotHosted
		}
		return f(api.File())
	})
	control := &http.Server{Handler: withProfiles(mux), ErrorLog: slog.NewLogLogger(s.log.Handler(), slog.LevelWarn), ReadHeaderTimeout: time.Minute}
	served := make(chan error, 1)
	go func() { served <- control.Serve(l) }()
	select {
	case err := <-served:
		return fmt.Errorf("serve the server's socket: %w", err)
	case <-ctx.Done():
	}
	err = control.Close()
	if serveErr := <-served; !errors.Is(serveErr, http.ErrServerClosed) {
		err = errors.Join(err, serveErr)
	}
	return err
}

// keyKeeper returns who rotates the key of a tenant's store, or of the host's, and
// by which ID.
func (a *app) keyKeeper(ctx context.Context, name string) (*cell.Client, tenant.ID, error) {
	if name == hostName {
		if _, err := a.hostConfig(); err != nil {
			return nil, "", err
		}
		return cell.NewClient(a.dir.serverSocket()), hostName, nil
	}
	return a.cellOf(ctx, name)
}
