package main

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"sublet.dev/api/v1alpha1"
)

// maxEvents is how many events describe shows.
const maxEvents = 10

func newDescribe(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use: "describe NAME", Short: "Show a tenant: where it is, how it is, what happened",
		Args: oneName, ValidArgsFunction: a.completeName,
	}
	output := addOutput(cmd, "table", "json", "yaml", "name")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		api, err := a.host()
		if err != nil {
			return err
		}
		vc, err := getTenant(cmd.Context(), api, args[0])
		if err != nil {
			return err
		}
		vc.SetGroupVersionKind(v1alpha1.GroupVersion.WithKind("VirtualCluster"))
		if ok, err := output.print(a.out, bare(vc)); ok {
			return err
		}
		if output.value == "name" {
			return a.printList([]v1alpha1.VirtualCluster{*vc}, true)
		}
		return a.describe(cmd.Context(), api, vc)
	}
	return cmd
}

func (a *app) describe(ctx context.Context, api client.Client, vc *v1alpha1.VirtualCluster) error {
	pods, err := countPods(ctx, api, vc.Status.Namespace)
	if err != nil {
		return err
	}
	s := vc.Status
	rows := [][]string{
		{"Name:", vc.Name},
		{"ID:", string(vc.UID)},
		{"Status:", phase(vc)},
		{"Plan:", vc.Spec.Plan},
		{"Sandbox:", vc.Spec.Sandbox},
		{"Age:", age(vc.CreationTimestamp.Time)},
		{"Endpoint:", s.Endpoint},
		{"Server name:", s.ServerName},
		{"API for its pods:", fmt.Sprintf("%s:%d", s.APIAddress, s.APIPort)},
		{"Service range:", strings.TrimSpace(s.ServiceCIDR + " " + s.SecondServiceCIDR)},
		{"Host namespace:", s.Namespace},
		{"Cell:", s.Cell},
		{"Store:", describeStore(vc)},
		{"Host pods:", pods},
	}
	if err := table(a.out, rows); err != nil {
		return err
	}
	rows = [][]string{{"", "CONDITION", "IS", "SINCE", "REASON", "MESSAGE"}}
	for _, c := range s.Conditions {
		rows = append(rows, []string{"", c.Type, string(c.Status), age(c.LastTransitionTime.Time), c.Reason, c.Message})
	}
	fmt.Fprintln(a.out, "Conditions:")
	if err := table(a.out, rows); err != nil {
		return err
	}
	return a.printEvents(ctx, api, vc)
}

// countPods says how many pods the tenant has on the host, by phase.
func countPods(ctx context.Context, api client.Client, namespace string) (string, error) {
	if namespace == "" {
		return "0", nil
	}
	var pods corev1.PodList
	if err := api.List(ctx, &pods, client.InNamespace(namespace)); err != nil {
		return "", fmt.Errorf("list the tenant's host pods: %w", explain(err))
	}
	running := 0
	for _, p := range pods.Items {
		if p.Status.Phase == corev1.PodRunning {
			running++
		}
	}
	return fmt.Sprintf("%d, of which %d running", len(pods.Items), running), nil
}

// printEvents shows the last host events about the tenant.
func (a *app) printEvents(ctx context.Context, api client.Client, vc *v1alpha1.VirtualCluster) error {
	var list eventsv1.EventList
	if err := api.List(ctx, &list); err != nil {
		return fmt.Errorf("list the events: %w", explain(err))
	}
	own := slices.DeleteFunc(list.Items, func(e eventsv1.Event) bool { return e.Regarding.UID != vc.UID })
	slices.SortFunc(own, func(x, y eventsv1.Event) int { return cmp.Compare(eventTime(x).UnixNano(), eventTime(y).UnixNano()) })
	if len(own) > maxEvents {
		own = own[len(own)-maxEvents:]
	}
	fmt.Fprintln(a.out, "Events:")
	rows := [][]string{{"", "AGE", "TYPE", "REASON", "MESSAGE"}}
	for _, e := range own {
		rows = append(rows, []string{"", age(eventTime(e)), e.Type, e.Reason, e.Note})
	}
	return table(a.out, rows)
}

func eventTime(e eventsv1.Event) time.Time {
	if e.Series != nil {
		return e.Series.LastObservedTime.Time
	}
	if !e.EventTime.IsZero() {
		return e.EventTime.Time
	}
	return e.CreationTimestamp.Time
}
