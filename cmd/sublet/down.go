package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/moby/sys/mountinfo"
	"github.com/spf13/cobra"

	"sublet.dev/cmd/sublet/internal/supervise"
	"sublet.dev/host-agent/agent"
)

// upGrace is how long `sublet up` gets to stop its processes.
const upGrace = serverGrace + agentGrace + 10*time.Second

func newDown(a *app) *cobra.Command {
	var purge bool
	var logs logFlags
	cmd := &cobra.Command{
		Use:   "down",
		Short: "Stop everything on this machine, pods included",
		Long: `Stop everything that Sublet runs on this machine with this data directory: sublet up, its
processes (also when up was killed), containerd and all pods. With --purge, remove every
trace as well: tenants and their data, images, mounts, cgroups, network namespaces, nft
tables and files.`,
		Args: noArgs, ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := needRoot(cmd); err != nil {
				return err
			}
			log, err := logs.logger(a.err)
			if err != nil {
				return err
			}
			a.log = log.With("process", "down")
			defer survivePipes()()
			return a.down(cmd.Context(), purge)
		},
	}
	cmd.Flags().BoolVar(&purge, "purge", false, "remove every trace, tenants' data included")
	logs.add(cmd)
	return cmd
}

func (a *app) down(ctx context.Context, purge bool) error {
	err := a.dir.check()
	if errors.Is(err, errNoDataDir) {
		_, err = fmt.Fprintf(a.out, "There is no Sublet in %s: nothing to stop.\n", a.dir)
		return err
	}
	if err != nil {
		return err
	}
	if err := os.MkdirAll(a.dir.path("run"), 0o700); err != nil {
		return fmt.Errorf("make the run directory: %w", err)
	}
	if err := stopHolder(a.dir.upSlot(), upGrace, a.log); err != nil {
		return err
	}
	build, err := supervise.Build()
	if err != nil {
		return err
	}
	claim, err := supervise.Take(a.dir.upSlot(), build) // so that no up starts meanwhile
	if err != nil {
		return &exitError{exitConflict, err}
	}
	if purge {
		err = a.purge(ctx)
	} else {
		err = a.stopAll(ctx, false)
	}
	if err = errors.Join(err, claim.Release()); err != nil {
		return err
	}
	done := "Everything is stopped. `sublet up` starts it again.\n"
	if purge {
		err, done = a.removeDir(), "Everything is stopped and removed.\n"
	}
	if err != nil {
		return err
	}
	_, err = fmt.Fprint(a.out, done)
	return err
}

// stopHolder stops the process that holds a slot, if there is one.
func stopHolder(s supervise.Slot, grace time.Duration, log *slog.Logger) error {
	p, _, err := s.Find()
	if err != nil || p == nil {
		return err
	}
	log.Info("stopping a process", "process", s.Name, "pid", p.PID)
	return errors.Join(p.Stop(grace), p.Close())
}

// stopAll stops the agent, the server and the cells, in this order and whoever
// started them, and then everything that the agent leaves running.
func (a *app) stopAll(ctx context.Context, purge bool) error {
	if err := stopHolder(a.dir.slot("agent"), agentGrace, a.log); err != nil {
		return err
	}
	if err := stopHolder(a.dir.slot("server"), serverGrace, a.log); err != nil {
		return err
	}
	cells, err := a.dir.cellNames()
	if err != nil {
		return err
	}
	for _, name := range cells {
		if err := stopHolder(a.dir.slot(name), cellGrace, a.log); err != nil {
			return err
		}
	}
	return agent.Down(ctx, agent.DownOptions{DataDir: string(a.dir), Purge: purge, Logger: a.log})
}

// purge stops everything and removes what is in the data directory, but for what
// says that it is one (see removeDir) and what is to be kept.
func (a *app) purge(ctx context.Context, keep ...string) error {
	if err := a.stopAll(ctx, true); err != nil {
		return err
	}
	if err := noMounts(string(a.dir)); err != nil {
		return err
	}
	keep = append(keep, "lock", "version", "run") // held until the end
	for _, name := range ours {
		if slices.Contains(keep, name) {
			continue
		}
		if err := os.RemoveAll(a.dir.path(name)); err != nil {
			return fmt.Errorf("remove the data directory: %w", err)
		}
	}
	return nil
}

// removeDir removes what purge left of the data directory, once it is not locked
// any more. Files that are not ours stay, and are named.
func (a *app) removeDir() error {
	for _, name := range ours {
		if err := os.RemoveAll(a.dir.path(name)); err != nil {
			return fmt.Errorf("remove the data directory: %w", err)
		}
	}
	err := os.Remove(string(a.dir))
	if errors.Is(err, syscall.ENOTEMPTY) {
		left, _ := filepath.Glob(a.dir.path("*")) // only for the message
		return fmt.Errorf("%s has files that are not Sublet's: %s", a.dir, strings.Join(left, ", "))
	}
	if err != nil {
		return fmt.Errorf("remove the data directory: %w", err)
	}
	return nil
}

// noMounts refuses to remove files while something is mounted below dir: they
// would be somebody's volumes.
func noMounts(dir string) error {
	real, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return fmt.Errorf("find the data directory: %w", err)
	}
	mounts, err := mountinfo.GetMounts(func(m *mountinfo.Info) (skip, stop bool) {
		below := strings.HasPrefix(m.Mountpoint, real+"/") // dir itself may be a disk
		return !below, below
	})
	if err != nil {
		return fmt.Errorf("read the mounts: %w", err)
	}
	if len(mounts) > 0 {
		return fmt.Errorf("%s is still mounted: unmount it, then repeat the command", mounts[0].Mountpoint)
	}
	return nil
}
