package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"sublet.dev/api/v1alpha1"
)

type deleteFlags struct {
	wait, ignoreNotFound bool
	timeout              time.Duration
}

func newDelete(a *app) *cobra.Command {
	var f deleteFlags
	cmd := &cobra.Command{
		Use:   "delete NAME",
		Short: "Delete a tenant and everything it has",
		Long: `Delete a tenant: its API, its pods, its data, and all that stands for it on the host.
There is no way back.`,
		Args: oneName, ValidArgsFunction: a.completeName,
	}
	cmd.Flags().BoolVar(&f.wait, "wait", false, "wait until nothing is left of it")
	cmd.Flags().DurationVar(&f.timeout, "timeout", 5*time.Minute, "how long to wait")
	cmd.Flags().BoolVar(&f.ignoreNotFound, "ignore-not-found", false, "succeed when there is no such tenant")
	cmd.RunE = func(cmd *cobra.Command, args []string) error { return a.delete(cmd.Context(), args[0], f) }
	return cmd
}

func (a *app) delete(ctx context.Context, name string, f deleteFlags) error {
	if err := checkTimeout(f.timeout); err != nil {
		return err
	}
	api, err := a.host()
	if err != nil {
		return err
	}
	vc, err := getTenant(ctx, api, name)
	if code := codeOf(ctx, err); code == exitNotFound && f.ignoreNotFound {
		_, err = fmt.Fprintf(a.out, "tenant %s does not exist\n", name)
		return err
	}
	if err != nil {
		return err
	}
	err = api.Delete(ctx, vc, client.Preconditions{UID: &vc.UID})
	if client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("delete tenant %q: %w", name, explain(err))
	}
	if !f.wait {
		_, err = fmt.Fprintf(a.out, "tenant %s is being deleted\n", name)
		return err
	}
	if err := a.waitGone(ctx, api, name, vc.UID, f.timeout); err != nil {
		return err
	}
	_, err = fmt.Fprintf(a.out, "tenant %s deleted\n", name)
	return err
}

// waitGone waits until the VirtualCluster is gone, which it is last of all.
func (a *app) waitGone(ctx context.Context, api client.Client, name string, uid types.UID, timeout time.Duration) error {
	p := newProgress(a.err)
	defer p.done()
	state := ""
	err := poll(ctx, timeout, func(ctx context.Context) (bool, error) {
		vc := &v1alpha1.VirtualCluster{}
		err := api.Get(ctx, client.ObjectKey{Name: name}, vc)
		if apierrors.IsNotFound(err) || err == nil && vc.UID != uid {
			return true, nil
		}
		if err != nil {
			return false, explain(err)
		}
		state = "deleting tenant " + name
		ready := meta.FindStatusCondition(vc.Status.Conditions, v1alpha1.ConditionReady)
		if ready != nil && vc.Status.Phase == v1alpha1.PhaseDeleting && ready.Message != "" {
			state += ": " + ready.Message
		}
		p.say(state)
		return false, nil
	})
	if errors.Is(err, context.DeadlineExceeded) {
		return &exitError{exitTimeout, fmt.Errorf("tenant %q is not gone after %s (%s): its deletion goes on; `sublet describe %s` tells more", name, timeout, state, name)}
	}
	return err
}
