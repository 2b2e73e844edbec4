package main

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/util/duration"
	"k8s.io/apimachinery/pkg/util/validation"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"sublet.dev/api/v1alpha1"
	"sublet.dev/tenant-apiserver/plan"
)

func newPlan(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use: "plan", Short: "Show plans, and give a tenant another",
		Long: `A plan says what its tenants may have. Plans are objects of the host API: make and
change them with kubectl and the kubeconfig in the data directory.`,
		Args: noCommand,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newPlanList(a), newPlanShow(a), newPlanSet(a))
	return cmd
}

func newPlanList(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use: "list", Aliases: []string{"ls"}, Short: "List the plans",
		Args: noArgs, ValidArgsFunction: cobra.NoFileCompletions,
	}
	output := addOutput(cmd, "table", "json", "yaml", "name")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		api, err := a.host()
		if err != nil {
			return err
		}
		var plans v1alpha1.PlanList
		var tenants v1alpha1.VirtualClusterList
		if err := api.List(cmd.Context(), &plans); err != nil {
			return fmt.Errorf("list the plans: %w", explain(err))
		}
		if err := api.List(cmd.Context(), &tenants); err != nil {
			return fmt.Errorf("list the tenants: %w", explain(err))
		}
		plans.SetGroupVersionKind(v1alpha1.GroupVersion.WithKind("PlanList"))
		for i := range plans.Items {
			barePlan(&plans.Items[i])
		}
		if ok, err := output.print(a.out, &plans); ok {
			return err
		}
		return a.printPlans(plans.Items, tenants.Items, output.value == "name")
	}
	return cmd
}

func barePlan(p *v1alpha1.Plan) *v1alpha1.Plan {
	p.ManagedFields = nil
	p.SetGroupVersionKind(v1alpha1.GroupVersion.WithKind("Plan"))
	return p
}

func (a *app) printPlans(plans []v1alpha1.Plan, tenants []v1alpha1.VirtualCluster, namesOnly bool) error {
	rows := [][]string{{"NAME", "TENANTS", "PODS", "SERVICES", "STORE", "OBJECTS", "OWN CELL", "IDLE AFTER"}}
	for i := range plans {
		p := &plans[i]
		if namesOnly {
			if _, err := fmt.Fprintln(a.out, "plan.sublet.dev/"+p.Name); err != nil {
				return err
			}
			continue
		}
		used := 0
		for j := range tenants {
			if tenants[j].Spec.Plan == p.Name {
				used++
			}
		}
		t := plan.For(p)
		rows = append(rows, []string{p.Name, strconv.Itoa(used), hostLimit(p, corev1.ResourcePods), hostLimit(p, corev1.ResourceServices),
			bytesOf(t.StoreQuota), strconv.FormatInt(t.Limits.Objects, 10), yesNo(t.OwnCell), idle(t.IdleAfter)})
	}
	if namesOnly {
		return nil
	}
	return table(a.out, rows)
}

func newPlanShow(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use: "show PLAN", Short: "Show what the tenants of a plan may have",
		Args: onePlan, ValidArgsFunction: a.completePlan,
	}
	output := addOutput(cmd, "table", "json", "yaml")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		api, err := a.host()
		if err != nil {
			return err
		}
		p, err := getPlan(cmd.Context(), api, args[0])
		if err != nil {
			return err
		}
		if ok, err := output.print(a.out, barePlan(p)); ok {
			return err
		}
		return a.showPlan(p)
	}
	return cmd
}

func (a *app) showPlan(p *v1alpha1.Plan) error {
	t := plan.For(p)
	usual, most := plan.Lifetime(p)
	rows := [][]string{
		{"Name:", p.Name},
		{"Sandboxes:", strings.Join(p.Spec.Sandboxes, ", ")},
		{"Own cell:", yesNo(t.OwnCell)},
		{"Asleep when idle for:", idle(t.IdleAfter)},
		{"Store:", bytesOf(t.StoreQuota)},
		{"Objects:", fmt.Sprintf("%d in all, %d of a resource, %s each", t.Limits.Objects, t.Limits.PerResource, bytesOf(t.Limits.Size))},
	}
	for _, name := range sortedKeys(t.Limits.Resources) {
		rows = append(rows, []string{"", fmt.Sprintf("%d %s", t.Limits.Resources[name], name)})
	}
	rows = append(rows,
		[]string{"Requests at a time:", fmt.Sprintf("%d, and %d watches and streams", t.Limits.Concurrent, t.Limits.Streams)},
		[]string{"Kubeconfigs:", fmt.Sprintf("%s, at most %s", human(usual), human(most))},
		[]string{"Audit log:", string(t.Audit)},
		[]string{"Internet:", "pods " + yesNo(t.Internet) + ", webhooks " + yesNo(t.PublicWebhooks)},
		[]string{"Node ports:", strconv.Itoa(int(p.Spec.NodePorts))},
	)
	if len(p.Spec.PriorityClasses) > 0 {
		rows = append(rows, []string{"Priority classes:", strings.Join(p.Spec.PriorityClasses, ", ")})
	}
	rows = append(rows, []string{"On the host:", ""})
	for _, name := range sortedKeys(p.Spec.HostResources) {
		rows = append(rows, []string{"", hostLimit(p, name) + " " + string(name)})
	}
	for i, r := range t.CustomResources {
		title := ""
		if i == 0 {
			title = "Custom resources:"
		}
		rows = append(rows, []string{title, customRule(r)})
	}
	return table(a.out, rows)
}

// customRule is a rule for custom resources in a line.
func customRule(r v1alpha1.CustomResourceRule) string {
	var fields []string
	for _, f := range r.Fields {
		switch {
		case f.Value != nil:
			fields = append(fields, f.Path+"="+string(f.Value.Raw))
		case len(f.Values) > 0:
			fields = append(fields, f.Path+"="+strings.Join(f.Values, "|"))
		case f.Reference+f.Result != "":
			fields = append(fields, f.Path+"->"+f.Reference+f.Result)
		default:
			fields = append(fields, f.Path)
		}
	}
	line := fmt.Sprintf("%s.%s %s %s: %s", r.Resource, r.Group, r.Version, r.Direction, strings.Join(fields, ", "))
	if r.Direction == v1alpha1.ToHost {
		line += fmt.Sprintf("; others: %s; back: %s", strings.ToLower(cmp.Or(r.OtherFields, v1alpha1.RefuseOthers)), strings.Join(r.Status, ", "))
	}
	return line
}

func newPlanSet(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "set TENANT PLAN", Short: "Give a tenant another plan",
		Long: `Give a tenant another plan. It takes effect while the tenant runs: no pod is restarted.
What the tenant has already stays, also where the new plan allows less.`,
		Example: "  sublet plan set acme large",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 2 {
				return usageErrorf("the names of a tenant and of a plan are needed: sublet plan set TENANT PLAN")
			}
			return checkName(args[0])
		},
		ValidArgsFunction: func(cmd *cobra.Command, args []string, toComplete string) ([]string, cobra.ShellCompDirective) {
			if len(args) == 1 {
				return a.completePlan(cmd, nil, toComplete)
			}
			return a.completeName(cmd, args, toComplete)
		},
		RunE: func(cmd *cobra.Command, args []string) error { return a.setPlan(cmd.Context(), args[0], args[1]) },
	}
}

func (a *app) setPlan(ctx context.Context, name, planName string) error {
	api, err := a.host()
	if err != nil {
		return err
	}
	vc, err := getTenant(ctx, api, name)
	if err != nil {
		return err
	}
	p, err := getPlan(ctx, api, planName)
	if err != nil {
		return err
	}
	if err := hasSandbox(p, vc.Spec.Sandbox); err != nil {
		return err
	}
	before := vc.DeepCopy()
	vc.Spec.Plan = planName
	if err := api.Patch(ctx, vc, client.MergeFrom(before)); err != nil {
		return fmt.Errorf("change the plan of tenant %q: %w", name, explain(err))
	}
	_, err = fmt.Fprintf(a.out, "tenant %s has plan %s\n", name, planName)
	return err
}

// hasSandbox returns an error when a plan has not the sandbox of a tenant; a
// tenant that asks for none has the plan's first.
func hasSandbox(p *v1alpha1.Plan, sandbox string) error {
	if _, ok := plan.Sandbox(p, sandbox); !ok {
		return &exitError{exitConflict, fmt.Errorf("the plan %s has the sandboxes %s, not %s: choose another plan", p.Name, strings.Join(p.Spec.Sandboxes, ", "), sandbox)}
	}
	return nil
}

// getPlan reads a plan.
func getPlan(ctx context.Context, api client.Client, name string) (*v1alpha1.Plan, error) {
	p := &v1alpha1.Plan{}
	err := api.Get(ctx, client.ObjectKey{Name: name}, p)
	if apierrors.IsNotFound(err) {
		return nil, &exitError{exitNotFound, fmt.Errorf("plan %q does not exist: `sublet plan list` shows those there are", name)}
	}
	if err != nil {
		return nil, fmt.Errorf("read plan %q: %w", name, explain(err))
	}
	return p, nil
}

// onePlan accepts exactly one argument: a name that a plan can have.
func onePlan(cmd *cobra.Command, args []string) error {
	if len(args) != 1 {
		return usageErrorf("one plan was expected: %s", cmd.UseLine())
	}
	if msgs := validation.IsDNS1123Label(args[0]); len(msgs) > 0 {
		return usageErrorf("%q is no plan's name: %s", args[0], strings.Join(msgs, "; "))
	}
	return nil
}

// completePlan completes the first argument, or a flag, with the names of plans.
func (a *app) completePlan(cmd *cobra.Command, args []string, toComplete string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 || a.prepare(cmd, nil) != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	api, err := a.host()
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp // a completion has nowhere to tell it
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), 2*time.Second)
	defer cancel()
	var list v1alpha1.PlanList
	if err := api.List(ctx, &list); err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var names []string
	for _, p := range list.Items {
		if strings.HasPrefix(p.Name, toComplete) {
			names = append(names, p.Name)
		}
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

func hostLimit(p *v1alpha1.Plan, name corev1.ResourceName) string {
	n, ok := p.Spec.HostResources[name]
	if !ok {
		return "default"
	}
	return n.String()
}

func bytesOf(n int64) string { return resource.NewQuantity(n, resource.BinarySI).String() }

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

func idle(d time.Duration) string {
	if d == 0 {
		return "never"
	}
	return human(d)
}

// human is a duration in a word.
func human(d time.Duration) string { return duration.HumanDuration(d) }

func sortedKeys[K ~string, V any](m map[K]V) []K {
	keys := make([]K, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
