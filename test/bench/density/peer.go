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
	var answers, readies []time.Duration
	for _, n := range o.peers {
		for len(all) < n {
			p, start, err := startPeer(ctx, o.bin, filepath.Join(o.dir, fmt.Sprintf("p%d", len(all)+1)))
			if err != nil {
				return err
			}
			all, answers = append(all, p), append(answers, time.Since(start))
			if err := p.StartControllers(ctx); err != nil {
				return err
			}
			if err := peerReady(ctx, p); err != nil {
				return err
			}
			readies = append(readies, time.Since(start))
		}
		if err := measurePeers(ctx, all, o); err != nil {
			return err
		}
	}
	percentiles("create/first-answer", answers)
	percentiles("create/ready", readies)
	return nil
}

// startPeer starts storage and API server, waits for the first answer, and says when it
// began.
func startPeer(ctx context.Context, bin, dir string) (*upstream.Cluster, time.Time, error) {
	ca, err := pki.LoadOrCreate(filepath.Join(dir, "pki"), "peer")
	if err != nil {
		return nil, time.Time{}, err
	}
	start := time.Now()
	p, err := upstream.Start(ctx, upstream.Config{Bin: bin, Dir: dir, CA: ca, ServiceCIDR: netip.MustParsePrefix("10.96.0.0/16")})
	return p, start, err
}

// peerReady waits until it is as ready as ours has to be.
func peerReady(ctx context.Context, p *upstream.Cluster) error {
	config, err := p.Admin()
	if err != nil {
		return err
	}
	c, leave, err := clientFor(config)
	if err != nil {
		return err
	}
	defer leave()
	return ready(ctx, c)
}

func measurePeers(ctx context.Context, all []*upstream.Cluster, o options) error {
	var pids []int
	for _, p := range all {
		pids = append(pids, p.PIDs()...)
	}
	if err := pause(ctx, 2*o.window); err != nil { // they take longer to settle
		return err
	}
	before, err := usageOf(pids...)
	if err != nil {
		return err
	}
	if err := pause(ctx, o.period); err != nil {
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
	figure("total/idle-cpu"+name, milliseconds(after.CPU-before.CPU)/o.period.Seconds(), "mCPU")
	return nil
}
