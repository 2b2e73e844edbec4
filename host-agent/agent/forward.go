package agent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/util/proxy"
	tunnel "k8s.io/apiserver/pkg/util/proxy"
	"k8s.io/cri-streaming/pkg/streaming/portforward"
	"k8s.io/streaming/pkg/httpstream/wsstream"

	"sublet.dev/host-agent/sandbox"
	"sublet.dev/isolation/tenant"
)

const (
	// idle and creation are the kubelet's own limits for streams
	// (k8s.io/cri-streaming, Config).
	idle     = 4 * time.Hour
	creation = 30 * time.Second
	// forwardPath is the kubelet's path of port-forward: /portForward/NAMESPACE/POD.
	forwardPath = "/portForward/"
)

// serveForward serves port-forward for pods whose network is inside a gVisor
// sandbox and leaves all others to the kubelet.
//
// The protocol inside is SPDY. An API server that knows that nodes speak
// WebSockets passes on a WebSocket with SPDY in it; like the kubelet, we unwrap it
// with upstream's tunnel, which connects to a server: forwards, below.
func (a *agent) serveForward(w http.ResponseWriter, r *http.Request) bool {
	parts := strings.Split(strings.TrimPrefix(r.URL.Path, forwardPath), "/")
	if len(parts) < 2 {
		return false
	}
	s, err := sandbox.Find(r.Context(), a.runtime, parts[0], parts[1])
	if err != nil || s.RuntimeHandler != tenant.GVisor.Handler() {
		return false // the kubelet says what is wrong
	}
	if wsstream.IsWebSocketRequestWithTunnelingProtocol(r) {
		a.tunnel(r.URL.Path).ServeHTTP(w, r)
		return true
	}
	options := &portforward.V4Options{}
	if wsstream.IsWebSocketRequest(r) {
		if options, err = portforward.NewV4Options(r); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return true
		}
	}
	f := sandbox.Forwarder{
		Runsc: filepath.Join(a.layout.Bin, "runsc"), Root: filepath.Join(a.layout.RunscRoot(), "k8s.io"),
		Run: a.layout.Run(), Sandbox: s.Id,
	}
	portforward.ServePortForward(w, r, f, parts[1], s.Metadata.Uid, options, idle, creation, portforward.SupportedProtocols)
	return true
}

// tunnel unwraps SPDY from a WebSocket towards forwards.
func (a *agent) tunnel(path string) http.Handler {
	to := &url.URL{Scheme: "http", Host: "forwards", Path: path}
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", a.forwardSocket())
	}}
	return tunnel.NewTunnelingHandler(proxy.NewUpgradeAwareHandler(to, transport, false, true, refusal{}))
}

// refusal answers a request that could not be passed on.
type refusal struct{}

// Error implements the responder of upstream's proxy.
func (refusal) Error(w http.ResponseWriter, _ *http.Request, err error) {
	http.Error(w, "forward: "+err.Error(), http.StatusBadGateway)
}

// forwardSocket is where forwards serves, for this process alone.
func (a *agent) forwardSocket() string { return filepath.Join(a.layout.Run(), "forward.sock") }

// forwards serves unwrapped port-forwards on a socket that only root may open,
// until ctx ends.
func (a *agent) forwards(ctx context.Context) error {
	path := a.forwardSocket()
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("serve port-forwards: %w", err)
	}
	l, err := new(net.ListenConfig).Listen(ctx, "unix", path)
	if err != nil {
		return fmt.Errorf("serve port-forwards: %w", err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		return errors.Join(fmt.Errorf("serve port-forwards: %w", err), l.Close())
	}
	server := &http.Server{
		ReadHeaderTimeout: 10 * time.Second,
		BaseContext:       func(net.Listener) context.Context { return ctx },
		ErrorLog:          slog.NewLogLogger(a.Logger.Handler(), slog.LevelDebug),
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if !a.serveForward(w, r) {
				http.Error(w, "the pod is gone", http.StatusNotFound)
			}
		}),
	}
	done := make(chan error, 1)
	go func() { done <- server.Serve(l) }()
	select {
	case err := <-done:
		return fmt.Errorf("serve port-forwards: %w", err)
	case <-ctx.Done():
	}
	_ = server.Close() // what is open ends with the agent
	<-done
	return nil
}
