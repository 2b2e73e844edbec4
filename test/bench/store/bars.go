package main

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
)

// bar is what a figure of ours has to reach.
type bar struct {
	what   string
	atMost bool // otherwise at least
	limit  float64
	names  func(string) bool
}

func (b bar) holds(v float64) bool {
	if b.atMost {
		return v <= b.limit
	}
	return v >= b.limit
}

func begins(prefixes ...string) func(string) bool {
	return func(name string) bool {
		return slices.ContainsFunc(prefixes, func(p string) bool { return strings.HasPrefix(name, p) })
	}
}

// bars of ratios.
var bars = []bar{
	{"creates", false, 1.8, begins("create/")},
	{"creates, slow flushes", false, 1.25, begins("slow/create/")},
	{"p99 of writes", true, 1, begins("p99/create/", "p99/update/", "slow/p99/create/", "slow/p99/update/")},
	{"CPU per write", true, 0.4, begins("cpu/create/", "cpu/update/", "slow/cpu/create/", "slow/cpu/update/")},
}

// idleLimit is how much anonymous memory an idle store may take, in MiB.
const idleLimit = 0.5

// judge says which bars were held and which missed, cell by cell.
func judge(out io.Writer, t table) {
	for _, b := range bars {
		held, missed := 0, []string(nil)
		for _, name := range slices.SortedFunc(maps.Keys(t), inOrder) {
			r, ok := t.ratio(name)
			switch {
			case !ok || !b.names(name):
			case b.holds(r):
				held++
			default:
				missed = append(missed, fmt.Sprintf("%s %.2f", name, r))
			}
		}
		verdict(out, fmt.Sprintf("%s %s %gx etcd's", b.what, bound(b.atMost), b.limit), held, missed)
	}
	held, missed := 0, []string(nil)
	for _, name := range []string{"idle", "idle-used"} {
		switch v, ok := t[name][sublet]; {
		case ok && v <= idleLimit:
			held++
		case ok:
			missed = append(missed, fmt.Sprintf("%s %.2f MiB", name, v))
		}
	}
	verdict(out, fmt.Sprintf("idle store at most %g MiB", idleLimit), held, missed)
}

func bound(atMost bool) string {
	if atMost {
		return "at most"
	}
	return "at least"
}

func verdict(out io.Writer, what string, held int, missed []string) {
	switch {
	case len(missed) > 0:
		fmt.Fprintf(out, "MISSED  %s: in %d of %d (%s)\n", what, len(missed), held+len(missed), strings.Join(missed, ", "))
	case held > 0:
		fmt.Fprintf(out, "held    %s: in all %d\n", what, held)
	default:
		fmt.Fprintf(out, "not run %s\n", what)
	}
}
