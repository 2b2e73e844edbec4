package podnet

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"sync"
	"time"
)

// Fence makes what the registry says true in the kernel.
type Fence interface {
	// Admits returns an error unless the fence of the pods of that host
	// namespace is known, so that an endpoint there may be made.
	Admits(namespace string) error
	// Await returns nil once everything is known that the rules of an endpoint are
	// made of, as it is at the time of the call.
	Await(ctx context.Context, e Endpoint) error
	// Sync returns nil once the kernel has the rules for all endpoints of the
	// registry, and none for endpoints that are gone.
	Sync(ctx context.Context) error
}

// Server is the agent's side of the plugin's socket.
type Server struct {
	Registry *Registry
	Fence    Fence
	Logger   *slog.Logger

	mu sync.Mutex // one change at a time: registry and kernel change together
}

// Serve answers plugins on a Unix socket at path, which it replaces, until ctx ends;
// then it lets what is under way finish, removes the socket and returns nil.
func (s *Server) Serve(ctx context.Context, path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("serve the CNI plugin: %w", err)
	}
	l, err := new(net.ListenConfig).Listen(ctx, "unix", path)
	if err != nil {
		return fmt.Errorf("serve the CNI plugin: %w", err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		return errors.Join(fmt.Errorf("serve the CNI plugin: %w", err), l.Close())
	}
	srv := &http.Server{
		Handler:           s.handler(),
		BaseContext:       func(net.Listener) context.Context { return context.WithoutCancel(ctx) },
		ReadHeaderTimeout: 5 * time.Second,
	}
	done := make(chan error, 1)
	go func() { done <- srv.Serve(l) }()
	select {
	case err := <-done:
		return fmt.Errorf("serve the CNI plugin: %w", err)
	case <-ctx.Done():
	}
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	if err := srv.Shutdown(last); err != nil {
		return fmt.Errorf("serve the CNI plugin: %w", err)
	}
	<-done // http.ErrServerClosed
	return nil
}

func (s *Server) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("PUT /endpoints/{id}", func(w http.ResponseWriter, r *http.Request) {
		var e Endpoint
		if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 64<<10)).Decode(&e); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		e.ContainerID = r.PathValue("id")
		s.answer(w, "attach", e.ContainerID, s.attach(r.Context(), e))
	})
	mux.HandleFunc("DELETE /endpoints/{id}", func(w http.ResponseWriter, r *http.Request) {
		s.answer(w, "detach", r.PathValue("id"), s.detach(r.Context(), r.PathValue("id")))
	})
	mux.HandleFunc("GET /endpoints/{id}", func(w http.ResponseWriter, r *http.Request) {
		if _, ok := s.Registry.Get(r.PathValue("id")); !ok {
			http.Error(w, "no such endpoint", http.StatusNotFound)
		}
	})
	return mux
}

// answer ends a request; the plugin hands the text to the runtime, which makes it
// an event of the pod.
func (s *Server) answer(w http.ResponseWriter, what, id string, err error) {
	if err != nil {
		s.Logger.Warn("an endpoint was refused", "op", what, "container", id, "err", err)
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

// attach makes an endpoint, or leaves none.
func (s *Server) attach(ctx context.Context, e Endpoint) error {
	if err := s.Fence.Admits(e.Namespace); err != nil {
		return err
	}
	if err := s.Fence.Await(ctx, e); err != nil { // before the lock: others need not wait
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.Registry.Put(e); err != nil {
		return err
	}
	if err := s.Fence.Sync(ctx); err != nil {
		return errors.Join(fmt.Errorf("fence pod %s/%s: %w", e.Namespace, e.Pod, err), s.Registry.Delete(e.ContainerID))
	}
	s.Logger.Info("endpoint attached", "namespace", e.Namespace, "pod", e.Pod, "interface", e.Interface, "addresses", e.Addresses)
	return nil
}

func (s *Server) detach(ctx context.Context, id string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.Registry.Delete(id); err != nil {
		return err
	}
	return s.Fence.Sync(ctx)
}
