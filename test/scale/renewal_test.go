package scale_test

import (
	"fmt"
	"maps"
	"math"
	"time"

	"sublet.dev/api/v1alpha1"
	"sublet.dev/test/machine"
)

// renewed waits until the cells in which tenants have run were replaced by new
// processes, and wants a tenant that sleeps there to cost next to nothing: what is
// reachable is compared for each cell with that which has least, and anonymous memory
// for all with many tenants with those that have one.
func (f *fleet) renewed(n int) {
	f.t.Helper()
	was, since := processes(), time.Now()
	f.must(f.until(f.t.Context(), "cells are not replaced any more", func() bool {
		if now := processes(); !maps.Equal(now, was) {
			was, since = now, time.Now()
		}
		return time.Since(since) > renewal+renewal/4
	}))
	all := f.weigh("renewed", n)
	delete(all, "server")
	var tenants v1alpha1.VirtualClusterList
	f.must(f.api.List(f.t.Context(), &tenants))
	in := map[string]int{}
	for _, vc := range tenants.Items {
		in[vc.Status.Cell]++
	}
	least := math.Inf(1)
	for _, u := range all {
		least = min(least, u.heap)
	}
	var few, many group
	for cell, u := range all {
		value(fmt.Sprintf("renewed-tenant/%s", cell), (u.heap-least)/float64(in[cell])*1024, "KiB")
		if bound := least + cellHeap + float64(in[cell])*sleeperMemory; u.heap > bound {
			f.t.Errorf("%s with %d tenants asleep has %v, and the least is %.1f MiB", cell, in[cell], u, least)
		}
		if in[cell] > 1 {
			many.add(in[cell], u)
		} else {
			few.add(in[cell], u)
		}
	}
	value("renewed-anonymous-few", few.mean(), "MiB")
	value("renewed-anonymous-many", many.mean(), "MiB")
	if bound := few.mean() + cellMemory + many.each()*sleeperMemory; many.mean() > bound {
		f.t.Errorf("cells with %.0f tenants asleep have %.1f MiB anonymous on average, those with one have %.1f", many.each(), many.mean(), few.mean())
	}
}

// group is what several cells have together.
type group struct {
	cells, tenants int
	anonymous      float64
}

func (g *group) add(tenants int, u usage) {
	g.cells, g.tenants, g.anonymous = g.cells+1, g.tenants+tenants, g.anonymous+u.anonymous
}

// mean is the memory of a cell on average, and each how many tenants it has.
func (g *group) mean() float64 { return g.anonymous / float64(max(g.cells, 1)) }
func (g *group) each() float64 { return float64(g.tenants) / float64(max(g.cells, 1)) }

// processes returns the ids of the processes of all cells.
func processes() map[string]int {
	all := map[string]int{}
	for i := range 100 {
		pid, err := machine.ReadPID(fmt.Sprintf("cell-%d.pid", i))
		if err == nil {
			all[fmt.Sprint(i)] = pid
		}
	}
	return all
}
