package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"time"

	"sublet.dev/tenant-apiserver/pki"
	"sublet.dev/test/upstream"
)

// peerMain is the child that measures upstream's processes.
func peerMain(ctx context.Context, o options) (err error) {
	var all []*upstream.Cluster
	defer func() {
		for _, p := range all {
			err = errors.Join(err, p.Stop())
		}
	}()
	var times []time.Duration
	for _, n := range o.peers {
		for len(all) < n {
			p, took, err := startPeer(ctx, o.bin, filepath.Join(o.dir, fmt.Sprintf("p%d", len(all)+1)))
			if err != nil {
				return err
			}
			all, times = append(all, p), append(times, took)
			if err := p.StartControllers(ctx); err != nil {
				return err
			}
		}
		if err := measurePeers(ctx, all, o.window); err != nil {
			return err
		}
	}
	figure("create/first-answer/p50", milliseconds(quantile(times, 0.5)), "ms")
	return nil
}

// startPeer starts storage and API server, and says how long the first answer took.
func startPeer(ctx context.Context, bin, dir string) (*upstream.Cluster, time.Duration, error) {
	ca, err := pki.LoadOrCreate(filepath.Join(dir, "pki"), "peer")
	if err != nil {
		return nil, 0, err
	}
	start := time.Now()
	p, err := upstream.Start(ctx, upstream.Config{Bin: bin, Dir: dir, CA: ca, ServiceCIDR: netip.MustParsePrefix("10.96.0.0/16")})
	return p, time.Since(start), err
}

func measurePeers(ctx context.Context, all []*upstream.Cluster, window time.Duration) error {
	var pids []int
	for _, p := range all {
		pids = append(pids, p.PIDs()...)
	}
	if err := pause(ctx, 2*window); err != nil { // they take longer to settle
		return err
	}
	before, err := usageOf(pids...)
	if err != nil {
		return err
	}
	if err := pause(ctx, window); err != nil {
		return err
	}
	after, err := usageOf(pids...)
	if err != nil {
		return err
	}
	name := fmt.Sprintf("/%d", len(all))
	figure("total/natural"+name, after.Natural, "MiB")
	figure("total/pss"+name, after.PSS, "MiB")
	figure("total/anon"+name, after.Anon, "MiB")
	figure("total/idle-cpu"+name, milliseconds(after.CPU-before.CPU)/window.Seconds(), "mCPU")
	return nil
}
