package main

import (
	"fmt"
	"io"
	"runtime"
	"slices"
	"time"
)

// report is what was measured, by name.
type report struct {
	values, ratios map[string]float64
}

// value prints a figure and keeps it.
func (r *report) value(name string, v float64, unit string) {
	if r.values == nil {
		r.values = map[string]float64{}
	}
	r.values[name] = v
	fmt.Printf("value %s %.3f %s\n", name, v, unit)
}

// ratio prints a ratio and keeps it.
func (r *report) ratio(name string, v float64) {
	if r.ratios == nil {
		r.ratios = map[string]float64{}
	}
	r.ratios[name] = v
	fmt.Printf("ratio %s %.2f\n", name, v)
}

// judge says which bars were held.
func (r *report) judge(out io.Writer) {
	for _, b := range []struct {
		name  string
		of    map[string]float64
		limit float64
	}{
		{"synced/wall", r.ratios, 1.2}, {"synced/p99", r.ratios, 1.3}, {"neighbour/p50", r.ratios, 2}, {"restart", r.values, 5},
	} {
		v, ok := b.of[b.name]
		switch {
		case !ok:
			fmt.Fprintf(out, "bar %s at most %g: not measured\n", b.name, b.limit)
		case v <= b.limit:
			fmt.Fprintf(out, "bar %s at most %g: held (%.2f)\n", b.name, b.limit, v)
		default:
			fmt.Fprintf(out, "bar %s at most %g: missed (%.2f)\n", b.name, b.limit, v)
		}
	}
}

// quantile sorts the times.
func quantile(times []time.Duration, q float64) time.Duration {
	if len(times) == 0 {
		return 0
	}
	slices.Sort(times)
	return times[min(len(times)-1, int(q*float64(len(times))))]
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// heap is what the process's heap holds after a collection.
func heap() float64 {
	runtime.GC()
	runtime.GC() // finalizers of the first free what the second finds
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return float64(m.HeapAlloc)
}
