package main

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/prometheus/procfs"
)

// usage is what processes use together.
type usage struct {
	Natural, PSS, Anon float64 // MiB
	CPU                time.Duration
	Goroutines         int
}

func (u usage) plus(o usage) usage {
	return usage{u.Natural + o.Natural, u.PSS + o.PSS, u.Anon + o.Anon, u.CPU + o.CPU, u.Goroutines + o.Goroutines}
}

// usageOf reads the usage of processes.
func usageOf(pids ...int) (usage, error) {
	var all usage
	for _, pid := range pids {
		u, err := memory(pid)
		if err != nil {
			return all, err
		}
		if u.CPU, err = cpu(pid); err != nil {
			return all, err
		}
		all = all.plus(u)
	}
	return all, nil
}

func memory(pid int) (usage, error) {
	var all procfs.ProcSMapsRollup
	p, err := procfs.NewProc(pid)
	if err == nil {
		all, err = p.ProcSMapsRollup()
	}
	if err != nil {
		return usage{}, fmt.Errorf("memory of process %d: %w", pid, err)
	}
	const mib = 1 << 20
	return usage{Natural: float64(all.Rss) / mib, PSS: float64(all.Pss) / mib, Anon: float64(all.Anonymous) / mib}, nil
}

// cpu is the processor time that a process has used.
func cpu(pid int) (time.Duration, error) {
	var stat procfs.ProcStat
	p, err := procfs.NewProc(pid)
	if err == nil {
		stat, err = p.Stat()
	}
	if err != nil {
		return 0, fmt.Errorf("processor time of process %d: %w", pid, err)
	}
	return time.Duration(stat.CPUTime() * float64(time.Second)), nil
}

// quantile returns the q-th part of the sorted times.
func quantile(times []time.Duration, q float64) time.Duration {
	if len(times) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(times))
	return sorted[min(int(q*float64(len(sorted))), len(sorted)-1)]
}

// percentiles reports the middle and the 99th of times.
func percentiles(name string, times []time.Duration) {
	figure(name+"/p50", milliseconds(quantile(times, 0.5)), "ms")
	figure(name+"/p99", milliseconds(quantile(times, 0.99)), "ms")
}

// sorted returns the names of figures in order.
func sorted(f figures) []string { return slices.Sorted(maps.Keys(f)) }

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
