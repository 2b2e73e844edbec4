package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"
)

// The contenders. The first is ours, the second what it is measured by.
const (
	sublet = "sublet"
	etcd   = "etcd"
	kine   = "kine"
)

// cell is one set of circumstances under which all contenders run the same task.
type cell struct {
	slow bool
	name string // of the task: writes, sustained, lists, watch, idle, open
	size int    // of values, bytes
	// writers are the callers at the same time.
	writers int
	seconds float64 // 0: the flag's
	reps    int     // 0: the flag's
	who     []string
}

// cells are all there are, those first whose figures have bars.
func cells() []cell {
	var all []cell
	everyone := []string{sublet, etcd, kine}
	for _, slow := range []bool{false, true} {
		for _, size := range []int{1 << 10, 10 << 10} {
			for _, writers := range []int{1, 16, 64} {
				all = append(all, cell{slow: slow, name: "writes", size: size, writers: writers, who: everyone})
			}
		}
	}
	for _, slow := range []bool{false, true} {
		all = append(all, cell{slow: slow, name: "sustained", size: 1 << 10, writers: 64, seconds: 10, reps: 1, who: []string{sublet, etcd}})
	}
	for _, size := range []int{1 << 10, 10 << 10} {
		all = append(all, cell{name: "lists", size: size, writers: 1, who: everyone}, cell{name: "watch", size: size, writers: 16, who: everyone})
	}
	return append(all,
		cell{name: "idle", size: 1 << 10, writers: 1, reps: 1, who: everyone},
		cell{name: "open", size: 10 << 10, writers: 1, reps: 1, who: []string{sublet, etcd}})
}

func (c cell) String() string { return prefix(c.slow) + c.name + "/" + c.suffix() }

func (c cell) suffix() string { return fmt.Sprintf("%dKiB/%dw", c.size>>10, c.writers) }

func prefix(slow bool) string {
	if slow {
		return "slow/"
	}
	return ""
}

// outcome is one phase of one contender's run.
type outcome struct {
	Who, Name string // Name as in the report: slow/create/1KiB/16w
	Phase     phase
}

// bench runs the cells one after the other.
type bench struct {
	settings
	progress io.Writer
	outcomes []outcome
	session  int
}

// all runs every repetition of every cell, with the contenders side by side in
// time, and in another order each time.
func (b *bench) all(ctx context.Context) error {
	todo := slices.DeleteFunc(cells(), func(c cell) bool { return !b.only.MatchString(c.String()) })
	for rep := range b.reps {
		for i, c := range todo {
			if c.reps > 0 && rep >= c.reps {
				continue
			}
			for turn := range c.who {
				who := c.who[(turn+rep+i)%len(c.who)]
				if who == kine && rep > 0 {
					continue
				}
				if err := b.one(ctx, c, who, rep); err != nil {
					return fmt.Errorf("%s of %s: %w", c, who, err)
				}
			}
		}
	}
	return nil
}

// one runs one contender in one cell, in a folder of its own.
func (b *bench) one(ctx context.Context, c cell, who string, rep int) error {
	b.session++
	dir := filepath.Join(b.dir, fmt.Sprint(b.session))
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	syscall.Sync() // what the one before left to the disk is not this one's
	began := time.Now()
	s := &session{bench: b, cell: c, who: who, dir: dir, rep: rep}
	phases, err := tasks[c.name](s, ctx)
	for _, p := range phases {
		b.outcomes = append(b.outcomes, outcome{who, prefix(c.slow) + p.Name, p})
		fmt.Fprintf(b.progress, "%-7s %-28s %s\n", who, prefix(c.slow)+p.Name, p)
	}
	if took := time.Since(began); took > 20*time.Second {
		fmt.Fprintf(b.progress, "%-7s %-28s took %.0f s in all\n", who, c, took.Seconds())
	}
	return err
}
