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
	child        string // "ours", "peer", "ask" or "flood" in a child
	kubeconfig   string // of "ask" and "flood"
	dir, bin     string
	sizes, peers []int
	window       time.Duration
	heap, cpu    string
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
	flag.DurationVar(&o.window, "window", 20*time.Second, "how long to let things settle, and to measure idle processor time")
	flag.StringVar(&o.bin, "bin", "bin/peers", "where etcd, kube-apiserver and kube-controller-manager are")
	flag.StringVar(&o.heap, "heap", "", "write a heap profile of ours to this file")
	flag.StringVar(&o.cpu, "cpu", "", "write a processor profile of ours starting again to this file")
	flag.StringVar(&o.child, "child", "", "for the program itself")
	flag.StringVar(&o.kubeconfig, "kubeconfig", "", "for the program itself")
	flag.StringVar(&o.dir, "dir", "", "for the program itself")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	err := errors.Join(parseInts(*sizes, &o.sizes), parseInts(*peers, &o.peers))
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

func run(ctx context.Context, o options) error {
	switch o.child {
	case "ours":
		return oursMain(ctx, o)
	case "peer":
		return peerMain(ctx, o)
	case "ask":
		return askMain(ctx, o)
	case "flood":
		return floodMain(ctx, o)
	}
	ours, err := child(ctx, "ours")
	if err != nil {
		return err
	}
	var peer map[string]reading
	if len(o.peers) > 0 {
		if peer, err = child(ctx, "peer"); err != nil {
			return err
		}
	}
	report(o, ours, peer)
	return nil
}

// child runs this program again, with the same flags, as one competitor.
func child(ctx context.Context, which string) (map[string]reading, error) {
	dir, err := os.MkdirTemp("", "density-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	fmt.Fprintf(os.Stderr, "measuring %s ...\n", which)
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	c := exec.CommandContext(ctx, self, append(os.Args[1:], "-child", which, "-dir", dir)...)
	c.Cancel = func() error { return c.Process.Signal(os.Interrupt) } // it ends what it started
	c.Stderr = os.Stderr
	out, err := c.Output()
	if err != nil {
		return nil, fmt.Errorf("measure %s: %w", which, err)
	}
	readings := map[string]reading{}
	lines := bufio.NewScanner(bytes.NewReader(out))
	for lines.Scan() {
		var r reading
		if err := json.Unmarshal(lines.Bytes(), &r); err != nil {
			return nil, fmt.Errorf("measure %s: %q: %w", which, lines.Text(), err)
		}
		readings[r.Name] = r
		fmt.Printf("value %s/%s %.4g %s\n", which, r.Name, r.Value, r.Unit)
	}
	return readings, lines.Err()
}

// figure is how a child reports.
func figure(name string, value float64, unit string) {
	line, err := json.Marshal(reading{name, value, unit})
	if err != nil {
		panic(err) // a name and a number
	}
	fmt.Println(string(line))
}

// report prints what follows from the readings: marginal costs, and ratios.
func report(o options, ours, peer map[string]reading) {
	mine := map[string]float64{}
	for _, what := range []string{"natural", "anon", "pss", "idle-cpu", "goroutines"} {
		for i := 1; i < len(o.sizes); i++ {
			v := marginal(ours, what, o.sizes[0], o.sizes[i])
			mine[what] = v
			fmt.Printf("value marginal/%s/%d %.4g %s\n", what, o.sizes[i], v, ours[fmt.Sprintf("total/%s/%d", what, o.sizes[0])].Unit)
		}
	}
	if b, ok := ours["quiet/beside-flood/p99"]; ok {
		fmt.Printf("ratio neighbour/p99 %.3g\n", b.Value/ours["quiet/alone/p99"].Value)
	}
	if peer == nil || len(o.sizes) < 2 {
		return
	}
	last := o.peers[len(o.peers)-1]
	for _, what := range []string{"natural", "anon", "pss", "idle-cpu"} {
		theirs := peer[fmt.Sprintf("total/%s/%d", what, last)].Value / float64(last)
		fmt.Printf("ratio %s %.3g\n", what, mine[what]/theirs)
	}
	first := ours["create/first-answer/p50"].Value
	fmt.Printf("ratio create/first-answer %.3g\n", first/peer["create/first-answer/p50"].Value)
}

// marginal is what each control plane beyond few costs.
func marginal(r map[string]reading, what string, few, many int) float64 {
	at := func(n int) float64 { return r[fmt.Sprintf("total/%s/%d", what, n)].Value }
	return (at(many) - at(few)) / float64(many-few)
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
