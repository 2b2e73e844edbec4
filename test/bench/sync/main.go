package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"runtime/pprof"
	"time"

	"github.com/go-logr/logr"
	"golang.org/x/sys/unix"
	"k8s.io/klog/v2"
	ctrl "sigs.k8s.io/controller-runtime"
)

type options struct {
	tenants, pods, idle, greedy, nodes int
	alone                              bool
	patience                           time.Duration
	cpu, host, bin                     string
	child, dir                         string // of the host's process
}

func main() {
	var o options
	flag.IntVar(&o.tenants, "tenants", 100, "how many tenants")
	flag.IntVar(&o.pods, "pods", 100, "how many pods each of them has")
	flag.IntVar(&o.idle, "idle", 100, "how many pods to measure one by one, each time")
	flag.IntVar(&o.greedy, "greedy", 10_000, "how many pods the greedy tenant has; 0 leaves it out")
	flag.IntVar(&o.nodes, "nodes", 10, "how many nodes are simulated")
	flag.BoolVar(&o.alone, "alone", false, "let the syncers share nothing, to see what sharing is worth")
	flag.DurationVar(&o.patience, "patience", 20*time.Minute, "how long a phase may take")
	flag.StringVar(&o.cpu, "cpu", "", "write processor profiles of each phase to files that begin with this: of this process, of the host's, and of upstream's API server for half a minute")
	flag.StringVar(&o.host, "host", "upstream", "the host's control plane: upstream, as it is shipped, or ours, whose scheduler may ask as often as it likes")
	flag.StringVar(&o.bin, "bin", "bin/peers", "where upstream's programs are")
	flag.StringVar(&o.child, "child", "", "for the program itself")
	flag.StringVar(&o.dir, "dir", "", "for the program itself")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	quiet := slog.New(slog.DiscardHandler)
	slog.SetDefault(quiet)
	klog.SetSlogLogger(quiet)
	ctrl.SetLogger(logr.Discard()) // it complains when it has none
	work := run
	if o.child == "host" {
		work = hostMain
	}
	if err := work(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, "sync:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, o options) (err error) {
	if o.host != "ours" && o.host != "upstream" {
		return fmt.Errorf("-host %q: ours or upstream", o.host)
	}
	if o.tenants < 2 || o.pods < 1 || o.idle < 1 || o.nodes < 1 {
		return errors.New("at least two tenants, and one of everything else")
	}
	dir, err := os.MkdirTemp("", "sublet-bench-sync-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	w := &world{dir: dir, options: o, requests: requests{by: map[string]int{}}}
	defer func() { err = errors.Join(err, w.stop()) }()
	pprof.SetGoroutineLabels(labels[partClients])
	load("before")
	fmt.Printf("# scheduling policy: %s\n", policy())
	if err := w.start(ctx); err != nil {
		return fmt.Errorf("start: %w", err)
	}
	var r report
	for _, phase := range []struct {
		name string
		do   func(context.Context, *report) error
	}{
		{"memory of idle syncers", w.idleMemory}, {"idle", w.idle}, {"direct", w.direct}, {"synced", w.synced},
		{"restart", w.restart}, {"memory", w.podMemory}, {"greedy", w.greedy},
	} {
		fmt.Printf("# %s\n", phase.name)
		phaseCtx, cancel := context.WithTimeout(ctx, o.patience)
		err := phase.do(phaseCtx, &r)
		cancel()
		if err != nil {
			return fmt.Errorf("%s: %w", phase.name, err)
		}
	}
	load("after")
	r.judge(os.Stdout)
	return nil
}

// load prints the machine's load average: what else runs is in the figures.
func load(when string) {
	if text, err := os.ReadFile("/proc/loadavg"); err == nil {
		fmt.Printf("# load %s: %s", when, text)
	}
}

// policy is the kernel's name for the way in which this thread shares processors
// (sched(7)), which its children inherit.
func policy() string {
	attr, err := unix.SchedGetAttr(0, 0)
	if err != nil {
		return err.Error()
	}
	switch attr.Policy {
	case unix.SCHED_NORMAL:
		return "normal"
	case unix.SCHED_BATCH:
		return "batch"
	default:
		return fmt.Sprint(attr.Policy)
	}
}
