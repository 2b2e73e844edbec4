package bench_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"sublet.dev/test/machine"
)

func TestMain(m *testing.M) { os.Exit(machine.Main(m)) }

// create makes a tenant that ends with the benchmark.
func create(b *testing.B, name string) {
	b.Helper()
	machine.Sublet(b, "create", name, "--wait")
	b.Cleanup(func() { machine.Sublet(b, "delete", name, "--wait", "--ignore-not-found") })
}

// BenchmarkTenant measures, from the start of `sublet create`: the first answer of
// kubectl, and the whole quickstart Running.
func BenchmarkTenant(b *testing.B) {
	machine.Running(b)
	var answer, running []time.Duration
	for b.Loop() {
		name := fmt.Sprintf("bench-%d", len(answer))
		start := time.Now()
		create(b, name)
		machine.Kubectl(b, name, "get", "namespace", "default")
		answer = append(answer, time.Since(start))
		machine.Kubectl(b, name, "apply", "-f", filepath.Join(machine.Root, "examples/quickstart/quickstart.yaml"))
		machine.Kubectl(b, name, "rollout", "status", "deployment/web", "--timeout=180s")
		machine.Kubectl(b, name, "wait", "--for=condition=Complete", "job/first-visits", "--timeout=180s")
		running = append(running, time.Since(start))
		machine.Sublet(b, "delete", name, "--wait")
	}
	b.ReportMetric(median(answer), "s/first-answer")
	b.ReportMetric(median(running), "s/quickstart-running")
}

func median(d []time.Duration) float64 {
	slices.Sort(d)
	return d[len(d)/2].Seconds()
}

// BenchmarkCellMemory measures the anonymous memory of the cell (that is what
// tenants cost; the program's text is shared) with 0, 1 and 2 idle tenants.
func BenchmarkCellMemory(b *testing.B) {
	machine.Running(b)
	for b.Loop() {
		for n := range 3 {
			if n > 0 {
				create(b, fmt.Sprintf("memory-%d", n))
			}
			b.ReportMetric(anonymous(b, machine.PidOf(b, machine.CellPID)), fmt.Sprintf("MiB/%d-tenants", n))
		}
	}
}

// anonymous returns a process's anonymous memory in MiB (proc(5), smaps_rollup).
func anonymous(b *testing.B, pid int) float64 {
	b.Helper()
	rollup, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		b.Fatal(err)
	}
	for line := range strings.Lines(string(rollup)) {
		if value, ok := strings.CutPrefix(line, "Anonymous:"); ok {
			kib, err := strconv.ParseFloat(strings.Fields(value)[0], 64)
			if err != nil {
				b.Fatal(err)
			}
			return kib / 1024
		}
	}
	b.Fatalf("no Anonymous in %s", rollup)
	return 0
}
