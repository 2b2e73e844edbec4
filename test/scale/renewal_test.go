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
// processes, and wants a tenant that sleeps there to cost next to nothing: each cell is
// compared with that which has least.
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
	least := math.Inf(1)
	for _, u := range all {
		least = min(least, u.anonymous)
	}
	var tenants v1alpha1.VirtualClusterList
	f.must(f.api.List(f.t.Context(), &tenants))
	in := map[string]int{}
	for _, vc := range tenants.Items {
		in[vc.Status.Cell]++
	}
	for cell, u := range all {
		value(fmt.Sprintf("renewed-tenant/%s", cell), (u.anonymous-least)/float64(in[cell])*1024, "KiB")
		if bound := least + cellMemory + float64(in[cell])*sleeperMemory; u.anonymous > bound {
			f.t.Errorf("%s with %d tenants asleep has %v, and the least is %.1f MiB", cell, in[cell], u, least)
		}
	}
}

// processes returns the ids of the processes of all cells;.
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
