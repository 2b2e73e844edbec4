package machine

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// What is shown of each source: the last lines, and the beginning of each.
const (
	shownLines = 10
	shownWidth = 300
)

// Explain has a test that fails tell what its tenants were like then: what Sublet
// logged of them, their pods and what happened to those. It is to be called when the
// tenants are there, after their removal was left to t.Cleanup: what is registered
// last is called first.
func Explain(t testing.TB, tenants ...string) {
	t.Cleanup(func() {
		if !t.Failed() {
			return
		}
		for _, name := range tenants {
			t.Logf("what there is to know of tenant %s:\n%s", name, explanation(name))
		}
		reasons.Range(func(name, why any) bool {
			if n := name.(string); n == t.Name() || strings.HasPrefix(n, t.Name()+"/") {
				t.Logf("%s failed for this reason: %s", n, why)
			}
			return true
		})
	})
}

// reasons are what tests failed for, by their names: an explanation ends with those of its
// test and of the parts of it.
var reasons sync.Map

// fatal fails a test for a reason, which an explanation of its tenants repeats.
func fatal(t testing.TB, format string, args ...any) {
	t.Helper()
	why := fmt.Sprintf(format, args...)
	reasons.Store(t.Name(), why)
	t.Fatal(why)
}

// explanation goes from what is far away to what is near: where output is cut, it is
// the beginning that is missing.
func explanation(tenant string) string {
	namespace := said("bin/kubectl", onHost("get", "virtualcluster", tenant, "-o", "jsonpath={.status.namespace}")...)
	if strings.Contains(namespace, " ") { // it is gone: that was the reason
		namespace = "none"
	}
	connect := []string{"connect", tenant, "--", "kubectl"}
	var b strings.Builder
	b.WriteString(logged(tenant))
	for _, part := range []struct {
		what, program string
		args          []string
	}{
		{"describe", "bin/sublet", []string{"describe", tenant}},
		{"events on the host", "bin/kubectl", onHost("get", "events", "-n", namespace, "--sort-by=.lastTimestamp")},
		{"pods on the host", "bin/kubectl", onHost("get", "pods", "-n", namespace, "-o", "wide")},
		{"events", "bin/sublet", append(connect, "get", "events", "-A", "--sort-by=.lastTimestamp", "--request-timeout=10s")},
		{"pods", "bin/sublet", append(connect, "get", "pods", "-A", "-o", "wide", "--request-timeout=10s")},
	} {
		fmt.Fprintf(&b, "--- %s\n%s", part.what, ending(strings.Split(said(part.program, part.args...), "\n")))
	}
	return b.String()
}

func onHost(args ...string) []string {
	return append([]string{"--kubeconfig", filepath.Join(shared.dataDir, "admin.kubeconfig"), "--request-timeout=10s"}, args...)
}

// said returns what a command wrote, or why it could not. It does not wait for long:
// what it asks may be what is broken.
func said(program string, args ...string) string {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(Root, program), args...)
	cmd.Env, cmd.WaitDelay = Command().Env, time.Second
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Sprintf("%s%v\n", out, err)
	}
	return string(out)
}

// logged returns the last lines of each of Sublet's logs that are about a tenant and
// not upstream's, or are no good news.
func logged(tenant string) string {
	files, _ := filepath.Glob(filepath.Join(shared.dataDir, "log/*.log")) // the pattern is valid
	var b strings.Builder
	for _, f := range append(files, shared.logFile) {
		data, err := os.ReadFile(f)
		if err != nil {
			fmt.Fprintf(&b, "--- %v\n", err)
			continue
		}
		var about []string
		for line := range strings.Lines(string(data)) {
			good := strings.Contains(line, "level=INFO") || strings.Contains(line, "level=info")
			if !good || strings.Contains(line, tenant) && !strings.Contains(line, "from=kubernetes") && filepath.Base(f) != "containerd.log" {
				about = append(about, line)
			}
		}
		fmt.Fprintf(&b, "--- %s\n%s", filepath.Base(f), ending(about))
	}
	return b.String()
}

// ending returns the last of these lines that say something.
func ending(lines []string) string {
	var said []string
	for _, line := range lines {
		if line = strings.TrimSpace(line); line != "" {
			said = append(said, line[:min(len(line), shownWidth)]+"\n")
		}
	}
	return strings.Join(said[max(0, len(said)-shownLines):], "")
}
