package machine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/util/wait"
)

// patience bounds every wait for a condition. It is no assertion about speed: it
// only ends a test that would wait for ever. Tests run side by side.
const patience = 5 * time.Minute

// Command returns `sublet args...` on the machine.
func Command(args ...string) *exec.Cmd {
	cmd := exec.Command(filepath.Join(Root, "bin/sublet"), args...)
	cmd.Dir = Root
	cmd.Env = append(os.Environ(), "SUBLET_DATA_DIR="+shared.dataDir, "PATH="+filepath.Join(Root, "bin")+":"+os.Getenv("PATH"), "NO_COLOR=1")
	return cmd
}

// Result is what a command left.
type Result struct {
	Stdout, Stderr string
	Code           int
}

func (r Result) String() string {
	return fmt.Sprintf("exit code %d\n--- stdout\n%s\n--- stderr\n%s", r.Code, r.Stdout, r.Stderr)
}

// Try runs `sublet args...` and returns what came of it.
func Try(t testing.TB, args ...string) Result {
	t.Helper()
	var stdout, stderr bytes.Buffer
	cmd := Command(args...)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	var exit *exec.ExitError
	if err := cmd.Run(); err != nil && !errors.As(err, &exit) {
		fatal(t, "sublet %q: %v", args, err)
	}
	return Result{stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()}
}

// Sublet runs `sublet args...`, which must succeed, and returns its output.
func Sublet(t testing.TB, args ...string) string {
	t.Helper()
	r := Try(t, args...)
	if r.Code != 0 {
		fatal(t, "sublet %q: %v", args, r)
	}
	return r.Stdout
}

// Kubectl runs kubectl as that tenant's admin; it must succeed.
func Kubectl(t testing.TB, tenant string, args ...string) string {
	t.Helper()
	return Sublet(t, append([]string{"connect", tenant, "--", "kubectl"}, args...)...)
}

// TryKubectl runs kubectl as that tenant's admin.
func TryKubectl(t testing.TB, tenant string, args ...string) Result {
	t.Helper()
	return Try(t, append([]string{"connect", tenant, "--", "kubectl"}, args...)...)
}

// Host runs kubectl as the provider, on the host's API; it must succeed.
func Host(t testing.TB, args ...string) string {
	t.Helper()
	cmd := exec.Command(filepath.Join(Root, "bin/kubectl"), append([]string{"--kubeconfig", filepath.Join(shared.dataDir, "admin.kubeconfig")}, args...)...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		fatal(t, "kubectl %q on the host: %v\n%s", args, err, out)
	}
	return string(out)
}

// Eventually waits until f returns nil.
func Eventually(t testing.TB, what string, f func() error) {
	t.Helper()
	var last error
	err := wait.PollUntilContextTimeout(t.Context(), 250*time.Millisecond, patience, true, func(context.Context) (bool, error) {
		last = f()
		return last == nil, nil
	})
	if err != nil {
		fatal(t, "%s: %v: %v", what, err, last)
	}
}

// tail returns the last lines of Sublet's logs.
func tail() string {
	files, _ := filepath.Glob(filepath.Join(shared.dataDir, "log/*.log")) // the pattern is valid
	var b strings.Builder
	for _, f := range append(files, shared.logFile) {
		out, err := exec.Command("tail", "-n", "25", f).CombinedOutput()
		fmt.Fprintf(&b, "--- %s (%v)\n%s", f, err, out)
	}
	return b.String()
}
