package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"sublet.dev/tenant-apiserver/cell"
	"sublet.dev/tenant-apiserver/server"
)

type rotateKeyFlags struct {
	wait, status bool
	timeout      time.Duration
}

// newRotateKey is `sublet store rotate-key`.
func newRotateKey(a *app) *cobra.Command {
	var f rotateKeyFlags
	cmd := &cobra.Command{
		Use:   "rotate-key NAME",
		Short: "Encrypt a tenant's store with a new key",
		Long: `Make a new key for a tenant's store, or with the name "host" for the host's own, and
rewrite everything in it under that key, while the tenant goes on.

The command returns when all objects are rewritten. The old key is dropped when nothing
that can still be read is under it: when the history of that time has been compacted,
five to ten minutes later. --wait waits for that, too. A rotation that is interrupted is
finished at the next start. Backups from before it need the keys' file of their time.`,
		Example: "  sublet store rotate-key acme\n  sublet store rotate-key host --wait\n  sublet store rotate-key acme --status",
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 && args[0] == hostName {
				return nil
			}
			return oneName(cmd, args)
		},
		ValidArgsFunction: a.completeName,
	}
	cmd.Flags().BoolVar(&f.wait, "wait", false, "wait until the old key is dropped")
	cmd.Flags().BoolVar(&f.status, "status", false, "only say which keys there are, and how far a rotation is")
	cmd.Flags().DurationVar(&f.timeout, "timeout", 20*time.Minute, "how long to wait")
	cmd.MarkFlagsMutuallyExclusive("wait", "status")
	cmd.RunE = func(cmd *cobra.Command, args []string) error { return a.rotateKey(cmd.Context(), args[0], f) }
	return cmd
}

func (a *app) rotateKey(ctx context.Context, name string, f rotateKeyFlags) error {
	if err := checkTimeout(f.timeout); err != nil {
		return err
	}
	keeper, id, err := a.keyKeeper(ctx, name)
	if err != nil {
		return err
	}
	defer keeper.Close()
	if f.status {
		s, err := keeper.KeyStatus(ctx, id)
		if err != nil {
			return fmt.Errorf("read the keys of %q: %w", name, err)
		}
		return a.printKeys(name, s)
	}
	if _, err := keeper.RotateKey(ctx, id); err != nil {
		return fmt.Errorf("rotate the key of %q: %w", name, err)
	}
	s, err := a.waitRotated(ctx, name, f, func(ctx context.Context) (cell.KeyStatus, error) { return keeper.KeyStatus(ctx, id) })
	if err != nil {
		return err
	}
	return a.printKeys(name, s)
}

// waitRotated waits until the objects are rewritten, or the old key is dropped.
func (a *app) waitRotated(ctx context.Context, name string, f rotateKeyFlags, look func(context.Context) (cell.KeyStatus, error)) (cell.KeyStatus, error) {
	p := newProgress(a.err)
	defer p.done()
	var last cell.KeyStatus
	err := poll(ctx, f.timeout, func(ctx context.Context) (bool, error) {
		s, err := look(ctx)
		if err != nil {
			return false, fmt.Errorf("read how far the rotation is: %w; it goes on when the tenant does", err)
		}
		last = s
		if s.Error != "" {
			p.say(fmt.Sprintf("%s: %s (is tried again)", name, s.Error))
		} else if s.Step != "" {
			p.say(name + ": " + s.Step)
		}
		return s.Step == "" || s.Step == server.StepHistory && !f.wait, nil
	})
	if errors.Is(err, context.DeadlineExceeded) {
		return last, &exitError{exitTimeout, fmt.Errorf("the rotation of %q is not done after %s (%s%s): it goes on; `sublet store rotate-key %s --status` tells how far it is", name, f.timeout, last.Step, last.Error, name)}
	}
	return last, err
}

func (a *app) printKeys(name string, s cell.KeyStatus) error {
	rows := [][]string{{"Store:", name}}
	if s.InUse == "" {
		rows = append(rows, []string{"Encrypted:", "no"})
		return table(a.out, rows)
	}
	rows = append(rows, []string{"Key in use:", s.InUse}, []string{"Keys:", strings.Join(s.Keys, ", ")})
	if s.Plaintext {
		rows = append(rows, []string{"Not encrypted yet:", "some values may be"})
	}
	if s.Step != "" {
		rows = append(rows, []string{"Rotation:", fmt.Sprintf("%s (%d rewritten)", s.Step, s.Rewritten)})
	}
	if s.Error != "" {
		rows = append(rows, []string{"Error:", s.Error})
	}
	return table(a.out, rows)
}
