package main

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
)

// figure is a kind of number that phases have.
type figure struct {
	prefix string
	of     func(phase) float64
}

// figures of an operation; their names are put before the phase's.
var figures = []figure{
	{"", phase.rate},
	{"p50/", func(p phase) float64 { return float64(p.P50) / 1e6 }},
	{"p99/", func(p phase) float64 { return float64(p.P99) / 1e6 }},
	{"cpu/", phase.cpuPerOp},
}

// table is the median of each figure by name and contender.
type table map[string]map[string]float64

// name puts a figure's prefix behind slow/, which always is first.
func (f figure) name(phase string) string {
	rest, slow := strings.CutPrefix(phase, "slow/")
	return prefix(slow) + f.prefix + rest
}

// tabulate makes medians of outcomes.
func tabulate(all []outcome) table {
	samples := map[string]map[string][]float64{}
	add := func(name, who string, value float64) {
		if samples[name] == nil {
			samples[name] = map[string][]float64{}
		}
		samples[name][who] = append(samples[name][who], value)
	}
	for _, o := range all {
		if o.Phase.Unit != "" {
			add(o.Name, o.Who, o.Phase.Value)
			continue
		}
		for _, f := range figures {
			add(f.name(o.Name), o.Who, f.of(o.Phase))
		}
	}
	out := table{}
	for name, by := range samples {
		out[name] = map[string]float64{}
		for who, values := range by {
			out[name][who] = median(values)
		}
	}
	return out
}

func median(values []float64) float64 {
	values = slices.Sorted(slices.Values(values))
	n := len(values)
	return (values[(n-1)/2] + values[n/2]) / 2
}

// ratio is ours by etcd's.
func (t table) ratio(name string) (float64, bool) {
	ours, theirs := t[name][sublet], t[name][etcd]
	return ours / theirs, ours > 0 && theirs > 0
}

// report writes what is for readers, then what is for programs, then the bars.
func report(out io.Writer, all []outcome) {
	t := tabulate(all)
	tell(out, t, all)
	fmt.Fprintln(out)
	for _, name := range slices.SortedFunc(maps.Keys(t), inOrder) {
		if r, ok := t.ratio(name); ok && !strings.HasSuffix(name, "flush") {
			fmt.Fprintf(out, "ratio %s %.3f\n", name, r)
		}
	}
	for _, o := range valued(all) {
		for _, who := range []string{sublet, etcd, kine} {
			if v, ok := t[o.Name][who]; ok {
				fmt.Fprintf(out, "value %s/%s %.3f %s\n", who, o.Name, v, o.Phase.Unit)
			}
		}
	}
	fmt.Fprintln(out)
	judge(out, t)
}

// valued are the first outcomes of each name that are not of operations.
func valued(all []outcome) (out []outcome) {
	seen := map[string]bool{}
	for _, o := range all {
		if o.Phase.Unit != "" && !seen[o.Name] {
			seen[o.Name] = true
			out = append(out, o)
		}
	}
	return out
}

// tell writes a line for each phase and contender.
func tell(out io.Writer, t table, all []outcome) {
	type run struct{ name, who string }
	rates, failed := map[run][]float64{}, map[run]int{}
	for _, o := range all {
		if o.Phase.Unit == "" {
			r := run{o.Name, o.Who}
			rates[r], failed[r] = append(rates[r], o.Phase.rate()), failed[r]+o.Phase.Failed
		}
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "phase\twho\t/s\tlowest\thighest\tn\tp50 ms\tp99 ms\tcpu us\tfailed\tours/its\t")
	order := map[string]int{sublet: 0, etcd: 1, kine: 2}
	runs := slices.SortedFunc(maps.Keys(rates), func(a, b run) int {
		return cmp.Or(inOrder(a.name, b.name), order[a.who]-order[b.who])
	})
	for _, r := range runs {
		value := func(f int) float64 { return t[figures[f].name(r.name)][r.who] }
		fmt.Fprintf(w, "%s\t%s\t%.0f\t%.0f\t%.0f\t%d\t%.3f\t%.3f\t%.1f\t%d\t%.2f\t\n", r.name, r.who,
			value(0), slices.Min(rates[r]), slices.Max(rates[r]), len(rates[r]), value(1), value(2), value(3), failed[r],
			t[r.name][sublet]/value(0))
	}
	w.Flush()
}

// inOrder sorts names: as is before slow, then by letters, numbers by their value.
func inOrder(a, b string) int {
	_, slowA := strings.CutPrefix(a, "slow/")
	_, slowB := strings.CutPrefix(b, "slow/")
	if slowA != slowB {
		return map[bool]int{false: -1, true: 1}[slowA]
	}
	return strings.Compare(pad(a), pad(b))
}

// pad makes numbers as long as each other.
func pad(s string) string {
	var out, digits strings.Builder
	for _, r := range s + " " {
		if r >= '0' && r <= '9' {
			digits.WriteRune(r)
			continue
		}
		if digits.Len() > 0 {
			fmt.Fprintf(&out, "%06s", digits.String())
			digits.Reset()
		}
		out.WriteRune(r)
	}
	return out.String()
}
