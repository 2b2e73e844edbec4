package bench_test

import (
	"context"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/util/wait"

	"sublet.dev/test/machine"
)

func TestMain(m *testing.M) { os.Exit(machine.Main(m)) }

// BenchmarkTenant measures, from the start of `sublet create`: the first answer of
// kubectl, and the whole quickstart Running.
func BenchmarkTenant(b *testing.B) {
	machine.Running(b)
	var answer, running []time.Duration
	for b.Loop() {
		name := fmt.Sprintf("bench-%d", len(answer))
		start := time.Now()
		machine.Sublet(b, "create", name, "--wait")
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
		cell := freshCell(b)
		b.ReportMetric(settled(b, cell), "MiB/0-tenants")
		for n := 1; n <= 2; n++ {
			machine.Sublet(b, "create", fmt.Sprintf("memory-%d", n), "--wait")
			b.ReportMetric(settled(b, cell), fmt.Sprintf("MiB/%d-tenants", n))
		}
		for n := 1; n <= 2; n++ {
			machine.Sublet(b, "delete", fmt.Sprintf("memory-%d", n), "--wait")
		}
	}
}

// freshCell has the cell start anew, for a heap that has grown stays so, and returns
// its process id.
func freshCell(b *testing.B) int {
	b.Helper()
	before := machine.PidOf(b, machine.CellPID)
	machine.Kill(b, machine.CellPID)
	machine.Eventually(b, "the cell is started again", func() error {
		if now, err := machine.ReadPID(machine.CellPID); err != nil || now == before {
			return fmt.Errorf("pid %d, %w", now, err)
		}
		return nil
	})
	return machine.PidOf(b, machine.CellPID)
}

// settled waits until a process's anonymous memory changes by less than 1 MiB in
// five seconds, and returns it.
func settled(b *testing.B, pid int) float64 {
	b.Helper()
	last := -1.0
	err := wait.PollUntilContextTimeout(b.Context(), 5*time.Second, 2*time.Minute, true, func(context.Context) (bool, error) {
		before := last
		last = anonymous(b, pid)
		return math.Abs(last-before) < 1, nil
	})
	if err != nil {
		b.Fatalf("the cell's memory does not settle: %v", err)
	}
	return last
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
