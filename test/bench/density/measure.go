package main

import (
	"bufio"
	"bytes"
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
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
	rollup, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		return usage{}, err
	}
	var u usage
	fields := map[string]*float64{"Rss:": &u.Natural, "Pss:": &u.PSS, "Anonymous:": &u.Anon}
	lines := bufio.NewScanner(bytes.NewReader(rollup))
	for lines.Scan() {
		words := strings.Fields(lines.Text())
		if len(words) < 2 || fields[words[0]] == nil {
			continue
		}
		kib, err := strconv.ParseFloat(words[1], 64)
		if err != nil {
			return usage{}, fmt.Errorf("memory of process %d: %w", pid, err)
		}
		*fields[words[0]] = kib / 1024
	}
	return u, lines.Err()
}

// tick is the unit of /proc/PID/stat's times on Linux: USER_HZ is 100.
const tick = 10 * time.Millisecond

// cpu is the processor time that a process has used (proc(5), stat: fields 14 and 15,
// counted after the command's name, which may hold anything).
func cpu(pid int) (time.Duration, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	if len(fields) < 13 {
		return 0, fmt.Errorf("stat of process %d has %d fields", pid, len(fields))
	}
	var ticks int64
	for _, f := range fields[11:13] {
		n, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("stat of process %d: %w", pid, err)
		}
		ticks += n
	}
	return time.Duration(ticks) * tick, nil
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
