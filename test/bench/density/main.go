package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"time"
)

type options struct {
	child           string // which one, in a child
	kubeconfig      string // of "ask", "flood" and "watch"; a list, separated by commas
	dir, bin        string
	sizes, peers    []int
	used, sleepers  int
	starts          int
	window, period  time.Duration
	neighbours      bool
	heap, cpu, idle string
	beside, trace   string
}

// reading is one figure, as a child prints it.
type reading struct {
	Name  string
	Value float64
	Unit  string
}

func main() {
	var o options
	sizes := flag.String("tenants", "1,10,100", "how many of our control planes to measure, ascending")
	peers := flag.String("peers", "1,3", "how many of upstream's, ascending; empty: none")
	flag.DurationVar(&o.window, "window", 20*time.Second, "how long to let things settle")
	flag.DurationVar(&o.period, "period", 2*time.Minute, "how long to measure idle processor time: as long as Go waits with a collection of its own")
	flag.IntVar(&o.used, "used", 6, "how many of ours to measure that are used; 0: none")
	flag.IntVar(&o.sleepers, "sleepers", 30, "how many of ours to put to sleep and wake in a cell; 0: none")
	flag.StringVar(&o.bin, "bin", "bin/peers", "where etcd, kube-apiserver and kube-controller-manager are")
	flag.StringVar(&o.heap, "heap", "", "write a heap profile of ours to this file")
	flag.StringVar(&o.cpu, "cpu", "", "write a processor profile of ours starting again, or of -starts, to this file")
	flag.StringVar(&o.idle, "idle", "", "write a processor profile of ours while idle, as many as there are, to this file")
	flag.BoolVar(&o.neighbours, "neighbours", false, "measure nothing but a quiet one beside one that is flooded, among as many as the last of -tenants")
	flag.IntVar(&o.starts, "starts", 0, "measure nothing but so many starts, one after the other, beside as many as -tenants says")
	flag.StringVar(&o.trace, "trace", "", "write an execution trace of -starts, the last of them, to this file")
	flag.StringVar(&o.beside, "beside", "", "write an execution trace of ours beside the flood, in the last round, to this file")
	flag.StringVar(&o.child, "child", "", "for the program itself")
	flag.StringVar(&o.kubeconfig, "kubeconfig", "", "for the program itself")
	flag.StringVar(&o.dir, "dir", "", "for the program itself")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	err := errors.Join(parseInts(*sizes, &o.sizes), parseInts(*peers, &o.peers))
	if o.neighbours || o.starts > 0 {
		o.peers, o.used, o.sleepers = nil, 0, 0
	}
	if err == nil {
		err = run(ctx, o)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "density:", err)
		os.Exit(1)
	}
}

func parseInts(list string, into *[]int) error {
	for _, word := range strings.FieldsFunc(list, func(r rune) bool { return r == ',' }) {
		n, err := strconv.Atoi(word)
		if err != nil || n < 1 {
			return fmt.Errorf("%q is not a list of numbers", list)
		}
		*into = append(*into, n)
	}
	return nil
}

// children are what this program does when it runs itself.
var children = map[string]func(context.Context, options) error{
	"ours": oursMain, "used": usedMain, "cell": cellMain, "adopt": adoptMain, "peer": peerMain,
	"ask": askMain, "flood": floodMain, "watch": watchMain,
}

func run(ctx context.Context, o options) error {
	if o.child != "" {
		do, ok := children[o.child]
		if !ok {
			return fmt.Errorf("there is no child %q", o.child)
		}
		return do(ctx, o)
	}
	all := figures{}
	for _, c := range []struct {
		run   bool
		names []string // they share a directory
	}{{len(o.sizes) > 0, []string{"ours"}}, {o.used > 1, []string{"used"}}, {o.sleepers > ranBefore, []string{"cell", "adopt"}}, {len(o.peers) > 0, []string{"peer"}}} {
		if !c.run {
			continue
		}
		if err := measured(ctx, c.names, all); err != nil {
			return err
		}
	}
	derive(o, all)
	fmt.Println()
	judge(os.Stdout, all)
	return nil
}

// measured runs children on a directory of theirs.
func measured(ctx context.Context, names []string, all figures) (err error) {
	dir, err := os.MkdirTemp("", "density-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	for _, name := range names {
		if err := child(ctx, name, dir, all); err != nil {
			return err
		}
	}
	return nil
}

// child runs this program again, with the same flags, as one competitor.
func child(ctx context.Context, which, dir string, all figures) error {
	fmt.Fprintf(os.Stderr, "measuring %s ...\n", which)
	self, err := os.Executable()
	if err != nil {
		return err
	}
	c := exec.CommandContext(ctx, self, append(os.Args[1:], "-child", which, "-dir", dir)...)
	c.Cancel = func() error { return c.Process.Signal(os.Interrupt) } // it ends what it started
	c.Stderr = os.Stderr
	out, err := c.Output()
	if err != nil {
		return fmt.Errorf("measure %s: %w", which, err)
	}
	lines := bufio.NewScanner(bytes.NewReader(out))
	for lines.Scan() {
		var r reading
		if err := json.Unmarshal(lines.Bytes(), &r); err != nil {
			return fmt.Errorf("measure %s: %q: %w", which, lines.Text(), err)
		}
		all.value(which+"/"+r.Name, r.Value, r.Unit)
	}
	return lines.Err()
}

// figure is how a child reports.
func figure(name string, value float64, unit string) {
	line, err := json.Marshal(reading{name, value, unit})
	if err != nil {
		panic(err) // a name and a number
	}
	fmt.Println(string(line))
}

// pause waits: what is measured is what happens when nothing is asked for.
func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
