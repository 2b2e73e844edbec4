package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"sublet.dev/api/v1alpha1"
)

func newCredentialList(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use: "list NAME", Aliases: []string{"ls"}, Short: "List the kubeconfigs that a tenant was given",
		Long: `List the kubeconfigs that a tenant was given: whom for, until when, and by which of the
tenant's CAs. Those that have ended are shown for a week.`,
		Args: oneName, ValidArgsFunction: a.completeName,
	}
	output := addOutput(cmd, "table", "json", "yaml", "name")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		api, err := a.host()
		if err != nil {
			return err
		}
		if _, err := getTenant(cmd.Context(), api, args[0]); err != nil {
			return err
		}
		list, err := credentialsOf(cmd.Context(), api, args[0])
		if err != nil {
			return err
		}
		all := v1alpha1.CredentialList{Items: list}
		all.SetGroupVersionKind(v1alpha1.GroupVersion.WithKind("CredentialList"))
		for i := range all.Items {
			all.Items[i].ManagedFields = nil
			all.Items[i].SetGroupVersionKind(v1alpha1.GroupVersion.WithKind("Credential"))
		}
		if ok, err := output.print(a.out, &all); ok {
			return err
		}
		return a.printCredentials(list, output.value == "name")
	}
	return cmd
}

// credentialsOf returns the records of a tenant's credentials, the oldest first.
func credentialsOf(ctx context.Context, api client.Client, tenant string) ([]v1alpha1.Credential, error) {
	var list v1alpha1.CredentialList
	if err := api.List(ctx, &list); err != nil {
		return nil, fmt.Errorf("list the credentials: %w", explain(err))
	}
	own := slices.DeleteFunc(list.Items, func(c v1alpha1.Credential) bool { return c.Spec.Tenant != tenant })
	slices.SortFunc(own, func(x, y v1alpha1.Credential) int {
		return cmp.Or(x.CreationTimestamp.Compare(y.CreationTimestamp.Time), strings.Compare(x.Name, y.Name))
	})
	return own, nil
}

func (a *app) printCredentials(list []v1alpha1.Credential, namesOnly bool) error {
	rows := [][]string{{"ID", "USER", "GROUPS", "STATE", "CA", "AGE", "EXPIRES IN"}}
	for i := range list {
		c := &list[i]
		if namesOnly {
			if _, err := fmt.Fprintln(a.out, "credential.sublet.dev/"+c.Name); err != nil {
				return err
			}
			continue
		}
		ends := "-"
		if c.Status.NotAfter != nil && time.Now().Before(c.Status.NotAfter.Time) {
			ends = human(time.Until(c.Status.NotAfter.Time))
		}
		rows = append(rows, []string{c.Name, c.Spec.User, strings.Join(c.Spec.Groups, ","), stateOf(c),
			strconv.FormatInt(c.Status.Generation, 10), age(c.CreationTimestamp.Time), ends})
	}
	if namesOnly {
		return nil
	}
	return table(a.out, rows)
}

// The states of a credential.
const (
	stateValid   = "valid"
	stateRevoked = "revoked"
	stateExpired = "expired"
	stateRefused = "refused"
	statePending = "pending"
)

func stateOf(c *v1alpha1.Credential) string {
	is := meta.FindStatusCondition(c.Status.Conditions, v1alpha1.ConditionIssued)
	switch {
	case is == nil:
		return statePending
	case c.Status.NotAfter == nil:
		return stateRefused
	case time.Now().After(c.Status.NotAfter.Time):
		return stateExpired
	case c.Spec.Revoked || c.DeletionTimestamp != nil:
		return stateRevoked
	}
	return stateValid
}

func newRevoke(a *app) *cobra.Command {
	var all bool
	var user string
	cmd := &cobra.Command{
		Use: "revoke NAME [ID...]", Short: "Revoke kubeconfigs of a tenant",
		Long: `Revoke kubeconfigs of a tenant: those with the IDs given, all of a user with --user, or
all of them with --all. When this returns, the tenant's API refuses them, and what was
open with them (watches, exec, port-forward) is closed. Tokens that their users made
inside the tenant are not touched.`,
		Example: "  sublet kubeconfig revoke acme acme-x7k2p\n  sublet kubeconfig revoke acme --user jane",
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usageErrorf("the tenant's name is missing: %s", cmd.UseLine())
			}
			chosen := 0
			for _, is := range []bool{len(args) > 1, all, user != ""} {
				if is {
					chosen++
				}
			}
			if chosen != 1 {
				return usageErrorf("say which: IDs (`sublet kubeconfig list %s` shows them), --user or --all", args[0])
			}
			return checkName(args[0])
		},
		ValidArgsFunction: a.completeCredential,
	}
	cmd.Flags().BoolVar(&all, "all", false, "revoke all kubeconfigs of the tenant")
	cmd.Flags().StringVar(&user, "user", "", "revoke all kubeconfigs of a user")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return a.revoke(cmd.Context(), args[0], func(c *v1alpha1.Credential) bool {
			return all || user != "" && c.Spec.User == user || slices.Contains(args[1:], c.Name)
		}, args[1:])
	}
	return cmd
}

// revoke revokes the credentials of a tenant that are chosen and good, and waits
// until that is enforced. Those named must exist.
func (a *app) revoke(ctx context.Context, name string, chosen func(*v1alpha1.Credential) bool, named []string) error {
	api, err := a.host()
	if err != nil {
		return err
	}
	if _, err := getTenant(ctx, api, name); err != nil {
		return err
	}
	list, err := credentialsOf(ctx, api, name)
	if err != nil {
		return err
	}
	for _, id := range named {
		if !slices.ContainsFunc(list, func(c v1alpha1.Credential) bool { return c.Name == id }) {
			return &exitError{exitNotFound, fmt.Errorf("tenant %q has no kubeconfig %q: `sublet kubeconfig list %s` shows those there are", name, id, name)}
		}
	}
	list = slices.DeleteFunc(list, func(c v1alpha1.Credential) bool {
		state := stateOf(&c)
		return !chosen(&c) || state == stateExpired || state == stateRefused
	})
	for i := range list {
		if err := markRevoked(ctx, api, &list[i]); err != nil {
			return err
		}
	}
	for i := range list {
		if err := awaitRevoked(ctx, api, &list[i]); err != nil {
			return err
		}
		if _, err := fmt.Fprintf(a.out, "kubeconfig %s of user %s revoked\n", list[i].Name, printable(list[i].Spec.User)); err != nil {
			return err
		}
	}
	if len(list) == 0 {
		fmt.Fprintln(a.err, "There is nothing to revoke.")
	}
	return nil
}

func markRevoked(ctx context.Context, api client.Client, c *v1alpha1.Credential) error {
	if c.Spec.Revoked {
		return nil
	}
	before := c.DeepCopy()
	c.Spec.Revoked = true
	if err := api.Patch(ctx, c, client.MergeFrom(before)); client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("revoke kubeconfig %s: %w", c.Name, explain(err))
	}
	return nil
}

func awaitRevoked(ctx context.Context, api client.Client, c *v1alpha1.Credential) error {
	err := poll(ctx, issueTime, func(ctx context.Context) (bool, error) {
		err := api.Get(ctx, client.ObjectKeyFromObject(c), c)
		if apierrors.IsNotFound(err) {
			return true, nil // it ended meanwhile
		}
		if err != nil {
			return false, fmt.Errorf("read credential %s: %w", c.Name, explain(err))
		}
		state := stateOf(c)
		return state == stateRefused || state == stateExpired || meta.IsStatusConditionTrue(c.Status.Conditions, v1alpha1.ConditionRevoked), nil
	})
	if errors.Is(err, context.DeadlineExceeded) {
		return &exitError{exitTimeout, fmt.Errorf("kubeconfig %s is marked as revoked, but the tenant's API does not know yet: `sublet describe %s` tells why", c.Name, c.Spec.Tenant)}
	}
	return err
}

// completeCredential completes a tenant's name, and then IDs of its kubeconfigs.
func (a *app) completeCredential(cmd *cobra.Command, args []string, toComplete string) ([]string, cobra.ShellCompDirective) {
	if len(args) == 0 {
		return a.completeName(cmd, args, toComplete)
	}
	if a.prepare(cmd, nil) != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	api, err := a.host()
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp // a completion has nowhere to tell it
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), 2*time.Second)
	defer cancel()
	list, err := credentialsOf(ctx, api, args[0])
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var names []string
	for i := range list {
		if c := &list[i]; stateOf(c) == stateValid && strings.HasPrefix(c.Name, toComplete) && !slices.Contains(args, c.Name) {
			names = append(names, c.Name+"\t"+printable(c.Spec.User))
		}
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}
