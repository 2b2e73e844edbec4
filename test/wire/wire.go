// Package wire gives a test a machine of its own to run a node on: a network
// namespace for the node, and a second one that plays the rest of the world at
// the far end of a cable.
//
//	node namespace                       world namespace
//	  eth0 10.77.0.2/24  ---- veth ----  eth0 10.77.0.1/24 (the node's default route)
//	  sublet, pods                       lo   169.254.169.254  a metadata service
//	                                     lo   203.0.113.10     a server of the internet
//
// A fence is only proven by a packet that would have arrived without it, so the
// addresses that tenants must not reach have live servers here, and the one that
// they may reach too. All traffic stays in the two namespaces.
//
// [Main] re-executes the test binary inside the node namespace, so that tests and
// all their children simply are on that machine; [Serve] is the world's servers.
// The package removes the namespaces at the end, also after a failure. It never
// changes the namespace it was called from.
package wire

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// The addresses at the two ends. TEST-NET-3 (RFC 5737) stands for the internet.
const (
	Node     = "10.77.0.2"
	World    = "10.77.0.1"
	Metadata = "169.254.169.254"
	Internet = "203.0.113.10"
	// Port is where all of the world's servers listen.
	Port = 80
)

// The environment variables of a re-executed binary: what it is, and the folder
// that [Dir] returns.
const (
	role   = "SUBLET_TEST_WIRE"
	far    = "SUBLET_TEST_WORLD" // the name of the world's namespace
	folder = "SUBLET_TEST_DIR"
)

// Tests is what [testing.M] is: something that runs tests and returns an exit code.
type Tests interface{ Run() int }

// Cleaner is for Tests that leave more behind than the namespaces' end takes away.
// Clean is called in the node namespace, in a process of its own, when the tests'
// process has ended, however it did.
type Cleaner interface{ Clean() error }

// Main runs a package's tests inside a node namespace of their own and returns
// their exit code. It must be called from TestMain, by root.
func Main(m Tests) int {
	switch os.Getenv(role) {
	case "node":
		return m.Run()
	case "clean":
		if c, ok := m.(Cleaner); ok {
			return code(c.Clean())
		}
		return 0
	case "world":
		return code(Serve())
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	return code(run(ctx))
}

func code(err error) int {
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit):
		return exit.ExitCode()
	}
	fmt.Fprintln(os.Stderr, "wire:", err)
	return 1
}

// Dir returns an empty folder with a short path that is the machine's, and is
// removed with it.
func Dir() string { return os.Getenv(folder) }

// run lays the wire, starts the world and runs this binary again on the node.
func run(ctx context.Context) (err error) {
	id := strconv.Itoa(os.Getpid())
	node, world := "sublet-n"+id, "sublet-w"+id
	defer func() { err = errors.Join(err, remove(node, world)) }()
	if err := lay(ctx, node, world); err != nil {
		return fmt.Errorf("lay the wire: %w", err)
	}
	servers := inside(ctx, world, "world")
	servers.Stdout = nil
	ready, err := servers.StdoutPipe()
	if err != nil {
		return err
	}
	if err := servers.Start(); err != nil {
		return fmt.Errorf("start the world's servers: %w", err)
	}
	defer func() {
		_ = servers.Process.Kill() // it is gone already when this fails
		_ = servers.Wait()         // killed: always an error
	}()
	if _, err := io.ReadFull(ready, make([]byte, len(readyLine))); err != nil {
		return fmt.Errorf("the world's servers did not start: %w", err)
	}
	dir, err := os.MkdirTemp("", "sublet-wire-")
	if err != nil {
		return err
	}
	if err := errors.Join(os.Setenv(folder, dir), os.Setenv(far, world)); err != nil {
		return err
	}
	testsErr := inside(ctx, node, "node").Run()
	if err := inside(context.WithoutCancel(ctx), node, "clean").Run(); err != nil {
		return errors.Join(testsErr, fmt.Errorf("clean up after the tests, in %s: %w", dir, err))
	}
	return errors.Join(testsErr, os.RemoveAll(dir))
}

// FromWorld returns a command that runs in the world: what it sends comes from
// outside. It is for tests that [Main] runs.
func FromWorld(ctx context.Context, name string, args ...string) *exec.Cmd {
	return exec.CommandContext(ctx, "nsenter", append([]string{"--net=/run/netns/" + os.Getenv(far), "--", name}, args...)...)
}

// inside returns this very command, to be run in a network namespace. nsenter is
// used because `ip netns exec` also mounts a new /sys, which hides the cgroups.
func inside(ctx context.Context, namespace, as string) *exec.Cmd {
	args := append([]string{"--net=/run/netns/" + namespace, "--", os.Args[0]}, os.Args[1:]...)
	cmd := exec.CommandContext(ctx, "nsenter", args...)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = time.Minute
	cmd.Env = append(os.Environ(), role+"="+as)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	return cmd
}

func lay(ctx context.Context, node, world string) error {
	for _, line := range []string{
		"netns add " + node,
		"netns add " + world,
		"-n " + node + " link set lo up",
		"-n " + world + " link set lo up",
		"-n " + node + " link add eth0 type veth peer name eth0 netns " + world,
		"-n " + node + " addr add " + Node + "/24 dev eth0",
		"-n " + world + " addr add " + World + "/24 dev eth0",
		"-n " + world + " addr add " + Metadata + "/32 dev lo",
		"-n " + world + " addr add " + Internet + "/32 dev lo",
		"-n " + world + " link set eth0 up",
		"-n " + node + " link set eth0 up",
		"-n " + node + " route add default via " + World,
	} {
		if err := ip(ctx, line); err != nil {
			return err
		}
	}
	return nil
}

func remove(namespaces ...string) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	var errs []error
	for _, n := range namespaces {
		if _, err := os.Stat("/run/netns/" + n); err == nil {
			errs = append(errs, ip(ctx, "netns del "+n))
		}
	}
	return errors.Join(errs...)
}

func ip(ctx context.Context, line string) error {
	var stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, "ip", strings.Fields(line)...)
	cmd.Stderr = &stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("ip %s: %w: %s", line, err, strings.TrimSpace(stderr.String()))
	}
	return nil
}

const readyLine = "listening\n"

// Serve answers HTTP on every address of the world, with the address asked and
// the address of the asker, until the process ends.
func Serve() error {
	errs := make(chan error)
	for _, address := range []string{World, Metadata, Internet} {
		l, err := net.Listen("tcp", address+":"+strconv.Itoa(Port))
		if err != nil {
			return err
		}
		handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprintf(w, "%s saw %s\n", address, r.RemoteAddr)
		})
		srv := &http.Server{Handler: handler, ReadHeaderTimeout: 5 * time.Second}
		go func() { errs <- srv.Serve(l) }()
	}
	fmt.Print(readyLine)
	return <-errs
}
