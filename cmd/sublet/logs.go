package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"

	"github.com/spf13/cobra"

	"sublet.dev/isolation/tenant"
	"sublet.dev/tenant-apiserver/cell"
	"sublet.dev/tenant-apiserver/server"
)

// followPause is how often a log that is followed is looked at.
const followPause = 250 * time.Millisecond

func newLogs(a *app) *cobra.Command {
	var audit, follow bool
	cmd := &cobra.Command{
		Use: "logs NAME --audit", Short: "Show the audit log of a tenant's API",
		Long: `Show the audit log of a tenant's API: who asked for what, when, and what the answer was.
Each line is an event (audit.k8s.io/v1) as JSON. The tenant's plan says what is recorded.

The log is read from the data directory, so this works on the machine of the server.`,
		Example: "  sublet logs acme --audit\n  sublet logs acme --audit --follow | jq -r '[.user.username, .verb, .requestURI] | @tsv'",
		Args:    oneName, ValidArgsFunction: a.completeName,
	}
	cmd.Flags().BoolVar(&audit, "audit", false, "the audit log (there is no other yet; sublet's own logs are in the data directory)")
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "go on with what is recorded from now on")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if !audit {
			return usageErrorf("say which log: sublet logs %s --audit", args[0])
		}
		return a.auditLog(cmd.Context(), args[0], follow)
	}
	return cmd
}

// auditLog copies the tenant's audit log to standard output, the oldest first.
func (a *app) auditLog(ctx context.Context, name string, follow bool) error {
	api, err := a.host()
	if err != nil {
		return err
	}
	vc, err := getTenant(ctx, api, name)
	if err != nil {
		return err
	}
	path := cell.AuditLog(a.dir.tenant(tenant.ID(vc.UID)))
	some := false
	for n := server.AuditFiles; n > 0; n-- {
		copied, err := copyIfThere(a.out, server.AuditPath(path, n))
		if err != nil {
			return err
		}
		some = some || copied
	}
	if follow {
		return tailFile(ctx, a.out, path)
	}
	copied, err := copyIfThere(a.out, path)
	if err == nil && !copied && !some {
		fmt.Fprintf(a.err, "Nothing is recorded of tenant %s: its plan %s says what is (`sublet plan show %s`).\n", name, vc.Spec.Plan, vc.Spec.Plan)
	}
	return err
}

// copyIfThere copies a file; there is false when it does not exist.
func copyIfThere(w io.Writer, path string) (there bool, err error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("read the log: %w", err)
	}
	defer f.Close()
	if _, err := io.Copy(w, f); err != nil {
		return true, fmt.Errorf("read the log: %w", err)
	}
	return true, nil
}

// tailFile copies a file and what is appended to it until ctx ends. When another
// has taken its place, it goes on with that one, after the end of the first.
func tailFile(ctx context.Context, w io.Writer, path string) error {
	tick := time.NewTicker(followPause)
	defer tick.Stop()
	for {
		f, err := os.Open(path)
		if err == nil {
			err = errors.Join(followFile(ctx, w, f, tick.C), f.Close())
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("read the log: %w", err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// followFile copies an open file until another has its name, or ctx ends.
func followFile(ctx context.Context, w io.Writer, f *os.File, tick <-chan time.Time) error {
	for {
		replaced, err := isReplaced(f) // before the copy: what was written till then is read
		if err != nil {
			return err
		}
		if _, err := io.Copy(w, f); err != nil {
			return err
		}
		if replaced {
			return nil
		}
		select {
		case <-tick:
		case <-ctx.Done():
			return nil
		}
	}
}

// isReplaced says whether the file's name is another's by now, or nobody's.
func isReplaced(f *os.File) (bool, error) {
	own, err := f.Stat()
	if err != nil {
		return false, err
	}
	now, err := os.Stat(f.Name())
	if errors.Is(err, fs.ErrNotExist) {
		return true, nil
	}
	return err == nil && !os.SameFile(own, now), err
}
