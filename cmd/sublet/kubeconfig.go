package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/api/meta"

	"sublet.dev/api/v1alpha1"
	"sublet.dev/isolation/tenant"
	"sublet.dev/tenant-apiserver/pki"
)

const (
	// maxTTL bounds client certificates: they cannot be revoked.
	maxTTL = 365 * 24 * time.Hour
	// adminUser and adminGroup are the tenant's administrator inside the tenant:
	// the group is bound to cluster-admin by upstream's bootstrap policy.
	adminUser  = "admin"
	adminGroup = "system:masters"
)

func newKubeconfig(a *app) *cobra.Command {
	ttl := pki.DefaultClientTTL
	cmd := &cobra.Command{
		Use:   "kubeconfig NAME",
		Short: "Write a kubeconfig for a tenant to standard output",
		Long: `Write a kubeconfig for a tenant's administrator to standard output.

It holds a new client certificate of that tenant's own authority and is worth something
at that tenant's API only, wherever the front door's port can be reached. It cannot be
revoked: give it a short --ttl. The tenant's keys are read from the data directory, so
this works on the machine of the server.`,
		Example: "  sublet kubeconfig acme --ttl 8h > acme.kubeconfig",
		Args:    oneName, ValidArgsFunction: a.completeName,
	}
	cmd.Flags().DurationVar(&ttl, "ttl", ttl, "how long it is valid, at most "+maxTTL.String())
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		data, err := a.kubeconfig(cmd.Context(), args[0], ttl)
		if err != nil {
			return err
		}
		_, err = a.out.Write(data)
		return err
	}
	return cmd
}

// warnUnready says why a tenant's API may not answer.
func (a *app) warnUnready(vc *v1alpha1.VirtualCluster) {
	if vc.Status.Phase == v1alpha1.PhaseReady {
		return
	}
	why := ""
	if c := meta.FindStatusCondition(vc.Status.Conditions, v1alpha1.ConditionReady); c != nil && c.Message != "" {
		why = ": " + c.Message
	}
	fmt.Fprintf(a.err, "Warning: tenant %s is %s%s\n", vc.Name, phase(vc), why)
}

// kubeconfig makes a kubeconfig of a tenant's administrator.
func (a *app) kubeconfig(ctx context.Context, name string, ttl time.Duration) ([]byte, error) {
	if ttl <= 0 || ttl > maxTTL {
		return nil, usageErrorf("--ttl %s is not possible: it must be above 0 and at most %s", ttl, maxTTL)
	}
	api, err := a.host()
	if err != nil {
		return nil, err
	}
	vc, err := getTenant(ctx, api, name)
	if err != nil {
		return nil, err
	}
	if vc.DeletionTimestamp != nil {
		return nil, &exitError{exitConflict, fmt.Errorf("tenant %q is being deleted", name)}
	}
	keys := a.dir.tenantKeys(tenant.ID(vc.UID))
	if _, err := os.Stat(keys); errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("tenant %q has no keys yet, it is %s: wait for it, `sublet describe %s` tells more", name, phase(vc), name)
	}
	authority, err := pki.LoadOrCreate(keys, "")
	if err != nil {
		return nil, err
	}
	a.warnUnready(vc)
	return authority.Kubeconfig(pki.KubeconfigOptions{
		Server: vc.Status.Endpoint, TLSServerName: vc.Status.ServerName,
		User: adminUser, Groups: []string{adminGroup}, TTL: ttl, ContextName: name,
	})
}
