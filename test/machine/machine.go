// Package machine runs the built binary on a machine of its own (package wire), for
// tests and benchmarks that use Sublet as providers and tenants do.
//
// [Main] takes a package's tests there; the first test that calls [Running] starts
// `sublet up`; when all have run, it is stopped, purged, and looked after: a trace
// that is left fails the run. Everything between happens through `sublet` and
// `kubectl`, as users have them; nothing of the product is linked in.
//
// `make test` builds what it runs: bin/sublet, bin/node and bin/images.
package machine

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"sublet.dev/host-agent/node"
	"sublet.dev/test/wire"
)

// Root is the checkout: the nearest folder with a go.mod, from a test's working
// directory, which is its package's, upwards.
var Root = func() string {
	dir, err := os.Getwd()
	if err != nil {
		panic(err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir
		}
		if dir == filepath.Dir(dir) {
			panic("no go.mod above the working directory")
		}
		dir = filepath.Dir(dir)
	}
}()

// DataDir returns Sublet's data directory on the machine.
func DataDir() string { return shared.dataDir }

// ID returns what tells the machine's node apart from others: its part in the names
// of cgroups and of the folder below /run/sublet.
func ID() string { return node.Layout{Data: shared.dataDir}.ID() }

// shared is the one machine that all tests of a package share: starting it is
// the dearest part of them.
var shared struct {
	sync.Mutex
	dataDir string
	up      *exec.Cmd // nil until Running was called
	ready   bool
	logFile string // what `sublet up` wrote to its standard error
}

// dataDir is short: the paths of sockets are, too.
func dataDir() string { return filepath.Join(wire.Dir(), "d") }

// Main runs a package's tests on the machine and returns their exit code; TestMain
// must call it. Without root the tests run where they are, and skip.
func Main(m *testing.M) int {
	if os.Geteuid() != 0 {
		return m.Run()
	}
	return wire.Main(runner{m})
}

// runner is the tests and what puts the machine back as it was.
type runner struct{ m *testing.M }

func (r runner) Run() int {
	shared.dataDir = dataDir()
	code := r.m.Run()
	if err := stop(); err != nil {
		fmt.Fprintln(os.Stderr, "machine: stop sublet up:", err)
		return 1
	}
	return code
}

// Clean removes every trace as a user does, and looks after it.
func (runner) Clean() error {
	shared.dataDir = dataDir()
	if _, err := os.Stat(shared.dataDir); errors.Is(err, fs.ErrNotExist) {
		return nil // nothing was started
	}
	if out, err := Command("down", "--purge").CombinedOutput(); err != nil {
		return fmt.Errorf("sublet down --purge: %w: %s", err, out)
	}
	return traces()
}

// Running makes sure that Sublet runs on the machine, with the
// quickstart's image.
func Running(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("containers need root")
	}
	shared.Lock()
	defer shared.Unlock()
	switch {
	case shared.ready:
		return
	case shared.up != nil:
		t.Fatal("sublet up did not become ready before, see there")
	}
	startUp(t)
	Sublet(t, "image", "import", filepath.Join(Root, "bin/images/quickstart.tar"))
}

// startUp starts `sublet up` and waits until it says that it is ready. The
// caller must hold shared.Mutex.
func startUp(t testing.TB) {
	t.Helper()
	shared.logFile = shared.dataDir + ".log"
	log, err := os.OpenFile(shared.logFile, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	stdout, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd := Command(append([]string{"up", "--node-ip", wire.Node}, Flags...)...)
	cmd.Stdout, cmd.Stderr = w, log
	if err := cmd.Start(); err != nil {
		t.Fatalf("start sublet (is bin/sublet built? `make build deps images`): %v", err)
	}
	w.Close()
	log.Close()
	shared.up = cmd
	said, err := readUntil(stdout, "Sublet is ready")
	if err != nil {
		t.Fatalf("sublet up did not become ready: %v\n%s\n%s", err, said, tail())
	}
	go io.Copy(io.Discard, stdout) // ends with the process
	shared.ready = true
}

// readUntil reads until marker was seen and returns what it read.
func readUntil(r io.Reader, marker string) (string, error) {
	var said bytes.Buffer
	buf := make([]byte, 4096)
	for !strings.Contains(said.String(), marker) {
		n, err := r.Read(buf)
		said.Write(buf[:n])
		if err != nil {
			return said.String(), err
		}
	}
	return said.String(), nil
}

// stop ends `sublet up` as a user does; pods go on.
func stop() error {
	shared.Lock()
	defer shared.Unlock()
	if shared.up == nil {
		return nil
	}
	if err := shared.up.Process.Signal(os.Interrupt); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	if err := shared.up.Wait(); err != nil {
		return fmt.Errorf("%w\n%s", err, tail())
	}
	return nil
}

// UpPID returns the process id of `sublet up`.
func UpPID() int {
	shared.Lock()
	defer shared.Unlock()
	return shared.up.Process.Pid
}

// KillUp ends `sublet up` without a chance to clean up and starts it again.
func KillUp(t testing.TB) {
	t.Helper()
	shared.Lock()
	defer shared.Unlock()
	if err := shared.up.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = shared.up.Wait() // killed: always an error
	startUp(t)
}
