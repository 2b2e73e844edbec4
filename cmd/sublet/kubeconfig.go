package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"sublet.dev/api/v1alpha1"
	"sublet.dev/tenant-apiserver/pki"
)

const (
	// issueTime bounds how long a credential is waited for: a tenant that is being
	// created has no keys at first.
	issueTime = 30 * time.Second
	// maxTTL is the longest lifetime that any plan can allow.
	maxTTL = 10 * 365 * 24 * time.Hour
	// adminUser and adminGroup are the tenant's administrator inside the tenant:
	// the group is bound to cluster-admin by upstream's bootstrap policy.
	adminUser  = "admin"
	adminGroup = "system:masters"
)

// credentialFlags say whom a kubeconfig is for.
type credentialFlags struct {
	user   string
	groups []string
	ttl    time.Duration // 0: as the tenant's plan says
}

// addTTL adds the flag of a credential's lifetime.
func (f *credentialFlags) addTTL(cmd *cobra.Command) {
	cmd.Flags().DurationVar(&f.ttl, "ttl", 0, "how long it is valid (default: as the tenant's plan says, usually 24h)")
}

// check refuses what no credential can have.
func (f *credentialFlags) check(cmd *cobra.Command) error {
	if cmd.Flags().Changed("ttl") && (f.ttl < time.Second || f.ttl > maxTTL) {
		return usageErrorf("--ttl %s is not possible: it must be at least 1s and at most %s", f.ttl, maxTTL)
	}
	if f.user == "" {
		return usageErrorf("--user must not be empty")
	}
	return nil
}

func newKubeconfig(a *app) *cobra.Command {
	var f credentialFlags
	cmd := &cobra.Command{
		Use:   "kubeconfig NAME",
		Short: "Write a kubeconfig for a tenant to standard output; list and revoke them",
		Long: `Write a kubeconfig for a tenant to standard output, by default its administrator's.

It holds a new client certificate of that tenant's own authority and is worth something
at that tenant's API only, wherever the front door's port can be reached. Its key is made
here and kept nowhere else. The host keeps a record of it, by which it can be revoked.

A user other than the administrator may do what the roles inside the tenant say.`,
		Example: `  sublet kubeconfig acme --ttl 8h > acme.kubeconfig
  sublet kubeconfig acme --user jane --group developers > jane.kubeconfig
  sublet kubeconfig list acme
  sublet kubeconfig revoke acme acme-x7k2p`,
		Args: oneName, ValidArgsFunction: a.completeName,
	}
	cmd.Flags().StringVar(&f.user, "user", adminUser, "the user's name inside the tenant")
	cmd.Flags().StringArrayVar(&f.groups, "group", nil, "a group inside the tenant, may be repeated (default: "+adminGroup+" for the user "+adminUser+", none for others)")
	f.addTTL(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := f.check(cmd); err != nil {
			return err
		}
		if f.user == adminUser && !cmd.Flags().Changed("group") {
			f.groups = []string{adminGroup}
		}
		data, err := a.kubeconfig(cmd.Context(), args[0], f)
		if err != nil {
			return err
		}
		_, err = a.out.Write(data)
		return err
	}
	cmd.AddCommand(newCredentialList(a), newRevoke(a), newRotateCA(a))
	return cmd
}

// warnUnready says why a tenant's API may not answer.
func (a *app) warnUnready(vc *v1alpha1.VirtualCluster) {
	if vc.Status.Phase == v1alpha1.PhaseReady || vc.Status.Phase == v1alpha1.PhaseAsleep {
		return
	}
	why := ""
	if c := meta.FindStatusCondition(vc.Status.Conditions, v1alpha1.ConditionReady); c != nil && c.Message != "" {
		why = ": " + printable(c.Message)
	}
	fmt.Fprintf(a.err, "Warning: tenant %s is %s%s\n", vc.Name, phase(vc), why)
}

// kubeconfig makes a credential and writes the kubeconfig with it.
func (a *app) kubeconfig(ctx context.Context, name string, f credentialFlags) ([]byte, error) {
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
	request, key, err := pki.NewRequest()
	if err != nil {
		return nil, err
	}
	c := &v1alpha1.Credential{
		ObjectMeta: metav1.ObjectMeta{GenerateName: name + "-"},
		Spec:       v1alpha1.CredentialSpec{Tenant: name, User: f.user, Groups: f.groups, Request: request},
	}
	if c.Spec.Groups == nil {
		c.Spec.Groups = []string{}
	}
	if f.ttl > 0 {
		c.Spec.Lifetime = &metav1.Duration{Duration: f.ttl}
	}
	if err := issue(ctx, api, c); err != nil {
		return nil, err
	}
	if vc, err = getTenant(ctx, api, name); err != nil { // it may be ready by now
		return nil, err
	}
	a.warnUnready(vc)
	return pki.KubeconfigOptions{
		Server: vc.Status.Endpoint, TLSServerName: vc.Status.ServerName, User: f.user, ContextName: name,
	}.Write(c.Status.Authorities, c.Status.Certificate, key)
}

// issue makes the credential and waits until it is signed. One that is not leaves
// nothing.
func issue(ctx context.Context, api client.Client, c *v1alpha1.Credential) error {
	name := c.Spec.Tenant
	if err := api.Create(ctx, c); err != nil {
		return fmt.Errorf("make a credential of tenant %q: %w", name, explain(err))
	}
	err := poll(ctx, issueTime, func(ctx context.Context) (bool, error) {
		if err := api.Get(ctx, client.ObjectKeyFromObject(c), c); err != nil {
			return false, fmt.Errorf("read credential %s: %w", c.Name, explain(err))
		}
		is := meta.FindStatusCondition(c.Status.Conditions, v1alpha1.ConditionIssued)
		if is != nil && is.Status == metav1.ConditionFalse {
			return false, fmt.Errorf("the credential was %s", is.Message)
		}
		return is != nil, nil
	})
	if err == nil {
		return nil
	}
	if errors.Is(err, context.DeadlineExceeded) {
		err = &exitError{exitTimeout, fmt.Errorf("tenant %q has no keys yet, or nobody signs with them: `sublet describe %s` tells more", name, name)}
	}
	clean, cancel := context.WithTimeout(context.WithoutCancel(ctx), waitPoll*20)
	defer cancel()
	if deleteErr := client.IgnoreNotFound(api.Delete(clean, c)); deleteErr != nil {
		err = errors.Join(err, fmt.Errorf("remove the record of it: %w", deleteErr))
	}
	return err
}
