package sandbox

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"time"
)

// Forwarder connects streams to ports inside gVisor sandboxes. Their network is in
// the sandbox's own kernel, so entering the pod's network namespace, as the
// kubelet would have it done, finds nobody listening there.
//
// It implements the PortForwarder of k8s.io/cri-streaming, for one sandbox.
type Forwarder struct {
	// Runsc is the binary, Root the directory of its containers' state, for
	// containerd's namespace of pods.
	Runsc, Root string
	// Run is a directory for short-lived sockets.
	Run string
	// Sandbox is the id of the sandbox.
	Sandbox string
}

// connectLimit is how long the sandbox may take to open a connection.
const connectLimit = 20 * time.Second

// PortForward connects stream to a port on the sandbox's loopback, and returns
// when the connection has ended. It returns an error when nobody listens there.
// name and uid are not used: the sandbox is already found.
func (f Forwarder) PortForward(ctx context.Context, _, _ string, port int32, stream io.ReadWriteCloser) error {
	defer stream.Close()
	conn, err := f.connect(ctx, port)
	if err != nil {
		return err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	var wg sync.WaitGroup
	wg.Go(func() {
		// The client has sent all; the answer may still be coming.
		_, _ = io.Copy(conn, stream)
		_ = conn.CloseWrite()
	})
	_, err = io.Copy(stream, conn)
	_ = stream.Close() // ends the copy above
	wg.Wait()
	if err != nil && ctx.Err() == nil {
		return fmt.Errorf("forward port %d of sandbox %s: %w", port, f.Sandbox, err)
	}
	return nil
}

// connect has runsc open a connection inside the sandbox and pass us its other end.
func (f Forwarder) connect(ctx context.Context, port int32) (*net.UnixConn, error) {
	dir, err := os.MkdirTemp(f.Run, "f-")
	if err != nil {
		return nil, fmt.Errorf("forward port %d: %w", port, err)
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "s")
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("forward port %d: %w", port, err)
	}
	defer listener.Close()
	ctx, cancel := context.WithTimeout(ctx, connectLimit)
	defer cancel()
	cmd := exec.CommandContext(ctx, f.Runsc, "--root", f.Root, "port-forward", "--stream", path, f.Sandbox, strconv.Itoa(int(port)))
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("connect to port %d in sandbox %s: %w: %s", port, f.Sandbox, err, last(out))
	}
	// runsc connects before it ends, so somebody waits here already.
	deadline, _ := ctx.Deadline()
	if err := listener.SetDeadline(deadline); err != nil {
		return nil, fmt.Errorf("forward port %d: %w", port, err)
	}
	conn, err := listener.AcceptUnix()
	if err != nil {
		return nil, fmt.Errorf("connect to port %d in sandbox %s: %w", port, f.Sandbox, err)
	}
	return conn, nil
}
