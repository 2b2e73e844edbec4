package main

import (
	"fmt"
	"io"
	"strings"
)

// figures are the values and ratios of a run by name.
type figures map[string]float64

// value notes and prints one.
func (f figures) value(name string, v float64, unit string) {
	f[name] = v
	fmt.Printf("value %s %.4g %s\n", name, v, unit)
}

// ratio notes and prints what is by what else is, if both are known.
func (f figures) ratio(name string, a, b float64) {
	if a > 0 && b > 0 {
		f["ratio "+name] = a / b
		fmt.Printf("ratio %s %.3g\n", name, a/b)
	}
}

// units of what is measured of a number of control planes.
var units = map[string]string{"natural": "MiB", "anon": "MiB", "pss": "MiB", "heap": "MiB", "stacks": "MiB", "idle-cpu": "mCPU", "goroutines": ""}

// kinds are those, in the order in which they are told.
var kinds = []string{"natural", "anon", "pss", "heap", "stacks", "idle-cpu", "goroutines"}

// derive adds what follows from what was measured: what each further control plane
// costs, and how that compares.
func derive(o options, f figures) {
	var last map[string]float64
	for i := 1; i < len(o.sizes); i++ {
		last = f.marginal("ours", "marginal", o.sizes[0], o.sizes[i])
	}
	f.marginal("used", "used/marginal", 1, o.used)
	f.sleepers("ran", "cell", ranBefore, o.sleepers)
	f.sleepers("adopted", "adopt", 0, o.sleepers)
	f.ratio("neighbour/p99", f["ours/quiet/beside-flood/p99"], f["ours/quiet/alone/p99"])
	f.ratio("neighbour/p50", f["ours/quiet/beside-flood/p50"], f["ours/quiet/alone/p50"])
	if len(o.peers) == 0 {
		return
	}
	peers := o.peers[len(o.peers)-1]
	for _, kind := range []string{"natural", "anon", "pss", "idle-cpu"} {
		f.ratio(kind, last[kind], f[fmt.Sprintf("peer/total/%s/%d", kind, peers)]/float64(peers))
	}
	f.ratio("create/first-answer", f["ours/create/first-answer/p50"], f["peer/create/first-answer/p50"])
	f.ratio("create/ready", f["ours/create/ready/p50"], f["peer/create/ready/p50"])
}

// marginal adds what each control plane beyond few costs.
func (f figures) marginal(of, name string, few, many int) map[string]float64 {
	each := map[string]float64{}
	for _, kind := range kinds {
		low, ok := f[fmt.Sprintf("%s/total/%s/%d", of, kind, few)]
		high, there := f[fmt.Sprintf("%s/total/%s/%d", of, kind, many)]
		if ok && there {
			each[kind] = (high - low) / float64(many-few)
			f.value(fmt.Sprintf("%s/%s/%d", name, kind, many), each[kind], units[kind])
		}
	}
	return each
}

// sleepers adds what each tenant that sleeps costs beyond few.
func (f figures) sleepers(kind, child string, few, many int) {
	for _, what := range []string{"anon", "heap"} {
		total := fmt.Sprintf("%s/total/%s/%s/", child, kind, what)
		low, ok := f[fmt.Sprint(total, few)]
		high, there := f[fmt.Sprint(total, many)]
		if ok && there {
			f.value("hibernated/"+kind+"/"+what, (high-low)/float64(many-few)*1024, "KiB")
		}
	}
}

// bar is what a figure has to reach: all that begin with its name, or it alone.
type bar struct {
	what   string
	name   string
	atMost float64
	unit   string
}

var bars = []bar{
	{"anonymous memory of one more control plane", "marginal/anon/", 15, "MiB"},
	{"natural memory of one more control plane", "marginal/natural/", 18, "MiB"},
	{"idle processor time of one more control plane", "marginal/idle-cpu/", 1.5, "mCPU"},
	{"create -> first answer, p50", "ours/create/first-answer/p50", 100, "ms"},
	{"create -> first answer, by that of processes", "ratio create/first-answer", 0.05, ""},
	{"wake -> first answer, p50", "cell/wake/first-answer/p50", 100, "ms"},
	{"anonymous memory of one more that sleeps, until its cell is replaced", "hibernated/ran/anon", 100, "KiB"},
	{"anonymous memory of one more that sleeps, once its cell was replaced", "hibernated/adopted/anon", 100, "KiB"},
	{"p99 beside a neighbour's flood, by that alone", "ratio neighbour/p99", 2, ""},
	{"goal: anonymous memory of one more control plane", "marginal/anon/", 8, "MiB"},
}

// judge says which bars were held and which were missed, and by which figures.
func judge(out io.Writer, f figures) {
	for _, b := range bars {
		var held, missed []string
		for _, name := range sorted(f) {
			if name != b.name && !(strings.HasSuffix(b.name, "/") && strings.HasPrefix(name, b.name)) {
				continue
			}
			said := fmt.Sprintf("%s %.3g", name, f[name])
			if f[name] <= b.atMost {
				held = append(held, said)
			} else {
				missed = append(missed, said)
			}
		}
		bound := strings.TrimSpace(fmt.Sprintf("at most %g %s", b.atMost, b.unit))
		switch {
		case len(missed) > 0:
			fmt.Fprintf(out, "MISSED  %s %s: %s\n", b.what, bound, strings.Join(missed, ", "))
		case len(held) > 0:
			fmt.Fprintf(out, "held    %s %s: %s\n", b.what, bound, strings.Join(held, ", "))
		default:
			fmt.Fprintf(out, "not run %s %s\n", b.what, bound)
		}
	}
}
