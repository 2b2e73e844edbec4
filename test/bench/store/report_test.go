package main

import (
	"strings"
	"testing"
	"time"
)

// outcomes of one create phase, ours so many times as fast as etcd's.
func outcomes(name string, faster float64) []outcome {
	of := func(ops int, cpu float64, p99 time.Duration) phase {
		return phase{Ops: ops, Seconds: 1, CPU: cpu, P50: time.Millisecond, P99: p99}
	}
	return []outcome{
		{sublet, name, of(int(1000*faster), 0.01*faster, time.Millisecond)},
		{etcd, name, of(900, 0.1, 2*time.Millisecond)}, {etcd, name, of(1000, 0.1, 2*time.Millisecond)}, {etcd, name, of(9000, 0.1, 2*time.Millisecond)},
		{kine, name, of(100, 1, time.Second)},
	}
}

// TestReport reads what programs read, and wants bars held and missed where they are.
func TestReport(t *testing.T) {
	all := append(outcomes("create/1KiB/16w", 1.8), outcomes("slow/create/10KiB/64w", 1.2)...)
	all = append(all, outcome{sublet, "idle", phase{Value: 0.6, Unit: "MiB"}}, outcome{sublet, "idle-used", phase{Value: 0.5, Unit: "MiB"}})
	var out strings.Builder
	report(&out, all)
	for _, want := range []string{
		"\nratio create/1KiB/16w 1.800\n", // by the median
		"\nratio p99/create/1KiB/16w 0.500\n",
		"\nratio cpu/create/1KiB/16w 0.100\n",
		"\nratio slow/create/10KiB/64w 1.200\n",
		"\nratio slow/cpu/create/10KiB/64w 0.100\n",
		"\nvalue sublet/idle 0.600 MiB\n",
		"\nheld    creates at least 1.8x etcd's: in all 1\n",
		"\nMISSED  creates, slow flushes at least 1.25x etcd's: in 1 of 1 (slow/create/10KiB/64w 1.20)\n",
		"\nheld    p99 of writes at most 1x etcd's: in all 2\n",
		"\nheld    CPU per write at most 0.4x etcd's: in all 2\n",
		"\nMISSED  idle store at most 0.5 MiB: in 1 of 2 (idle 0.60 MiB)\n",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in:\n%s", want, out.String())
		}
	}
}

// TestReportOfNothing must not call bars held that nobody tried.
func TestReportOfNothing(t *testing.T) {
	var out strings.Builder
	report(&out, nil)
	if strings.Contains(out.String(), "held") || strings.Count(out.String(), "not run") != len(bars)+1 {
		t.Error(out.String())
	}
}

func TestInOrder(t *testing.T) {
	in := []string{"create/1KiB/1w", "create/1KiB/16w", "create/1KiB/64w", "create/10KiB/1w", "get/1KiB/1w", "slow/create/1KiB/1w"}
	for i := range in[1:] {
		if inOrder(in[i], in[i+1]) >= 0 || inOrder(in[i+1], in[i]) <= 0 {
			t.Errorf("%s is not before %s", in[i], in[i+1])
		}
	}
}
