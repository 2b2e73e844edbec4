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
		}
		if ok, err := output.print(a.out, &list); ok {
			return err
		}
		return a.printList(&list, output.value == "name")
	}
	return cmd
}

func (a *app) printList(list *v1alpha1.VirtualClusterList, namesOnly bool) error {
	if namesOnly {
		for _, vc := range list.Items {
			if _, err := fmt.Fprintln(a.out, "virtualcluster.sublet.dev/"+vc.Name); err != nil {
				return err
			}
		}
		return nil
	}
	if len(list.Items) == 0 {
		_, err := fmt.Fprintln(a.err, "There are no tenants: create one with `sublet create NAME --wait`.")
		return err
	}
	rows := [][]string{{"NAME", "STATUS", "SANDBOX", "ENDPOINT", "SERVER NAME", "AGE"}}
	for _, vc := range list.Items {
		rows = append(rows, []string{vc.Name, phase(&vc), vc.Spec.Sandbox, vc.Status.Endpoint, vc.Status.ServerName, age(vc.CreationTimestamp.Time)})
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
