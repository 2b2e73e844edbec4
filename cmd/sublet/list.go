package main

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/util/duration"

	"sublet.dev/api/v1alpha1"
)

func newList(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use: "list", Aliases: []string{"ls"}, Short: "List the tenants",
		Args: noArgs, ValidArgsFunction: cobra.NoFileCompletions,
	}
	output := addOutput(cmd, "table", "json", "yaml", "name")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		api, err := a.host()
		if err != nil {
			return err
		}
		var list v1alpha1.VirtualClusterList
		if err := api.List(cmd.Context(), &list); err != nil {
			return fmt.Errorf("list the tenants: %w", explain(err))
		}
		list.SetGroupVersionKind(v1alpha1.GroupVersion.WithKind("VirtualClusterList"))
		for i := range list.Items {
			list.Items[i].SetGroupVersionKind(v1alpha1.GroupVersion.WithKind("VirtualCluster"))
			bare(&list.Items[i])
		}
		if ok, err := output.print(a.out, &list); ok {
			return err
		}
		if len(list.Items) == 0 && output.value != "name" {
			_, err := fmt.Fprintln(a.err, "There are no tenants: create one with `sublet create NAME --wait`.")
			return err
		}
		return a.printList(list.Items, output.value == "name")
	}
	return cmd
}

// bare drops from a tenant what kubectl does not print either.
func bare(vc *v1alpha1.VirtualCluster) *v1alpha1.VirtualCluster {
	vc.ManagedFields = nil
	return vc
}

// printList prints tenants as a table, or only their names.
func (a *app) printList(tenants []v1alpha1.VirtualCluster, namesOnly bool) error {
	if namesOnly {
		for _, vc := range tenants {
			if _, err := fmt.Fprintln(a.out, "virtualcluster.sublet.dev/"+vc.Name); err != nil {
				return err
			}
		}
		return nil
	}
	rows := [][]string{{"NAME", "STATUS", "PLAN", "SANDBOX", "CELL", "ENDPOINT", "SERVER NAME", "AGE"}}
	for _, vc := range tenants {
		rows = append(rows, []string{vc.Name, phase(&vc), vc.Spec.Plan, vc.Spec.Sandbox, vc.Status.Cell, vc.Status.Endpoint, vc.Status.ServerName, age(vc.CreationTimestamp.Time)})
	}
	return table(a.out, rows)
}

// phase returns the tenant's state in a word.
func phase(vc *v1alpha1.VirtualCluster) string {
	switch {
	case vc.DeletionTimestamp != nil:
		return string(v1alpha1.PhaseDeleting)
	case vc.Status.Phase == "":
		return string(v1alpha1.PhaseCreating)
	}
	return string(vc.Status.Phase)
}

func age(t time.Time) string { return duration.HumanDuration(time.Since(t)) }
