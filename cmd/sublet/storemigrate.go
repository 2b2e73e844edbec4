package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/client-go/util/retry"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"sublet.dev/api/v1alpha1"
	"sublet.dev/isolation/tenant"
	"sublet.dev/tenant-apiserver/cell"
	"sublet.dev/tenant-apiserver/manager"
)

type migrateFlags struct {
	store   storeFlags
	toFile  bool
	timeout time.Duration
}

func newStoreMigrate(a *app) *cobra.Command {
	var f migrateFlags
	cmd := &cobra.Command{
		Use: "migrate NAME {--store-etcd URLS | --to-file}", Short: "Move a tenant between a file on the host and an etcd",
		Long: `Move a tenant's cluster between a file on the host and an etcd, or from one etcd to another.

The tenant is stopped while everything is copied and read back; its pods go on. Then its
VirtualCluster is changed, and it starts where it is now. What it was before is kept: the
file as store.db.migrated-TIME, or the keys in the etcd, which nobody starts from any more.
A command that was interrupted is given again.

Values stay encrypted with the same keys. Revisions go on above the old ones, so an etcd
that is far behind the tenant is refused.`,
		Example: "  sublet store migrate acme --store-etcd https://10.0.0.5:2379 --store-etcd-tls etcd-acme\n  sublet store migrate acme --to-file",
		Args:    oneName, ValidArgsFunction: a.completeName,
	}
	f.store.add(cmd)
	cmd.Flags().BoolVar(&f.toFile, "to-file", false, "move the tenant's cluster to a file on the host")
	cmd.Flags().DurationVar(&f.timeout, "timeout", 5*time.Minute, "how long to wait for the tenant to start where it is then")
	output := addOutput(cmd, "text", "json", "yaml")
	cmd.RunE = func(cmd *cobra.Command, args []string) error { return a.migrate(cmd.Context(), args[0], f, output) }
	return cmd
}

func (a *app) migrate(ctx context.Context, name string, f migrateFlags, output *outputFlag) error {
	spec, err := f.store.spec()
	if err != nil {
		return err
	}
	if f.toFile == (spec != nil) {
		return usageErrorf("say where to: either --store-etcd or --to-file")
	}
	if err := checkTimeout(f.timeout); err != nil {
		return err
	}
	api, err := a.host()
	if err != nil {
		return err
	}
	vc, err := getTenant(ctx, api, name)
	if err != nil {
		return err
	}
	p := newProgress(a.err)
	defer p.done()
	p.say("moving tenant " + name)
	moved, err := a.moveStore(ctx, api, vc, spec)
	if err != nil {
		return explainStore(err)
	}
	if err := a.switchStore(ctx, api, vc, spec, f.timeout, p); err != nil {
		return err
	}
	p.done()
	if ok, err := output.print(a.out, moved); ok {
		return err
	}
	if moved.Already {
		_, err = fmt.Fprintf(a.out, "tenant %s is kept in %s already\n", name, describeStore(vc))
		return err
	}
	fmt.Fprintf(a.out, "tenant %s is kept in %s now: %d keys\n", name, describeStore(vc), moved.Keys)
	if moved.Kept != "" {
		fmt.Fprintf(a.out, "what it was before is in %s\n", moved.Kept)
	}
	return nil
}

// moveStore has the tenant's cell copy the cluster.
func (a *app) moveStore(ctx context.Context, api client.Client, vc *v1alpha1.VirtualCluster, spec *v1alpha1.StoreSpec) (cell.Moved, error) {
	want := vc.DeepCopy()
	want.Spec.Store = spec
	to, err := manager.EtcdOf(ctx, api, want)
	if err != nil {
		return cell.Moved{}, explain(err)
	}
	c, err := a.dir.hostOf(ctx, tenant.ID(vc.UID))
	if err != nil {
		return cell.Moved{}, err
	}
	if c == nil {
		return cell.Moved{}, fmt.Errorf("tenant %q does not run: `sublet describe %s` says why", vc.Name, vc.Name)
	}
	defer c.Close()
	return c.MigrateStore(ctx, tenant.ID(vc.UID), to)
}

// switchStore says in the VirtualCluster where the cluster is now, and waits until
// the tenant runs there. vc is then as the host API has it.
func (a *app) switchStore(ctx context.Context, api client.Client, vc *v1alpha1.VirtualCluster, spec *v1alpha1.StoreSpec, timeout time.Duration, p *progress) error {
	name := vc.Name
	err := retry.RetryOnConflict(retry.DefaultRetry, func() error {
		if err := api.Get(ctx, client.ObjectKeyFromObject(vc), vc); err != nil {
			return err
		}
		vc.Spec.Store = spec
		return api.Update(ctx, vc)
	})
	if err != nil {
		return fmt.Errorf("the cluster of tenant %q was moved, but its VirtualCluster does not say so yet: give the command again (%w)", name, explain(err))
	}
	err = poll(ctx, timeout, func(ctx context.Context) (bool, error) {
		now, err := getTenant(ctx, api, name)
		if err != nil {
			return false, err
		}
		ready := meta.FindStatusCondition(now.Status.Conditions, v1alpha1.ConditionReady)
		if ready == nil || ready.ObservedGeneration < vc.Generation {
			return false, nil
		}
		p.say("starting tenant " + name + ": " + ready.Message)
		return now.Status.Phase == v1alpha1.PhaseReady, nil
	})
	if errors.Is(err, context.DeadlineExceeded) {
		return &exitError{exitTimeout, fmt.Errorf("tenant %q was moved and has not started after %s: `sublet describe %s` says why", name, timeout, name)}
	}
	return err
}
