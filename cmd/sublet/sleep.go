package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"sublet.dev/isolation/tenant"
	"sublet.dev/tenant-apiserver/cell"
)

func newSleep(a *app) *cobra.Command {
	var patience time.Duration
	cmd := &cobra.Command{
		Use: "sleep NAME", Short: "Put a tenant's control plane to sleep now",
		Long: `Put a tenant's control plane to sleep now, instead of after the time in its plan.

Its pods, services and DNS go on; its memory is given back. It wakes when somebody
connects to its API, when one of its pods changes, and in time for its CronJobs. The
command waits while something is going on, and says what, when that does not end.`,
		Args: oneName, ValidArgsFunction: a.completeName,
	}
	cmd.Flags().DurationVar(&patience, "timeout", 30*time.Second, "how long to wait for what is going on")
	cmd.RunE = func(cmd *cobra.Command, args []string) error { return a.sleep(cmd.Context(), args[0], patience) }
	return cmd
}

func (a *app) sleep(ctx context.Context, name string, patience time.Duration) error {
	if err := checkTimeout(patience); err != nil {
		return err
	}
	client, id, err := a.cellOf(ctx, name)
	if err != nil {
		return err
	}
	defer client.Close()
	err = client.Sleep(ctx, id, patience)
	var refusal cell.Refusal
	if errors.As(err, &refusal) {
		return &exitError{exitConflict, fmt.Errorf("tenant %q cannot sleep now: %w", name, refusal)}
	}
	if err != nil {
		return fmt.Errorf("put tenant %q to sleep: %w", name, err)
	}
	_, err = fmt.Fprintf(a.out, "Tenant %q sleeps.\n", name)
	return err
}

func newWake(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "wake NAME", Short: "Wake a tenant's control plane now",
		Long: `Wake a tenant's control plane now. Nobody has to: whoever connects to it wakes it.`,
		Args: oneName, ValidArgsFunction: a.completeName,
		RunE: func(cmd *cobra.Command, args []string) error { return a.wake(cmd.Context(), args[0]) },
	}
}

func (a *app) wake(ctx context.Context, name string) error {
	client, id, err := a.cellOf(ctx, name)
	if err != nil {
		return err
	}
	defer client.Close()
	s, err := client.Wake(ctx, id, "sublet wake")
	if err != nil {
		return fmt.Errorf("wake tenant %q: %w", name, err)
	}
	if s.Phase == cell.Failed {
		return fmt.Errorf("tenant %q failed (%s): %s", name, s.Reason, s.Message)
	}
	_, err = fmt.Fprintf(a.out, "Tenant %q is awake.\n", name)
	return err
}

// cellOf returns a client of the cell that hosts a tenant; the caller closes it.
func (a *app) cellOf(ctx context.Context, name string) (*cell.Client, tenant.ID, error) {
	api, err := a.host()
	if err != nil {
		return nil, "", err
	}
	vc, err := getTenant(ctx, api, name)
	if err != nil {
		return nil, "", err
	}
	if vc.Status.Cell == "" {
		return nil, "", &exitError{exitConflict, fmt.Errorf("tenant %q has not been started yet: `sublet describe %s` tells more", name, name)}
	}
	return cell.NewPatientClient(a.dir.cellSocket(vc.Status.Cell)), tenant.ID(vc.UID), nil
}
