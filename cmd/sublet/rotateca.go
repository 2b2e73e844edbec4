package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"sublet.dev/api/v1alpha1"
)

type rotateFlags struct {
	finish, force bool
	timeout       time.Duration
}

func newRotateCA(a *app) *cobra.Command {
	var f rotateFlags
	cmd := &cobra.Command{
		Use: "rotate-ca NAME", Short: "Give a tenant a new CA; with --finish, give up the old one",
		Long: `Give a tenant a new CA. From then on it signs, and both are trusted: kubeconfigs that
were given before go on working, and new ones trust both. Give everybody a new one, then
give up the old CA with --finish: whatever it signed ends with it. Until then this says
how many kubeconfigs of the old CA are still good: those that were given, used or not.
Certificates that the tenant has had signed itself (CSRs), a year at most, are not counted.

Nothing is restarted: what is open goes on, and pods learn of the CAs by themselves.
--finish cuts what is open with certificates of the old CA.`,
		Example: "  sublet kubeconfig rotate-ca acme\n  sublet kubeconfig rotate-ca acme --finish",
		Args:    oneName, ValidArgsFunction: a.completeName,
	}
	cmd.Flags().BoolVar(&f.finish, "finish", false, "give up the old CA")
	cmd.Flags().BoolVar(&f.force, "force", false, "with --finish: also when kubeconfigs of the old CA are still good")
	cmd.Flags().DurationVar(&f.timeout, "timeout", time.Minute, "how long to wait until it is done")
	cmd.RunE = func(cmd *cobra.Command, args []string) error { return a.rotateCA(cmd.Context(), args[0], f) }
	return cmd
}

func (a *app) rotateCA(ctx context.Context, name string, f rotateFlags) error {
	if err := checkTimeout(f.timeout); err != nil {
		return err
	}
	if f.force && !f.finish {
		return usageErrorf("--force goes with --finish")
	}
	api, err := a.host()
	if err != nil {
		return err
	}
	vc, err := getTenant(ctx, api, name)
	if err != nil {
		return err
	}
	old, err := oldCredentials(ctx, api, vc)
	if err != nil {
		return err
	}
	before := vc.DeepCopy()
	want := &vc.Spec.Authority
	// The manager is ahead when a CA was about to end.
	want.Generation = max(want.Generation, vc.Status.Authority.Generation)
	want.Oldest = max(want.Oldest, vc.Status.Authority.Oldest)
	rotating := want.Oldest < want.Generation
	switch {
	case !f.finish && rotating:
		_, err := fmt.Fprintf(a.out, "tenant %s has CA %d, and CA %d is still trusted: %d kubeconfigs of it are good\n", name, want.Generation, want.Oldest, old)
		return err
	case !f.finish:
		want.Generation++
	case !rotating:
		return &exitError{exitConflict, fmt.Errorf("tenant %q has one CA: rotate it first with `sublet kubeconfig rotate-ca %s`", name, name)}
	case old > 0 && !f.force:
		return &exitError{exitConflict, fmt.Errorf("%d kubeconfigs of the old CA of tenant %q are still good: `sublet kubeconfig list %s` shows whose; replace or revoke them, or end them with --force", old, name, name)}
	default:
		want.Oldest = want.Generation
	}
	if err := api.Patch(ctx, vc, client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{})); err != nil {
		return fmt.Errorf("rotate the CA of tenant %q: %w", name, explain(err))
	}
	if err := a.awaitCAs(ctx, api, vc, f.timeout); err != nil {
		return err
	}
	if f.finish {
		_, err = fmt.Fprintf(a.out, "tenant %s trusts CA %d alone\n", name, vc.Spec.Authority.Generation)
		return err
	}
	_, err = fmt.Fprintf(a.out, "tenant %s has CA %d; what CA %d signed is good until `sublet kubeconfig rotate-ca %s --finish`\n", name, vc.Spec.Authority.Generation, vc.Spec.Authority.Oldest, name)
	return err
}

// awaitCAs waits until the tenant's API uses the CAs of its spec.
func (a *app) awaitCAs(ctx context.Context, api client.Client, vc *v1alpha1.VirtualCluster, timeout time.Duration) error {
	err := poll(ctx, timeout, func(ctx context.Context) (bool, error) {
		now, err := getTenant(ctx, api, vc.Name)
		if err != nil {
			return false, err
		}
		s, want := now.Status, vc.Spec.Authority
		answers := s.Phase == v1alpha1.PhaseReady || s.Phase == v1alpha1.PhaseAsleep
		return s.Authority.Generation == want.Generation && s.Authority.Oldest == want.Oldest && answers, nil
	})
	if errors.Is(err, context.DeadlineExceeded) {
		return &exitError{exitTimeout, fmt.Errorf("the CAs of tenant %q are not in use after %s: it goes on; `sublet describe %s` tells more", vc.Name, timeout, vc.Name)}
	}
	return err
}

// oldCredentials counts the credentials of CAs before the present one that are
// still good.
func oldCredentials(ctx context.Context, api client.Client, vc *v1alpha1.VirtualCluster) (int, error) {
	list, err := credentialsOf(ctx, api, vc.Name)
	if err != nil {
		return 0, err
	}
	n := 0
	for i := range list {
		c := &list[i]
		if g := c.Status.Generation; stateOf(c) == stateValid && g < vc.Spec.Authority.Generation && g >= vc.Spec.Authority.Oldest {
			n++
		}
	}
	return n, nil
}
