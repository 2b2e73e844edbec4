package main

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"sublet.dev/api/v1alpha1"
)

// completeName completes the first argument with the names of the tenants.
func (a *app) completeName(cmd *cobra.Command, args []string, toComplete string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return a.completeNames(cmd, args, toComplete)
}

// completeNames completes any argument with the names of the tenants that are not
// given yet.
func (a *app) completeNames(cmd *cobra.Command, args []string, toComplete string) ([]string, cobra.ShellCompDirective) {
	if err := a.prepare(cmd, nil); err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	api, err := a.host()
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp // a completion has nowhere to tell it
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), 2*time.Second)
	defer cancel()
	var list v1alpha1.VirtualClusterList
	if err := api.List(ctx, &list); err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var names []string
	for _, vc := range list.Items {
		if strings.HasPrefix(vc.Name, toComplete) && !slices.Contains(args, vc.Name) {
			names = append(names, vc.Name)
		}
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}
