package e2e_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/util/wait"

	"sublet.dev/test/wire"
)

// patience bounds every wait for a condition. It is no assertion about speed: it
// only ends a test that would wait for ever.
const patience = 3 * time.Minute

// root is the checkout.
var root = func() string {
	dir, err := filepath.Abs("../..")
	if err != nil {
		panic(err)
	}
	return dir
}()

// machine is the one machine that all tests of the package share: starting it is
// the dearest part of them.
var machine struct {
	sync.Mutex
	dataDir string
	up      *exec.Cmd
	log     *os.File
}

func TestMain(m *testing.M) {
	if os.Geteuid() != 0 {
		os.Exit(m.Run())
	}
	os.Exit(wire.Main(runner{m}))
}

// runner runs the tests and leaves the machine as it was before.
type runner struct{ m *testing.M }

func (r runner) Run() int {
	dir, err := os.MkdirTemp("", "sublet-e2e-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	machine.dataDir = filepath.Join(dir, "d")
	code := r.m.Run()
	if err := shutDown(); err != nil {
		fmt.Fprintln(os.Stderr, "e2e: leave the machine as it was:", err)
		code = 1
	}
	if code == 0 {
		code = exitCode(os.RemoveAll(dir))
	}
	return code
}

func exitCode(err error) int {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// running makes sure that Sublet runs on the machine.
func running(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("containers need root")
	}
	machine.Lock()
	defer machine.Unlock()
	if machine.up != nil {
		return
	}
	startUp(t)
	sublet(t, "image", "import", filepath.Join(root, "bin/images/quickstart.tar"))
}

// startUp starts `sublet up` and waits until it says that it is ready. The
// caller must hold machine.
func startUp(t *testing.T) {
	t.Helper()
	log, err := os.OpenFile(machine.dataDir+".log", os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	stdout, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd := command("up", "--node-ip", wire.Node)
	cmd.Stdout, cmd.Stderr = w, log
	if err := cmd.Start(); err != nil {
		t.Fatalf("start sublet (is bin/sublet built? `make build deps images`): %v", err)
	}
	w.Close()
	said, err := readUntil(stdout, "Sublet is ready")
	if err != nil {
		t.Fatalf("sublet up did not become ready: %v\n%s\n%s", err, said, tail(log.Name()))
	}
	go io.Copy(io.Discard, stdout) // ends with the process
	machine.up, machine.log = cmd, log
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

// shutDown stops Sublet as a user does and removes every trace of it.
func shutDown() error {
	machine.Lock()
	defer machine.Unlock()
	if machine.up == nil {
		return nil
	}
	if err := machine.up.Process.Signal(os.Interrupt); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	if err := machine.up.Wait(); err != nil {
		return fmt.Errorf("sublet up: %w\n%s", err, tail(machine.log.Name()))
	}
	out, err := command("down", "--purge").CombinedOutput()
	if err != nil {
		return fmt.Errorf("sublet down --purge: %w: %s", err, out)
	}
	return traces(machine.dataDir)
}

// traces returns an error that lists what is left of Sublet on the machine.
func traces(dataDir string) error {
	var left []string
	if _, err := os.Stat(dataDir); err == nil {
		left = append(left, dataDir)
	}
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(mounts)) {
		if strings.Contains(line, dataDir) {
			left = append(left, "mount "+line)
		}
	}
	tables, err := exec.Command("nft", "list", "tables").Output()
	if err != nil {
		return fmt.Errorf("nft list tables: %w", err)
	}
	if len(bytes.TrimSpace(tables)) > 0 {
		left = append(left, string(tables))
	}
	cgroups, err := filepath.Glob("/sys/fs/cgroup/*/sublet*")
	if err != nil {
		return err
	}
	left = append(left, cgroups...)
	links, err := exec.Command("ip", "-o", "link", "show", "type", "veth").Output()
	if err != nil {
		return fmt.Errorf("ip link: %w", err)
	}
	for line := range strings.Lines(string(links)) {
		if !strings.Contains(line, ": eth0@") {
			left = append(left, line)
		}
	}
	if len(left) > 0 {
		return fmt.Errorf("left: %s", strings.Join(left, "\n"))
	}
	return nil
}

// command returns `sublet args...` for the machine.
func command(args ...string) *exec.Cmd {
	cmd := exec.Command(filepath.Join(root, "bin/sublet"), args...)
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "SUBLET_DATA_DIR="+machine.dataDir, "PATH="+filepath.Join(root, "bin")+":"+os.Getenv("PATH"), "NO_COLOR=1")
	return cmd
}

// result is what a command left.
type result struct {
	stdout, stderr string
	code           int
}

func (r result) String() string {
	return fmt.Sprintf("exit code %d\n--- stdout\n%s\n--- stderr\n%s", r.code, r.stdout, r.stderr)
}

// try runs `sublet args...` and returns what came of it.
func try(t *testing.T, args ...string) result {
	t.Helper()
	var stdout, stderr bytes.Buffer
	cmd := command(args...)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	var exit *exec.ExitError
	if err := cmd.Run(); err != nil && !errors.As(err, &exit) {
		t.Fatalf("sublet %q: %v", args, err)
	}
	return result{stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()}
}

// sublet runs `sublet args...`, which must succeed, and returns its output.
func sublet(t *testing.T, args ...string) string {
	t.Helper()
	r := try(t, args...)
	if r.code != 0 {
		t.Fatalf("sublet %q: %v", args, r)
	}
	return r.stdout
}

// kubectl runs kubectl as that tenant's admin; it must succeed.
func kubectl(t *testing.T, tenant string, args ...string) string {
	t.Helper()
	return sublet(t, append([]string{"connect", tenant, "--", "kubectl"}, args...)...)
}

// tryKubectl runs kubectl as that tenant's admin.
func tryKubectl(t *testing.T, tenant string, args ...string) result {
	t.Helper()
	return try(t, append([]string{"connect", tenant, "--", "kubectl"}, args...)...)
}

// host runs kubectl as the provider, on the host's API; it must succeed.
func host(t *testing.T, args ...string) string {
	t.Helper()
	cmd := exec.Command(filepath.Join(root, "bin/kubectl"), append([]string{"--kubeconfig", filepath.Join(machine.dataDir, "admin.kubeconfig")}, args...)...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("kubectl %q on the host: %v\n%s", args, err, out)
	}
	return string(out)
}

// eventually waits until f returns nil.
func eventually(t *testing.T, what string, f func() error) {
	t.Helper()
	var last error
	err := wait.PollUntilContextTimeout(t.Context(), 250*time.Millisecond, patience, true, func(context.Context) (bool, error) {
		last = f()
		return last == nil, nil
	})
	if err != nil {
		t.Fatalf("%s: %v: %v\n%s", what, err, last, tail(machine.log.Name()))
	}
}

// tail returns the last lines of Sublet's logs.
func tail(file string) string {
	files, _ := filepath.Glob(filepath.Join(machine.dataDir, "log/*.log")) // the pattern is valid
	var b strings.Builder
	for _, f := range append(files, file) {
		out, err := exec.Command("tail", "-n", "25", f).CombinedOutput()
		fmt.Fprintf(&b, "--- %s (%v)\n%s", f, err, out)
	}
	return b.String()
}

// kill ends the process whose id stands in a file of the run directory, without
// a chance to clean up, and waits until it is gone.
func kill(t *testing.T, pidFile string) {
	t.Helper()
	pid := pidOf(t, pidFile)
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the process ends", func() error {
		if now, err := readPID(pidFile); err == nil && now != pid {
			return nil
		}
		if err := syscall.Kill(pid, 0); err == nil && !zombie(pid) {
			return fmt.Errorf("process %d is still there", pid)
		}
		return nil
	})
}

func zombie(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && strings.Contains(string(b), ") Z ")
}
