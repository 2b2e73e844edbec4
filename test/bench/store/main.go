// Command store measures Sublet's store beside a real etcd and kine over SQLite,
// on one disk, in one run. `make bench-store` runs it; docs/benchmarks.md says
// what was seen.
//
//	store (this process): for each repetition, each cell, each contender
//	   | starts the server, where there is one, on empty files: etcd, kine
//	   | starts itself once more as the client, with a task on its input
//	   v
//	client: Kubernetes' etcd client (go.etcd.io/etcd/client/v3/kubernetes)
//	   |  sublet: etcdclient over store, in the same process
//	   |  etcd, kine: gRPC over loopback
//	   v
//	outcomes -> medians -> table, lines "ratio NAME VALUE", bars held and missed
//
// All contenders are asked for the same by the same code, in the way upstream's
// storage asks: a create is a transaction that wants no key and puts one, an
// update one that wants the revision last seen, a get and a list are ranges. All
// have what they acknowledge on disk: kine runs with synchronous=FULL, which is
// not its default.
//
// # What the figures are
//
//   - Operations per second, and p50 and p99 of their latency, as the client sees
//     them, in a closed loop of so many writers.
//   - CPU per operation: the CPU time of client and server together, user and
//     system, from begin to end of the phase, divided by its operations. Ours is
//     one process and so is counted whole.
//   - "slow/": every fsync and fdatasync of every process takes 1 ms longer,
//     by strace, which stops processes at these calls only. strace's own time
//     is not counted.
//   - A ratio is ours by etcd's, of medians over the repetitions.
//
// It never looks at figures to decide its exit code: that is 0 unless a run failed.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"time"

	"google.golang.org/grpc/grpclog"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	grpclog.SetLoggerV2(grpclog.NewLoggerV2(io.Discard, io.Discard, io.Discard)) // a server that is just starting
	var err error
	if len(os.Args) > 1 && os.Args[1] == clientRole {
		err = client(ctx, os.Stdin, os.Stdout)
	} else {
		err = run(ctx, os.Args[1:], os.Stdout)
	}
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench-store:", err)
		os.Exit(1)
	}
}

// settings are the flags.
type settings struct {
	dir, peers, profile, raw string
	only                     *regexp.Regexp
	seconds                  float64
	reps                     int
	delay                    time.Duration
}

func parse(args []string) (settings, error) {
	var o settings
	f := flag.NewFlagSet("bench-store", flag.ContinueOnError)
	f.StringVar(&o.dir, "dir", "", "folder on the disk to measure; empty: the system's for temporary files")
	f.StringVar(&o.peers, "peers", "bin/peers", "folder with etcd and kine")
	f.StringVar(&o.profile, "profile", "", "folder for CPU profiles of our side; empty: none")
	f.StringVar(&o.raw, "raw", "", "file for every single outcome, as JSON; empty: none")
	only := f.String("only", "", "regular expression of the cells to run, as they are named while they run")
	f.Float64Var(&o.seconds, "seconds", 1, "length of a phase")
	f.IntVar(&o.reps, "reps", 3, "repetitions (kine: one)")
	f.DurationVar(&o.delay, "delay", time.Millisecond, "what is added to a flush in slow cells")
	if err := f.Parse(args); err != nil {
		return o, err
	}
	if o.seconds <= 0 || o.reps <= 0 || o.delay <= 0 {
		return o, fmt.Errorf("-seconds, -reps and -delay must be positive")
	}
	var err error
	o.only, err = regexp.Compile(*only)
	return o, err
}

func run(ctx context.Context, args []string, out io.Writer) error {
	o, err := parse(args)
	if err != nil {
		return err
	}
	if o.dir, err = os.MkdirTemp(o.dir, "bench-store-"); err != nil {
		return err
	}
	defer os.RemoveAll(o.dir)
	if o.peers, err = filepath.Abs(o.peers); err != nil {
		return err
	}
	fmt.Fprintf(out, "load average at the start: %s\n", load())
	began := time.Now()
	b := &bench{settings: o, progress: os.Stderr}
	if err := b.all(ctx); err != nil {
		return err
	}
	fmt.Fprintf(out, "load average at the end: %s; %.0f s\n\n", load(), time.Since(began).Seconds())
	if o.raw != "" {
		if err := keep(o.raw, b.outcomes); err != nil {
			return err
		}
	}
	report(out, b.outcomes)
	return nil
}

// load is the first three fields of proc_loadavg(5).
func load() string {
	data, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return err.Error()
	}
	return strings.Join(strings.Fields(string(data))[:3], " ")
}

func keep(path string, all []outcome) error {
	data, err := json.MarshalIndent(all, "", " ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, data, 0o644)
}
